import pytest

from tests.support.gateways import served


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/nowhere", 404), ("POST", "/v1/sse", 405)],
)
async def test_a_request_that_leads_nowhere_is_told_where_to_go(
    method: str, path: str, status: int
) -> None:
    async with served() as it, it.http() as http:
        answer = await http.request(method, path)

    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/problem+json",
    )
    assert "a WebSocket at /v1/ws" in answer.json()["detail"]
