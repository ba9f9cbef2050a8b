"""The opening of a WebSocket, which speaks ASGI to the application until the hand-over."""

import asyncio
from http import HTTPStatus
from typing import Protocol
from urllib.parse import unquote

import structlog
from starlette import types
from websockets.datastructures import Headers
from websockets.http11 import Response

from notifier.core.header_lists import values_of
from notifier.gateway.framing import Opcode, websocket_frame
from notifier.gateway.handshake import Agreement, Fault, HandshakeRequest
from notifier.http.port import HANDOVER, Port
from notifier.problems import refusal

_log = structlog.get_logger("notifier.gateway")
_UNDERSTOOD = {"upgrade": "websocket", "sec-websocket-version": "13"}  # RFC 6455, section 4.4


class Opened(Protocol):
    """The connection that is to be opened."""

    @property
    def client(self) -> str:
        """The address of the other end."""

    def agree_on(self, window: int) -> None:
        """Compress with this window, in bits; 0 for not at all."""

    def write(self, data: bytes) -> None:
        """Send bytes."""

    def close_with(self, code: int, reason: str) -> None:
        """Close with a code of RFC 6455, section 7.4."""

    def leave_alone(self) -> None:
        """Close, as the application accepted the client and did not hand it over."""


class Opening:
    """One client's upgrade request, and the application's answer to it."""

    def __init__(self, connection: Opened, port: Port) -> None:
        self.accepted = False
        self._answered = False
        self._connection = connection
        self._port = port
        self._request: HandshakeRequest
        self._agreement: Agreement
        self._refusal: tuple[int, Headers] | None = None
        self._received = False
        self._gone: asyncio.Future[None] | None = None  # while the application waits for it

    def begin(self, request: HandshakeRequest, transport: asyncio.Transport) -> None:
        """Answer the upgrade request, or run the application on it."""
        self._transport = transport
        self._request = request
        answer = request.answer()
        if isinstance(answer, Fault):
            self._refuse_for(answer)
            return
        self._agreement = answer
        if answer.window:
            self._connection.agree_on(answer.window)
        task = asyncio.get_running_loop().create_task(
            self._run(self._scope(self._request)), name="websocket-handshake"
        )
        self._port.state.tasks.add(task)
        task.add_done_callback(self._port.state.tasks.discard)

    def _refuse_for(self, fault: Fault) -> None:
        status, reason = fault
        _log.info("refused", client=self._connection.client, code=reason.code, reason=str(reason))
        content = refusal(reason, status, _UNDERSTOOD)
        pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in content.raw_headers]
        self._refuse(status, Headers(pairs), bytes(content.body))

    def lost(self) -> None:
        """Let an application that still waits know that the client is gone."""
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def _scope(self, request: HandshakeRequest) -> types.Scope:
        offered = values_of(request.headers, b"sec-websocket-protocol")
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if self._port.is_tls else "ws",
            "server": None,  # uvloop would keep the addresses for as long as the connection lives
            "client": None,
            "root_path": "",
            "path": unquote(request.path.decode("latin-1")),
            "raw_path": request.path,
            "query_string": request.query,
            "headers": request.headers,
            "subprotocols": [each.strip() for line in offered for each in line.split(",")],
            "state": {},
            "extensions": {"websocket.http.response": {}, HANDOVER: {"to": self._connection}},
        }

    async def _run(self, scope: types.Scope) -> None:
        try:
            await self._port.app(scope, self._receive, self._send)
        except Exception:  # noqa: BLE001 - an endpoint's error ends this one connection, not the gateway
            _log.exception("endpoint_failed", path=scope["path"])
        if not self._answered:
            self._refuse(500, Headers(), b"Internal Server Error\n")
        elif self.accepted:
            self._connection.leave_alone()

    async def _receive(self) -> types.Message:
        if not self._received:
            self._received = True
            return {"type": "websocket.connect"}
        if not self._transport.is_closing():
            self._gone = asyncio.get_running_loop().create_future()
            await self._gone
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, message: types.Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self._accept(message)
            case "websocket.send":
                self._connection.write(websocket_frame(Opcode.TEXT, message["text"].encode()))
            case "websocket.close" if self.accepted:
                self._connection.close_with(message.get("code", 1000), message.get("reason") or "")
            case "websocket.close":
                self._refuse(HTTPStatus.FORBIDDEN, Headers(), b"Forbidden\n")
            case "websocket.http.response.start":
                pairs = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
                self._refusal = message["status"], Headers(pairs)
            case "websocket.http.response.body" if self._refusal:
                self._refuse(*self._refusal, message.get("body", b""))

    def _accept(self, message: types.Message) -> None:
        more = [*self._agreement.headers, *message.get("headers", ())]
        if subprotocol := message.get("subprotocol"):
            more.append((b"Sec-WebSocket-Protocol", subprotocol.encode()))
        self.accepted = self._answered = True
        if not self._transport.is_closing():  # uvloop raises when the client has gone meanwhile
            self._transport.write(self._request.acceptance(more))

    def _refuse(self, status: int, headers: Headers, body: bytes) -> None:
        headers["Connection"] = "close"
        headers.setdefault("Content-Length", str(len(body)))
        self._answered = True
        if not self._transport.is_closing():
            response = Response(status, HTTPStatus(status).phrase, headers, body)
            self._transport.write(response.serialize())
            self._transport.close()
