import pytest

from tests.support.gateways import served

PAGE = "https://app.example"


async def test_every_answer_may_be_read_by_an_allowed_page() -> None:
    async with served(origins=[PAGE]) as it, it.http(None) as http:
        paths = ("history", "poll?wait=x", "nowhere", "ws", "sse")
        answers = [await http.get(f"/v1/{path}", headers={"origin": PAGE}) for path in paths]
        it.gateway.draining = True
        answers.append(await http.get("/v1/poll", headers={"origin": PAGE}))
        answers.append(await http.get("/openapi.json", headers={"origin": PAGE}))

    assert [each.status_code for each in answers] == [401, 401, 404, 426, 401, 503, 200]
    assert {each.headers.get("access-control-allow-origin") for each in answers} == {PAGE}
    assert {each.headers.get("access-control-allow-credentials") for each in answers} == {"true"}
    assert {each.headers.get("access-control-expose-headers") for each in answers} == {
        "retry-after"
    }


async def test_a_fault_of_the_gateway_may_be_read_too() -> None:
    async with served(origins=[PAGE]) as it, it.http() as http:
        del it.app.state.gateway
        answer = await http.get("/v1/history", headers={"origin": PAGE})

        it.app.state.gateway = it.gateway
    assert (answer.status_code, answer.json()["code"]) == (500, "failed")
    assert answer.headers["access-control-allow-origin"] == PAGE


async def test_an_answer_that_is_handed_over_is_marked_once() -> None:
    async with served(origins=[PAGE]) as it, it.http() as http:
        answer = await http.get("/v1/poll", headers={"origin": PAGE})

    assert answer.headers.get_list("access-control-allow-origin") == [PAGE]


async def test_where_the_list_is_open_any_page_reads_without_credentials() -> None:
    async with served(origins=["*"]) as it, it.http() as http:
        answer = await http.get("/v1/history", headers={"origin": "https://any.example"})

    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "asked", ["cache-control", "traceparent, tracestate, baggage", "Sentry-Trace", "b3"]
)
async def test_a_preflight_allows_headers_of_caches_and_of_tracing(asked: str) -> None:
    headers = {"origin": PAGE, "access-control-request-headers": asked}
    async with served(origins=[PAGE]) as it, it.http(None) as http:
        answer = await http.options("/v1/poll", headers=headers)

    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert answer.status_code == 204
    assert {"authorization", "last-event-id", *asked.lower().split(", ")} <= set(allowed)


async def test_a_preflight_never_allows_headers_of_proxies() -> None:
    asked = "x-forwarded-host, X-Forwarded-Proto, forwarded"
    headers = {"origin": PAGE, "access-control-request-headers": asked}
    async with served(origins=[PAGE]) as it, it.http(None) as http:
        answer = await http.options("/v1/poll", headers=headers)

    assert "forwarded" not in answer.headers["access-control-allow-headers"]


async def test_a_preflight_of_another_site_is_refused_with_the_reason() -> None:
    async with served(origins=[PAGE]) as it, it.http(None) as http:
        answer = await http.options("/v1/poll", headers={"origin": "https://evil.example"})

    assert answer.status_code == 403
    assert "https://evil.example" in answer.json()["detail"]
    assert "access-control-allow-origin" not in answer.headers
