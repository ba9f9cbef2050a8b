"""TLS that the gateway ends by itself, as docs/operating.md says."""

import asyncio
import json
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.clients import connected, slow_client
from tests.support.process import wait_until
from tests.support.producers import HttpProducer, http_producer
from tests.support.roles import Role, Service, running, service_of, token
from tests.support.tls import Pair, made_pair


class Files:
    """The certificate and its key, where the gateway reads them."""

    def __init__(self, folder: Path) -> None:
        self._certificate, self._key = folder / "tls.crt", folder / "tls.key"

    @property
    def settings(self) -> dict[str, str]:
        return {
            "NOTIFIER_TLS_CERTIFICATE_FILE": str(self._certificate),
            "NOTIFIER_TLS_KEY_FILE": str(self._key),
        }

    def write(self, certificate: str, key: str) -> None:
        self._certificate.write_text(certificate)
        self._key.write_text(key)


@pytest.fixture
def pair() -> Pair:
    return made_pair(hours=48)


@pytest.fixture
def files(tmp_path: Path, pair: Pair) -> Files:
    files = Files(tmp_path)
    files.write(pair.certificate, pair.key)
    return files


@pytest.fixture
def service(tmp_path: Path, amqp_url: str, redis_url: str, files: Files) -> Iterator[Service]:
    service = service_of(tmp_path, amqp_url, redis_url, **files.settings)
    with running(service.api, service.router, service.gateway):
        yield service


def address(gateway: Role, scheme: str) -> str:
    return f"{scheme}://127.0.0.1:{gateway.port('NOTIFIER_GATEWAY_PORT')}"


async def post(producer: HttpProducer, *names: str, text: str = "") -> None:
    events = [{"users": ["42"], "type": "t", "id": name, "data": {"text": text}} for name in names]
    answer = await producer.post(events)
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text


async def streamed(http: httpx.AsyncClient, name: str) -> None:
    """Read the stream until an event of this name comes."""
    async with http.stream("GET", "/v1/sse") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data:") and json.loads(line[5:]).get("event", {}).get("id") == name:
                return
    raise AssertionError("the stream ended")


async def test_an_event_comes_over_tls_by_each_transport(service: Service, pair: Pair) -> None:
    gateway = service.gateway
    async with (
        http_producer(service.api.api_url) as producer,
        httpx.AsyncClient(
            base_url=address(gateway, "https"),
            headers={"authorization": f"Bearer {token('42')}"},
            verify=pair.client,
            timeout=30,
        ) as http,
        connected(address(gateway, "wss"), token("42"), tls=pair.client) as client,
        asyncio.timeout(60),
    ):
        stream = asyncio.create_task(streamed(http, "second"))
        cursor = (await http.get("/v1/poll")).json()["cursor"]
        await asyncio.to_thread(
            wait_until,
            lambda: gateway.metric("notifier_connections", transport="sse") == 1,
            seconds=30,
            otherwise=gateway.log_tail,
        )
        await post(producer, "first", "second")
        await client.next_events(2)
        await stream
        polled = (await http.get("/v1/poll", params={"since": cursor})).json()

    await asyncio.to_thread(
        wait_until,
        lambda: bool(gateway.lines("disconnected")),
        seconds=30,
        otherwise=gateway.log_tail,
    )
    assert {line["level"] for line in gateway.lines()} == {"info"}
    assert client.events == ["first", "second"]
    assert [f["event"]["id"] for f in polled["frames"] if f["type"] == "event"] == client.events


async def test_a_client_over_tls_that_does_not_read_takes_bounded_memory_and_holds_nobody_up(
    service: Service, pair: Pair
) -> None:
    gateway, url = service.gateway, address(service.gateway, "wss")
    names: list[str] = []
    waiting: list[float] = []
    async with (
        http_producer(service.api.api_url) as producer,
        slow_client(url, token("42"), tls=pair.client) as slow,
        connected(url, token("42"), tls=pair.client) as other,
    ):
        while len(names) < 200:  # as many as history keeps
            waiting.append(gateway.metric("notifier_send_buffer_bytes"))
            names += (some := [f"e{len(names) + n}" for n in range(10)])
            await post(producer, *some, text="x" * 60_000)
            await other.next_events(10)
        with suppress(ConnectionClosed):  # it is given up, and would come back
            await slow.read_until(lambda this: len(this.events) == len(names))

    assert 0 < max(waiting) < 2 * 2**20
    assert other.events == names
    assert slow.events == names[: len(slow.events)]


async def test_a_renewed_certificate_is_shown_and_one_that_cannot_be_is_told(
    service: Service, pair: Pair, files: Files
) -> None:
    gateway, newer = service.gateway, made_pair(hours=72)

    def expiry() -> float:
        name = "notifier_certificate_expiry_timestamp_seconds"
        return gateway.metric(name, backend="gateway")

    async with connected(address(gateway, "wss"), token("42"), tls=pair.client) as earlier:
        before = expiry()
        files.write(newer.certificate, pair.key)
        await asyncio.to_thread(gateway.reload, "settings_not_reloaded")
        async with connected(address(gateway, "wss"), token("43"), tls=pair.client):
            assert expiry() == before
        files.write(newer.certificate, newer.key)
        await asyncio.to_thread(gateway.reload)
        async with connected(address(gateway, "wss"), token("43"), tls=newer.client):
            pass
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connected(address(gateway, "wss"), token("43"), tls=pair.client):
                pass
        await earlier.send(type="ping")
        await earlier.next("pong")

    [told] = gateway.lines("settings_not_reloaded")
    assert told["reason"] == (
        "NOTIFIER_TLS_CERTIFICATE, NOTIFIER_TLS_KEY: the key is not that of the first certificate"
    )
    assert expiry() == pytest.approx(before + 24 * 3600, abs=60)
    await asyncio.to_thread(service.api.reload)  # which has no TLS
    assert not any(r.lines("settings_wait_for_a_restart") for r in (gateway, service.api))
