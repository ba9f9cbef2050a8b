import httpx
import pytest

from notifier.openapi import Application


async def post(path: str) -> httpx.Response:
    app = Application("title", "description", {"key": {"type": "http", "scheme": "bearer"}})

    async def endpoint() -> None:
        pass

    app.add_api_route("/v1/events", endpoint, methods=["POST"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as http:
        return await http.request("GET" if path == "/openapi.json" else "POST", path)


async def test_the_description_has_the_schemes_of_security_and_the_form_of_a_problem() -> None:
    components = (await post("/openapi.json")).json()["components"]

    assert list(components["securitySchemes"]) == ["key"]
    assert components["schemas"]["Problem"]["required"] == ["type", "title", "status", "detail"]


@pytest.mark.parametrize("path", ["/v1/events/", "/v1/events//"])
async def test_nobody_is_redirected(path: str) -> None:
    assert (await post(path)).status_code == 404
