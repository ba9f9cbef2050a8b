"""notifier's gateway, router and api, as they run in production."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from urllib.parse import quote

import msgspec

from benchmarks.contenders.contender import (
    CHUNK,
    Backends,
    Contender,
    Message,
    Publish,
    Server,
    upgrade,
)
from benchmarks.machine import SERVER_CORE, on_core
from notifier import __version__
from notifier.adapters.redis.broker import RedisBroker
from notifier.core import events
from notifier.core.errors import NotifierError
from notifier.core.history import Published
from notifier.core.publications import NewPublication, publications_of
from notifier.telemetry.metrics import Metrics
from tests.support.roles import service_of, token


def event_of(message: Message) -> bytes:
    """Return what a producer posts."""
    audience = {"everyone": True} if message.user is None else {"users": [message.user]}
    return msgspec.json.encode({**audience, "type": "benchmark", "data": message.data})


class Notifier(Contender):
    """The gateway is the server; events are published to Redis by the router's own code."""

    name = "notifier"
    follows = "the user's topic, and everyone"
    ready = '"type":"hello"'

    def missing(self) -> str | None:
        """See Contender."""
        return None

    def version(self) -> str:
        """See Contender."""
        return f"notifier {__version__}, uvicorn {version('uvicorn')}"

    @contextmanager
    def serve(self, backends: Backends) -> Iterator[Server]:
        """See Contender."""
        tls = {}
        if backends.tls:
            tls["NOTIFIER_TLS_CERTIFICATE_FILE"] = str(backends.tls.certificate)
            tls["NOTIFIER_TLS_KEY_FILE"] = str(backends.tls.key)
        gateway = service_of(backends.home, backends.amqp_url, backends.redis_url, **tls).gateway
        try:
            with on_core(SERVER_CORE):
                gateway.start()
            gateway.wait_until_ready()
            port = gateway.port("NOTIFIER_GATEWAY_PORT")
            with publishing(backends.redis_url) as publish:
                yield Server(gateway.pid, port, publish)
        finally:
            gateway.kill()

    def handshake(self, user: str, *, alone: bool) -> str:
        """See Contender."""
        del alone  # it follows both in any case
        return self.request(self.authorization(user))

    @staticmethod
    def authorization(user: str) -> str:
        """Return the header that says who a user is."""
        return f"Authorization: Bearer {token(user, seconds=7200)}"

    @staticmethod
    def request(authorization: str, cursor: str = "") -> str:
        """Return an upgrade request, of somebody who comes back if there is a cursor."""
        path = f"/v1/ws?since={quote(cursor)}" if cursor else "/v1/ws"
        return upgrade(path, authorization, "Sec-WebSocket-Protocol: notifier.v1")


@contextmanager
def publishing(redis_url: str) -> Iterator[Publish]:
    """Publish as the router does, by its own code, in a process that is not measured."""
    with asyncio.Runner() as runner:
        broker = RedisBroker(redis_url, metrics=Metrics())
        runner.run(broker.__aenter__())

        def publish(messages: Sequence[Message]) -> None:
            publications = [new for message in messages for new in _publications(message)]
            for start in range(0, len(publications), CHUNK):
                outcomes = runner.run(_publish(broker, publications[start : start + CHUNK]))
                if any(not isinstance(outcome, Published) for outcome in outcomes):
                    raise RuntimeError(f"Redis refused a publication: {outcomes}")

        try:
            yield publish
        finally:
            runner.run(broker.__aexit__(None, None, None))


async def _publish(
    broker: RedisBroker, publications: list[NewPublication]
) -> list[Published | NotifierError]:
    return await broker.publish(publications)


def _publications(message: Message) -> list[NewPublication]:
    now = time.time()
    event = events.completed(events.decode(event_of(message)), source="benchmark", now=now)
    return publications_of(event, now)
