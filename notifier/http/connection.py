"""A client's connection: a request, its response, and the hand-over to another protocol."""

import asyncio
from typing import Any
from urllib.parse import unquote

import httptools

from notifier.http.exchange import Exchange, Manner
from notifier.http.incoming import Incoming, Part
from notifier.http.port import HANDOVER, MOST_EARLY, Header, Port


class Connection(Incoming):
    """One client's connection. Fulfils Carrier."""

    __slots__ = ("_keeps_alive",)

    def __init__(self, port: Port) -> None:
        super().__init__(port)
        self._keeps_alive = True

    # Called by asyncio, and by the server: `shutdown`.

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        self._untie()

    def shutdown(self) -> None:
        """Close, after the response that is under way."""
        if self._exchange is None:
            self.close()
        else:
            self._exchange.keeps_alive = False

    def _untie(self) -> None:
        # These refer back: a cycle would stay in memory for very long, see ADR 16.
        self._stop_clock()
        self._port.idle.pop(self, None)
        self._parser = None
        self._unread, self._at = b"", 0
        if self._exchange is not None:
            self._exchange.lost()
            self._exchange = None

    # Requests.

    def _take_offer(self, parser: httptools.HttpRequestParser) -> None:
        """Become a WebSocket, or ignore the offer as RFC 9110, section 7.8, allows."""
        self._is_offered = False
        self._parser = None  # it reads no further
        given = dict(self._headers)
        has_body = b"transfer-encoding" in given or (
            b"content-length" in given and any(map(int, self._values(b"content-length")))
        )
        if not has_body and self._wants_websocket(parser):
            self._become_websocket()
            return
        self._begin(parser)
        if not has_body:
            self.on_message_complete()
        else:
            self._read_body_anew()

    def _wants_websocket(self, parser: httptools.HttpRequestParser) -> bool:
        # A client may offer several, on one line or more (RFC 9110, section 7.8).
        offers = b",".join(self._values(b"upgrade")).lower().split(b",")
        is_get = parser.get_method() == b"GET" and parser.get_http_version() == "1.1"
        is_offered = b"websocket" in map(bytes.strip, offers)
        return self._port.websocket is not None and is_get and is_offered

    def _begin(self, parser: httptools.HttpRequestParser) -> None:
        length = self._values(b"content-length")
        version, method = parser.get_http_version(), parser.get_method().decode("ascii")
        manner = Manner(
            keeps_alive=version != "1.0" and parser.should_keep_alive(),
            is_head=method == "HEAD",
            is_old=version == "1.0",
            expects_continue=version == "1.1"
            and b"100-continue" in map(bytes.lower, self._values(b"expect")),
        )
        scope = self._scope(method, version)
        self._exchange = exchange = Exchange(self, manner)
        scope["extensions"] = {HANDOVER: {"from": exchange}}
        self._left = int(length[0]) if length else 0
        self._part = Part.BODY
        self._limit()
        task = asyncio.get_running_loop().create_task(
            exchange.run(self._port.app, scope), name="http-exchange"
        )
        self._port.state.tasks.add(task)
        task.add_done_callback(self._port.state.tasks.discard)

    def _scope(self, method: str, version: str) -> dict[str, Any]:
        path, query = self._path_and_query()
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": version,
            "method": method,
            "scheme": "https" if self._port.is_tls else "http",
            "root_path": "",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": self._headers,
            # uvloop keeps addresses that were asked for once for as long as the connection lives.
            "server": None,
            "client": None,
            "state": {},
        }

    def _path_and_query(self) -> tuple[bytes, bytes]:
        """Take the target apart, which may be a whole URL (RFC 9112, section 3.2.2)."""
        target = httptools.parse_url(self._target)
        return target.path or b"/", target.query or b""

    def _become_websocket(self) -> None:
        early, transport = self._unread[self._at :], self._transport
        path_and_query, headers = self._path_and_query(), self._headers
        self._port.state.connections.discard(self)
        self._part, self._is_lent = Part.NEXT, True
        self._untie()
        websocket = self._port.websocket(self._port)  # type: ignore[misc] # there is one: see above
        websocket.connection_made(transport)
        websocket.begin_handshake(*path_and_query, headers)
        transport.set_protocol(websocket)  # type: ignore[arg-type] # structurally one
        if early:
            websocket.data_received(early)

    def _finish(self) -> None:
        """Go on behind a request that is whole and answered."""
        if not self._keeps_alive:
            self.close()
            return
        self._part = Part.NOTHING
        self._expect_request()
        self._limit()
        if self._at == len(self._unread):
            self._port.idle[self] = None
        self._go_on()

    # Called by its exchange.

    @property
    def default_headers(self) -> list[Header]:
        """See Carrier."""
        return self._port.state.default_headers

    @property
    def port(self) -> Port:
        """See Carrier."""
        return self._port

    def read_on(self) -> None:
        """See Carrier."""
        self._go_on()

    def answered(self) -> None:
        """See Carrier."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        self._keeps_alive = exchange.keeps_alive
        if exchange.expects_continue:
            self.close()  # the rest of the request may never come
        elif self._part is Part.NEXT:
            self._finish()
        else:
            self._go_on()  # and drop the rest of the request

    # The hand-over.

    def lend(self, protocol: asyncio.Protocol) -> asyncio.Transport:
        """See Carrier."""
        self._is_lent = True
        self._headers = []  # an idle client must not keep them in memory
        self._stop_clock()
        self._drop_what_is_read()
        self._swap(self, protocol)
        if self._is_held_back:
            self._is_held_back = False
            self._transport.resume_reading()
        return self._transport

    def keep_early(self, data: bytes) -> None:
        """See Carrier."""
        self._unread += data
        if len(self._unread) > MOST_EARLY:
            self._transport.abort()

    def take_back(self, protocol: asyncio.Protocol, *, is_paused: bool) -> None:
        """See Carrier."""
        self._is_lent, self._is_paused = False, is_paused
        self._swap(protocol, self)
        if is_paused:
            self._port.backlog.note(self)
        self._limit()

    def _swap(self, one: asyncio.Protocol, other: asyncio.Protocol) -> None:
        self._port.state.connections.discard(one)
        self._port.state.connections.add(other)
        self._transport.set_protocol(other)

    def let_go(self, protocol: asyncio.Protocol) -> None:
        """See Carrier."""
        self._port.state.connections.discard(protocol)
        self._untie()
