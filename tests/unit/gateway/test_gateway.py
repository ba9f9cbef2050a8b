import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from urllib.parse import quote

import pytest
from structlog.testing import capture_logs

from notifier.core.access import Identity
from notifier.core.conversation import Conversation, Terms
from notifier.core.ports import Listener
from notifier.gateway.gateway import Gateway, Visitor
from notifier.gateway.outgoing import Outgoing
from notifier.http.connection import Connection
from notifier.http.exchange import Exchange
from notifier.telemetry.metrics import Metrics
from tests.support.brokers import SteeredBroker, shared_ports_of
from tests.support.connections import RecordingConnection
from tests.support.eventually import eventually
from tests.support.gateways import House, Tokens, served
from tests.support.streams import ids, polled


async def test_a_gateway_that_shuts_down_says_bye_with_4000_and_when_to_reconnect() -> None:
    async with served() as it, it.welcomed() as one, it.welcomed("bob") as two:
        draining = asyncio.create_task(it.gateway.drain())

        for client in (one, two):
            bye = await client.next_of("bye")
            assert (bye["code"], bye["reason"]) == (4000, "draining")
            assert bye["reconnect_after_ms"] > 0
            assert await client.closed_with() == 4000
        await asyncio.wait_for(draining, 10)


@pytest.mark.parametrize(("deadline", "manner"), [(60.0, "paced"), (0.0, "forced")])
async def test_a_client_closed_at_the_end_of_the_drain_is_counted_as_forced(
    deadline: float, manner: str
) -> None:
    async with served(drain_deadline=deadline) as it, it.welcomed() as client:
        draining = asyncio.create_task(it.gateway.drain())
        assert await client.closed_with() == 4000
        await draining

        counts = {m: it.count("notifier_drain_closes_total", manner=m) for m in ("paced", "forced")}
        assert counts == {"paced": 0, "forced": 0, manner: 1}
        assert it.count("notifier_drain_capacity_connections") == 200 * deadline


async def test_queued_frames_are_flushed_before_the_bye() -> None:
    async with served() as it, it.welcomed() as client:
        posted = [it.broker.post("user:42", "x" * 50_000) for _ in range(10)]
        draining = asyncio.create_task(it.gateway.drain())

        got = [(await client.next_of("event"))["position"] for _ in posted]

        assert got == posted
        assert await client.closed_with() == 4000
        await draining


async def test_while_a_gateway_shuts_down_it_refuses_new_clients() -> None:
    async with served() as it:
        await it.gateway.drain()

        assert (await it.refused()).response.status_code == 503
        assert it.gateway.trouble()["draining"] is not None


async def test_a_gateway_without_clients_is_drained_at_once() -> None:
    async with served() as it:
        await asyncio.wait_for(it.gateway.drain(), 1)


async def test_connections_are_closed_one_after_another() -> None:
    async with served(drain_rate=4.0) as it, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(it.welcomed()) for _ in range(3)]

        draining = asyncio.create_task(it.gateway.drain())
        ended = asyncio.as_completed([client.next_of("bye") for client in clients])
        await next(ended)
        left = it.count("notifier_connections", transport="websocket")
        for each in ended:
            await each
        for client in clients:
            await client.closed_with()
        await draining

        assert left >= 2


async def test_a_client_that_authenticates_while_the_gateway_drains_is_closed_once() -> None:
    connections = [RecordingConnection(), RecordingConnection()]
    async with served(drain_rate=1.0) as it:
        for connection in connections:
            connection.hand_over(it.gateway.open(connection, Visitor(None, (), {})))
        draining = asyncio.create_task(it.gateway.drain())
        await eventually(lambda: any(each.closed_with for each in connections))
        [open_] = [each for each in connections if not each.closed_with]

        told(open_).received(b'{"type":"auth","token":"ann"}')
        await eventually(lambda: open_.closed_with is not None)
        for connection in connections:
            told(connection).closed()
        await draining

        assert open_.types == ["authenticated", "bye"]
        assert it.count("notifier_connections_closed_total", reason="draining") == 2


def told(connection: RecordingConnection) -> Listener:
    assert connection.listener is not None
    return connection.listener


async def test_connections_are_counted() -> None:
    async with served() as it:
        async with it.welcomed(), it.welcomed():
            open_ = it.count("notifier_connections", transport="websocket")

        assert open_ == 2
        assert it.count("notifier_connections_opened_total", transport="websocket") == 2


@pytest.mark.parametrize(("transport", "level"), [("sse", "info"), ("poll", "debug")])
async def test_a_poll_comes_and_goes_quietly_and_is_counted_all_the_same(
    transport: str, level: str
) -> None:
    with capture_logs() as logs:
        async with served() as it:
            async with it.http() as http, http.stream("GET", f"/v1/{transport}"):
                pass
            await it.gone(transport=transport)
            opened = it.count("notifier_connections_opened_total", transport=transport)

    lines = [(line["event"], line["log_level"]) for line in logs if "session" in line]
    assert lines == [("connected", level), ("disconnected", level)]
    assert opened == 1


async def test_nothing_is_wrong_with_a_gateway_that_can_deliver() -> None:
    async with served() as it:
        assert set(it.gateway.trouble().values()) == {None}


@pytest.mark.parametrize("ahead", [-3600, 3600])
async def test_events_expire_by_the_brokers_clock_on_every_path(ahead: int) -> None:
    async with served() as it, it.http() as http:
        it.broker.ahead = ahead
        cursor = (await polled(http))["cursor"]
        moment = int((time.time() + ahead) * 1000)
        async with it.welcomed() as live:
            it.broker.post("user:42", "over", expires=moment - 60_000)
            it.broker.post("user:42", "good", expires=moment + 60_000)
            assert (await live.next_of("event"))["event"]["id"] == "good"
        async with it.client(query=f"?since={quote(cursor)}") as replayed:
            await replayed.next_of("hello")
            assert (await replayed.next_of("event"))["event"]["id"] == "good"
        answer = await polled(http, cursor)
        history = (await http.get("/v1/history")).json()

    assert ids(answer["frames"]) == ids(history["frames"]) == ["good"]


async def test_a_gateway_fails_when_one_of_its_tasks_does() -> None:
    broker = SteeredBroker()
    broker.held = True

    with pytest.raises(ExceptionGroup) as error:  # noqa: PT012  # it fails while it runs
        async with Gateway(
            shared_ports_of(broker),
            Tokens(),
            Metrics(),
            terms=Terms(),
            revocation_seconds=60,
            drain_rate=1,
            drain_deadline=1,
        ) as gateway:
            gateway.open(RecordingConnection(), Visitor(Identity("42", 4e9), (), {}))
            (await broker.asked()).done.set_exception(ZeroDivisionError())
            await asyncio.Event().wait()

    assert error.group_contains(ZeroDivisionError)


async def test_a_new_token_in_place_is_taken() -> None:
    async with served() as it, it.welcomed() as client:
        it.tokens.table["new"] = Identity("42", 4e9)

        await client.say(type="auth", id=1, token="new")

        assert (await client.next_of("authenticated"))["expires"].startswith("2096")


# Nothing is left of clients that have gone. The collector of cycles seldom looks at old objects.


@pytest.fixture
def parts_left() -> Iterator[Callable[[], list[object]]]:
    """Tell the parts of connections that came since and still live, with the collector off."""
    gc.collect()
    before = {id(each): each for each in parts_of_connections()}  # another test's may live on
    gc.disable()
    yield lambda: [each for each in parts_of_connections() if id(each) not in before]
    gc.enable()


def parts_of_connections() -> list[object]:
    kinds = (Conversation, Outgoing, Connection, Exchange)
    return [each for each in gc.get_objects() if issubclass(type(each), kinds)]


async def follow_and_leave(it: House) -> None:
    async with it.welcomed() as client:
        await client.say(type="subscribe", topic="news")
        await client.next_of("subscribed")


async def authenticate_and_leave(it: House) -> None:
    async with it.client(None) as client:
        await client.say(type="auth", token="ann")
        await client.next_of("authenticated")


async def stream_and_leave(it: House) -> None:
    async with it.http() as http, http.stream("GET", "/v1/sse") as stream:
        assert await anext(stream.aiter_lines())


async def poll_and_leave(it: House) -> None:
    async with it.http() as http:
        cursor = (await http.get("/v1/poll")).json()["cursor"]
        it.broker.post("user:42")
        assert (await http.get("/v1/poll", params={"since": cursor})).json()["frames"]


async def read_and_leave(it: House) -> None:
    async with it.http() as http:
        assert (await http.get("/v1/history")).status_code == 200


@pytest.mark.parametrize(
    "come_and_leave",
    [follow_and_leave, authenticate_and_leave, stream_and_leave, poll_and_leave, read_and_leave],
)
async def test_a_client_that_has_gone_leaves_nothing_for_the_collector(
    come_and_leave: Callable[[House], Awaitable[None]],
    parts_left: Callable[[], list[object]],
) -> None:
    async with served() as it:
        await come_and_leave(it)

        await eventually(lambda: not parts_left())
