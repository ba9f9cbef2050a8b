"""The surfaces keep what their OpenAPI documents promise, for requests good and bad.

A finding prints the request for curl. The adapters are those on memory.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from contracts.documents import documents
from notifier.adapters.memory.broker import MemoryBroker
from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, new_key
from notifier.core.access import WiderIdentity
from notifier.core.background import Background
from notifier.core.errors import CloseCode
from notifier.core.grants import Scope
from notifier.core.presence import Answer, Presence, Seen
from notifier.gateway.orders import sessions_of
from notifier.serving import serve
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import shared_ports_of
from tests.support.gateways import House, served
from tests.support.queues import RecordingQueue
from tests.support.running import running

if TYPE_CHECKING:  # one worker runs these tests, each collects them
    import schemathesis

KEY = new_key("shop", tuple(Scope))
TOKEN = "all"
OPERATIONS = [
    pytest.param(name, method, path, id=f"{method} {path}")
    for name in ("api", "gateway")
    for path, operations in documents()[f"openapi-{name}.json"]["paths"].items()
    for method in operations
]


@pytest.fixture(scope="module")
def surfaces() -> Iterator[dict[str, tuple["schemathesis.BaseSchema", str]]]:
    from tests.support.fuzzing import described  # noqa: PLC0415  # see above

    found = documents()
    api, gateway = found["openapi-api.json"], found["openapi-gateway.json"]
    # Beside an audience in the query any JSON is good, which no schema can state.
    posting = api["paths"]["/v1/events"]["post"]
    posting["parameters"] = []
    del posting["requestBody"]["content"]["application/cloudevents-batch+json"]  # many of the same
    refused = {
        "/v1/ws": 426,  # asks for no upgrade
        "/v1/history": 400,  # some parameters rule out others
        "/v1/marks": 400,  # no stream has the position
    }
    with running(api_of_its_own) as api_url, running(gateway_of_its_own) as gateway_url:
        yield {
            "api": (described(api, {"key": {"bearer": KEY.secret}}, {}), api_url),
            "gateway": (described(gateway, {"token": {"bearer": TOKEN}}, refused), gateway_url),
        }


class Connected:
    """Fulfils PresenceQueries: each user is connected once."""

    async def ask(self, users: Sequence[str], *, detailed: bool = False) -> Presence:
        """See PresenceQueries."""
        seen = [Seen("gateway", "1", "sse", "2026-01-31T09:30:00.000Z", {"everyone": "e1.0"})]
        return Presence(dict.fromkeys(users, 1), seen if detailed else [], complete=True)

    async def answer(self, question: str, answer: Answer) -> None:
        """See PresenceQueries."""


@asynccontextmanager
async def api_of_its_own() -> AsyncIterator[str]:
    app = create_app(
        RecordingQueue(),
        Metrics(),
        ApiKeys([KEY.entry]),
        shared=replace(shared_ports_of(MemoryBroker()), presence_queries=Connected()),
    )
    async with serve(app, host="127.0.0.1", port=0, setting="X") as port:
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def gateway_of_its_own() -> AsyncIterator[str]:
    async with served() as house, Background() as background:
        everything = WiderIdentity(
            "42", time.time() + 3600, ("*",), publish=("*",), presence=("*",)
        )
        house.tokens.table[TOKEN] = everything
        background.start(end_each_stream(house), "end each stream")
        yield f"http://127.0.0.1:{house.port}"


async def end_each_stream(house: House) -> None:
    """End streams as soon as they are greeted: each answer is read to its end."""
    while True:
        for session in list(sessions_of("42", house.gateway.hub.followers("user:42"))):
            session.end(CloseCode.MAX_AGE)
        await asyncio.sleep(0.002)  # nothing tells of it


@pytest.mark.parametrize(("surface", "method", "path"), OPERATIONS)
def test_each_answer_is_one_that_is_described(
    surface: str,
    method: str,
    path: str,
    surfaces: dict[str, tuple["schemathesis.BaseSchema", str]],
) -> None:
    from tests.support.fuzzing import fuzz  # noqa: PLC0415  # see above

    schema, url = surfaces[surface]

    fuzz(schema, method, path, url)
