import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, new_key
from notifier.cli import main
from notifier.conformance import CASES, Deployment, Outcome, tried
from notifier.core.access import WiderIdentity
from notifier.core.entries import Entry, events_of
from notifier.core.errors import Unavailable
from notifier.core.ports import Broker
from notifier.core.publications import Publication, publications_of
from notifier.gateway.websocket import WebSocketConnection
from notifier.serving import serve
from notifier.telemetry.metrics import Metrics
from tests.support.gateways import served

KEY = new_key("shop")


class Straight:
    """Fulfils EventQueue: a router that publishes at once."""

    trouble = None

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def put(self, entry: Entry) -> None:
        now = time.time()
        for event in events_of(entry, now):
            await self._broker.publish(list(publications_of(event, now)))

    async def put_each(self, entries: Sequence[Entry]) -> list[Unavailable | None]:
        for entry in entries:
            await self.put(entry)
        return [None] * len(entries)


class Twice(WebSocketConnection):
    """A connection that is broken on purpose: it delivers each event twice."""

    def write(self, data: bytes, publication: Publication | None = None) -> None:
        super().write(data, publication)
        if publication is not None:
            super().write(data, publication)


@asynccontextmanager
async def deployed(
    connection: type[WebSocketConnection] = WebSocketConnection,
) -> AsyncIterator[Deployment]:
    async with served(connection=connection) as house:
        later = time.time() + 3600
        house.tokens.table["dee"] = WiderIdentity("44", later, ("room",), 0, ("*",), ("room",))
        api = create_app(Straight(house.broker), Metrics(), ApiKeys([KEY.entry]))
        async with serve(api, host="127.0.0.1", port=0, setting="X") as port:
            url, api_url = (f"http://127.0.0.1:{each}" for each in (house.port, port))
            yield Deployment(url, "dee", api_url, KEY.secret, "room")


async def test_a_deployment_that_is_whole_keeps_each_promise() -> None:
    async with deployed() as deployment:
        outcomes = [each async for each in tried(deployment)]

    assert outcomes == [Outcome(case.promise, "kept") for case in CASES]


async def test_a_gateway_that_delivers_twice_is_found_out() -> None:
    async with deployed(Twice) as deployment:
        broken = {each.promise async for each in tried(deployment) if each.result == "broken"}

    published = "an event that a client publishes twice arrives once, with its user"
    assert {"events arrive once and in the order of their posts", published} <= broken


@pytest.mark.parametrize("needed", ["api_url", "topic"])
async def test_promises_are_skipped_without_the_option_that_they_need(needed: str) -> None:
    without: dict[str, Any] = {needed: None}
    async with deployed() as deployment:
        outcomes = [each async for each in tried(deployment._replace(**without))]

    skipped = [(each.promise, each.reason) for each in outcomes if each.result == "skipped"]
    reason = f"it needs --{needed.replace('_', '-')}"
    assert skipped == [(case.promise, reason) for case in CASES if case.needs == needed]
    assert {each.result for each in outcomes} == {"kept", "skipped"}


@pytest.mark.parametrize("url", ["http://127.0.0.1:1"])
async def test_a_deployment_out_of_reach_breaks_each_promise(url: str) -> None:
    outcomes = [each async for each in tried(Deployment(url, "ann"))]

    assert {each.result for each in outcomes} == {"broken", "skipped"}


def test_the_command_ends_with_1_and_a_line_for_each_promise_if_one_is_broken() -> None:
    options = ["conformance", "--url", "http://127.0.0.1:1", "--token", "x"]

    result = CliRunner().invoke(main, options, env={"NOTIFIER_API_KEY": None})

    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stdout.splitlines()] == [
        "broken" if case.needs == "url" else "skipped" for case in CASES
    ]
