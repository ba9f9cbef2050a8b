import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from notifier.core.origins import Origins
from notifier.page.guard import LOOPBACK_ORIGINS, Guard


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("in")(scope, receive, send)


async def status(
    host: str, method: str = "GET", bound: str = "127.0.0.1", **headers: str
) -> tuple[int, str]:
    guard = Guard(application, bound, Origins(LOOPBACK_ORIGINS))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    transport = httpx.ASGITransport(guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
        answer = await http.request(method, "/", headers={"host": host, **named})
    return answer.status_code, answer.text


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]", "tenant.localhost:1"],
)
async def test_own_names_are_answered(host: str) -> None:
    assert await status(host) == (200, "in")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "10.0.0.5", "localhost.evil.example", "", "[::2]"]
)
async def test_a_name_that_may_have_been_rebound_is_not_answered(host: str) -> None:
    assert (await status(host))[0] == 421


@pytest.mark.parametrize(
    ("bound", "host", "expected"),
    [
        ("dev.example", "dev.example:8000", 200),
        ("192.168.0.7", "192.168.0.7:8000", 200),
        ("0.0.0.0", "192.168.0.7:8000", 200),  # noqa: S104 - as containers do
        ("::", "notifier:8000", 200),
        ("::", "evil.example:8000", 421),
    ],
)
async def test_the_address_that_is_listened_on_has_its_names(
    bound: str, host: str, expected: int
) -> None:
    assert (await status(host, bound=bound))[0] == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"origin": "https://evil.example", "content_type": "text/plain"},
    ],
)
async def test_a_post_of_another_sites_page_is_refused(headers: dict[str, str]) -> None:
    assert (await status("localhost:8000", "POST", **headers))[0] == 403


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": "http://localhost:8000"}, {"origin": "http://127.0.0.1:3000"}],
)
async def test_a_post_of_the_own_page_a_local_page_or_no_browser_is_taken(
    headers: dict[str, str],
) -> None:
    assert (await status("localhost:8000", "POST", **headers))[0] == 200


async def test_a_websocket_under_a_rebound_name_is_refused_before_the_upgrade() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/v1/ws",
        "headers": [(b"host", b"evil.example")],
        "extensions": {"websocket.http.response": {}},
    }
    await Guard(application, "127.0.0.1", Origins())(scope, receive, send)

    assert sent[0]["status"] == 421
