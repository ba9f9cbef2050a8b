"""TLS at a port, on both event loops."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from notifier import serving
from notifier.http.certificate import ServerCertificate
from notifier.serving import loop_factory, serve
from tests.support.tls import Pair, made_pair

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
Run = Callable[[Coroutine[Any, Any, None]], None]


async def scheme(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.scope["scheme"])


APP = Starlette(routes=[Route("/", scheme)])


@pytest.fixture(scope="module")
def pair() -> Pair:
    return made_pair()


@pytest.fixture(params=[asyncio.new_event_loop, loop_factory], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test on a loop of one kind."""

    def on_loop(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(work, 30))

    return on_loop


@asynccontextmanager
async def port_of(pair: Pair, most: int | None = None) -> AsyncIterator[int]:
    shown = ServerCertificate(pair.certificate, pair.key)
    async with serve(
        APP, host="127.0.0.1", port=0, setting="X", certificate=shown, most=most, grace=1
    ) as port:
        yield port


async def answer(port: int, context: ssl.SSLContext) -> str:
    async with httpx.AsyncClient(verify=context) as http:
        return (await http.get(f"https://127.0.0.1:{port}/")).text


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_request_over_tls_is_answered(pair: Pair, run: Run, version: ssl.TLSVersion) -> None:
    context = pair.client
    context.minimum_version = context.maximum_version = version

    async def work() -> None:
        async with port_of(pair) as port:
            assert await answer(port, context) == "https"

    run(work())


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated")
def test_a_client_of_tls_1_1_is_refused(pair: Pair, run: Run) -> None:
    context = pair.client
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")

    async def work() -> None:
        async with port_of(pair) as port:
            with pytest.raises(httpx.ConnectError):
                await answer(port, context)
            assert await answer(port, pair.client) == "https"

    run(work())


def test_a_request_behind_the_last_bytes_of_a_handshake_is_answered(pair: Pair, run: Run) -> None:
    async def work() -> None:
        async with port_of(pair) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = pair.client.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65_536))
            client.write(REQUEST)
            writer.write(outgoing.read())  # the handshake's end and the request, in one piece
            text = b""
            while not text.endswith(b"https"):
                incoming.write(await reader.read(65_536))
                try:
                    text += client.read(65_536)
                except ssl.SSLWantReadError:
                    continue
            writer.close()

    run(work())


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_client_has_a_bounded_time_for_the_handshake(
    pair: Pair, run: Run, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(serving, "_HANDSHAKE", 0.1)

    async def work() -> None:
        async with port_of(pair, most=1) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert await reader.read() == b""
            writer.close()
            assert await answer(port, pair.client) == "https"  # its place is free

    run(work())


@pytest.mark.parametrize("sent", [REQUEST, b"\x16\x03\x01\x00\x05hello", bytes(100)])
def test_bytes_that_are_no_handshake_end_their_connection_alone(
    pair: Pair, run: Run, sent: bytes
) -> None:
    async def work() -> None:
        async with port_of(pair, most=1) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            assert b"HTTP" not in await reader.read()
            writer.close()
            assert await answer(port, pair.client) == "https"

    run(work())


def test_a_client_that_goes_amid_the_handshake_leaves_its_place(pair: Pair, run: Run) -> None:
    async def work() -> None:
        async with port_of(pair, most=1) as port:
            for _ in range(5):
                raw = socket.create_connection(("127.0.0.1", port))
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))
                raw.close()
            await asyncio.sleep(0.05)
            assert await answer(port, pair.client) == "https"

    run(work())


def test_a_client_beyond_the_bound_is_refused(pair: Pair, run: Run) -> None:
    async def work() -> None:
        async with port_of(pair, most=1) as port:
            _, first = await asyncio.open_connection("127.0.0.1", port, ssl=pair.client)
            first.write(b"GET")
            await asyncio.sleep(0.05)
            second, writer = await asyncio.open_connection("127.0.0.1", port, ssl=pair.client)
            writer.write(REQUEST)
            assert b" 503 " in await second.read()
            first.close()
            writer.close()

    run(work())


def test_a_port_that_closes_waits_for_handshakes_as_long_as_for_requests(
    pair: Pair, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "_HANDSHAKE", 600)

    async def work() -> None:
        async with asyncio.timeout(20), port_of(pair) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.sleep(0.05)
        writer.close()

    run(work())


def test_a_newer_certificate_is_for_clients_that_come_later(pair: Pair, run: Run) -> None:
    newer = made_pair(hours=2)

    async def work() -> None:
        shown = ServerCertificate(pair.certificate, pair.key)
        async with (
            serve(APP, host="127.0.0.1", port=0, setting="X", certificate=shown) as port,
            httpx.AsyncClient(verify=pair.client) as earlier,
        ):
            address = f"https://127.0.0.1:{port}/"
            await earlier.get(address)
            shown.become(ServerCertificate(newer.certificate, newer.key))
            assert (await earlier.get(address)).text == "https"
            assert await answer(port, newer.client) == "https"
            with pytest.raises(httpx.ConnectError):
                await answer(port, pair.client)

    run(work())


def locked(key: str) -> str:
    private = serialization.load_pem_private_key(key.encode(), None)
    encryption = serialization.BestAvailableEncryption(b"a password")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    return private.private_bytes(*form, encryption).decode()


@pytest.mark.parametrize(
    ("certificate", "key", "sentence"),
    [
        (lambda one: one.certificate, lambda _: made_pair().key, "is not that of the first cert"),
        (lambda one: one.key, lambda one: one.certificate, "must be PEM"),
        (lambda one: one.certificate, lambda _: "", "must be PEM"),
        (lambda _: "", lambda one: one.key, "must be PEM"),
        (lambda _: "/run/secrets/tls.crt", lambda one: one.key, "must be PEM"),
        (lambda one: one.certificate, lambda one: locked(one.key), "must have no password"),
    ],
    ids=["another's key", "exchanged", "no key", "no certificate", "a path", "locked"],
)
def test_a_certificate_that_cannot_be_is_told_without_any_of_its_text(
    pair: Pair, certificate: Callable[[Pair], str], key: Callable[[Pair], str], sentence: str
) -> None:
    given = certificate(pair), key(pair)

    with pytest.raises(ValueError, match=sentence) as error:
        ServerCertificate(*given)

    assert not any(line in str(error.value) for text in given for line in text.split() if line)
    assert error.value.__cause__ is None
