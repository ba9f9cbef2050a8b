import asyncio
from types import SimpleNamespace

from starlette.types import Receive, Scope, Send

from notifier.gateway.websocket import WebSocketConnection
from notifier.http.port import Port


class Silent(asyncio.Transport):
    def is_closing(self) -> bool:
        return False


async def test_an_application_that_waits_hears_that_its_client_left() -> None:
    waits, heard = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()
        waits.set()
        heard.set_result(await receive())

    state = SimpleNamespace(connections=set(), tasks=set(), default_headers=[])
    connection = WebSocketConnection(Port(app, state, WebSocketConnection))
    connection.connection_made(Silent())
    upgrade = [
        (b"connection", b"Upgrade"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    connection.begin_handshake(b"/v1/ws", b"", upgrade)
    await asyncio.wait_for(waits.wait(), 30)
    connection.connection_lost(None)

    assert (await asyncio.wait_for(heard, 30))["type"] == "websocket.disconnect"
