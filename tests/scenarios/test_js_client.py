"""The package for browsers, in a real Chromium against the real service."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Route

from tests.chaos.package import Kind, Package
from tests.support.browser import BareTab, bare_tabs
from tests.support.eventually import eventually
from tests.support.invariants import Ledger, Recipient
from tests.support.laptop import Laptop
from tests.support.proxy import Proxy
from tests.support.roles import Role, running
from tests.support.spoilt import faked_clock
from tests.support.street import Street, Tab, connections

pytestmark = pytest.mark.asyncio(loop_scope="module")

TABS = 30
ASLEEP = 600  # seconds
OPEN = "window.notifier?.state.phase === 'open'"
LEADER = "navigator.locks.query().then(({ held }) => held[0]?.clientId)"


async def leader_of(tabs: list[Tab]) -> Tab:
    """The tab that has the connection."""
    await eventually(lambda: sum(tab.leads for tab in tabs) == 1)
    return next(tab for tab in tabs if tab.leads)


async def crash(tab: Tab) -> None:
    """End the tab's process as a bug or the lack of memory would."""
    session = await tab.page.context.new_cdp_session(tab.page)
    ended = asyncio.ensure_future(session.send("Page.crash"))
    await eventually(lambda: tab.is_gone)
    ended.cancel()


async def leave(tab: Tab) -> None:
    tab.is_gone = True
    await tab.page.close()


async def those_that_got(tabs: list[Tab], count: int) -> list[Tab]:
    """The tabs that are left, with so many events; Chromium may run several in one process."""
    left = [tab for tab in tabs if not tab.is_gone]
    answers = await asyncio.gather(*(tab.got(count) for tab in left), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and "crashed" not in str(answer):
            raise answer
    return [tab for tab, got in zip(left, answers, strict=True) if isinstance(got, list)]


async def test_thirty_tabs_hold_one_connection_and_lose_nothing_when_the_leading_one_ends(
    street: Street, context: BrowserContext
) -> None:
    before = await asyncio.to_thread(connections, street.service)
    visits = (street.visit(context, "many", shared="") for _ in range(TABS))
    tabs = list(await asyncio.gather(*visits))
    await asyncio.gather(*(tab.opened() for tab in tabs))
    assert await asyncio.to_thread(connections, street.service) == before + 1

    ways: list[Callable[[Tab], Awaitable[None]]] = [leave, crash, leave, crash]
    async with street.posting("many") as posted:
        for end in ways:
            await end(await leader_of(tabs))
            tabs = await those_that_got(tabs, len(posted) + 1)

    assert tabs
    for tab in tabs:
        assert await tab.got(len(posted)) == posted
        assert tab.complaints == []
    assert await asyncio.to_thread(connections, street.service) == before + 1


async def test_events_go_on_by_other_transports_while_a_proxy_refuses_websockets(
    street: Street, context: BrowserContext
) -> None:
    ways: list[tuple[str, tuple[str, ...]]] = [
        ("websocket", ()),
        ("sse", ("/v1/ws",)),
        ("poll", ("/v1/ws", "/v1/sse")),
        ("websocket", ()),
    ]
    tab = await street.visit(context, "mover", shared="")
    await tab.opened()

    async with street.posting("mover") as posted:
        for transport, refused in ways:
            street.keeper.refuse(*refused)
            await tab.opened(transport)
            await tab.got(len(posted) + 1)

    assert await tab.got(len(posted)) == posted
    assert await tab.page.evaluate("window.gaps") == []


async def test_tabs_resume_when_their_gateway_was_killed(
    street: Street, context: BrowserContext
) -> None:
    tabs = [await street.visit(context, "survivor", shared="") for _ in range(2)]
    await asyncio.gather(*(tab.opened() for tab in tabs))

    async with street.posting("survivor") as posted:
        await street.restart_gateway()
        await asyncio.gather(*(tab.got(len(posted) + 1) for tab in tabs))

    for tab in tabs:
        assert await tab.got(len(posted)) == posted
        assert await tab.page.evaluate("window.gaps") == []


async def test_events_go_on_past_the_life_of_a_token(
    street: Street, context: BrowserContext
) -> None:
    tab = await street.visit(context, "renewed", shared="", seconds="3")
    await tab.opened()

    async with street.posting("renewed") as posted:
        for _ in range(2):
            async with tab.page.expect_response("**/token?*"):
                pass
        await tab.got(len(posted) + 1)

    assert await tab.got(len(posted)) == posted


async def test_a_tab_that_is_loaded_anew_gets_the_events_it_missed(
    street: Street, context: BrowserContext
) -> None:
    other = await street.visit(context, "reader", shared="")
    tab = await street.visit(context, "reader", shared="", persist="")
    await asyncio.gather(other.opened(), tab.opened())
    address = tab.page.url
    await tab.page.goto("about:blank")

    posted = await street.producer.send({"users": ["reader"], "type": "t"})
    await other.got(1)
    await tab.page.goto(address)

    assert await tab.got(1) == [posted]


@pytest.mark.parametrize("shared", [{"shared": ""}, {}], ids=["shared", "alone"])
async def test_a_frozen_tab_hands_on_the_connection_and_gets_missed_events_later(
    street: Street, shared: dict[str, str]
) -> None:
    async def got(tab: BareTab, count: int) -> list[str]:
        await tab.until(f"window.got.length >= {count}")
        ids: list[str] = await tab.evaluate("window.got")
        return ids

    await street.has_connections(0)
    address = street.page_of("frozen", **shared)
    async with bare_tabs(street.browser) as open_tab:
        first = await open_tab(address)
        await first.until(OPEN)  # and so leads
        second = await open_tab(address)
        await second.until(OPEN)

        leader = await second.evaluate(LEADER)
        await first.turn("frozen")
        posted = [await street.producer.send({"users": ["frozen"], "type": "t"}) for _ in range(3)]
        assert await got(second, 3) == posted
        await street.has_connections(1)
        if shared:  # by another connection than the frozen tab's
            assert await second.evaluate(LEADER) != leader
        await first.turn("active")

        assert await got(first, 3) == posted
        posted.append(await street.producer.send({"users": ["frozen"], "type": "t"}))
        for tab in (first, second):
            assert await got(tab, 4) == posted
            assert await tab.evaluate("window.gaps") == []


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def later_gateway(street: Street, logs: Path) -> AsyncIterator[Role]:
    """A gateway on the same Redis whose clock is ahead by the time that a laptop sleeps."""
    gateway = street.service.gateway.another(logs / "later.log", **faked_clock(ASLEEP))
    with running(gateway):
        yield gateway


def reset(link: Proxy) -> None:
    link.cut()
    link.heal()


@pytest.mark.parametrize("lost", [Proxy.abandon, reset], ids=["half-open", "reset"])
@pytest.mark.parametrize("tabs", [1, 3], ids=["one tab", "three tabs"])
async def test_a_laptop_that_slept_past_its_tokens_life_gets_missed_events_with_one_fresh_token(
    street: Street,
    context: BrowserContext,
    later_gateway: Role,
    tabs: int,
    lost: Callable[[Proxy], None],
) -> None:
    user = f"sleeper-{tabs}-{lost.__name__}"
    async with Proxy(street.keeper.port) as link:
        laptop = Laptop(street, context, link)
        opened = await laptop.visit(user, tabs)
        posted = [await street.producer.send({"users": [user], "type": "t"})]
        await asyncio.gather(*(tab.got(1) for tab in opened))
        before = len(laptop.tokens)

        laptop.sleep()
        posted += [await street.producer.send({"users": [user], "type": "t"}) for _ in range(5)]
        link.target = later_gateway.port("NOTIFIER_GATEWAY_PORT")
        lost(link)
        await laptop.wake(after=ASLEEP)

        await asyncio.gather(*(tab.got(6) for tab in opened))
        posted.append(await street.producer.send({"users": [user], "type": "t"}))
        for tab in opened:
            assert await tab.got(7) == posted
            assert await tab.page.evaluate("window.gaps") == []
        assert len(laptop.tokens) == before + 1


async def test_tabs_of_two_builds_of_the_package_do_not_share_a_connection(
    street: Street, context: BrowserContext
) -> None:
    async def serve_another_build(route: Route) -> None:
        answer = await route.fetch()
        text, count = re.subn(r"notifier \$\{\[\"\w+\"", 'notifier ${["other"', await answer.text())
        assert count == 1
        await route.fulfill(response=answer, body=text)

    await street.has_connections(0)
    old = [await street.visit(context, "builds", shared="") for _ in range(2)]
    await context.route("**/tabs-*.js", serve_another_build)
    new = [await street.visit(context, "builds", shared="") for _ in range(2)]
    await asyncio.gather(*(tab.opened() for tab in (*old, *new)))

    await street.has_connections(2)
    posted = await street.producer.send({"users": ["builds"], "type": "t"})
    for tab in (*old, *new):
        assert await tab.got(1) == [posted]


async def test_members_of_a_room_are_known_in_each_tab_also_in_one_that_comes_later(
    street: Street, context: BrowserContext
) -> None:
    async def shown(tab: Tab, *members: str) -> None:
        """Return once the tab shows these members."""
        are = "names => `${window.notifier?.presence['room:1']?.members?.toSorted()}` === names"
        await tab.page.wait_for_function(are, arg=",".join(members))

    async def visit(user: str) -> Tab:
        return await street.visit(context, user, topic="room:1", presence="", shared="")

    first = await visit("ann")
    await shown(first, "ann")
    bob = await visit("bob")
    await shown(first, "ann", "bob")
    later = await visit("ann")
    await shown(later, "ann", "bob")
    await leave(bob)

    for tab in (first, later):
        await shown(tab, "ann")
        assert tab.complaints == []


async def test_clients_under_node_lose_nothing_when_their_links_are_cut(street: Street) -> None:
    """By the campaign's clients of the package, which live through all its failures."""
    now = asyncio.get_running_loop().time
    ledger = Ledger()
    kinds = [Kind(f"node-{way}", (), (way,)) for way in ("websocket", "sse", "poll")]
    kinds.append(Kind("node-restless", (), restless=True))
    users = [kind.user for kind in kinds]
    topics = [f"user:{user}" for user in users]
    clients = {kind.user: (kind, Recipient(ledger, (f"user:{kind.user}",), now)) for kind in kinds}

    async with Proxy(street.keeper.port) as link, asyncio.TaskGroup() as group:
        package = Package([f"127.0.0.1:{link.port}"], clients)
        following = group.create_task(package.run())
        await eventually(lambda: all(each.streams for each in package.recipients), 120)
        for name in map("n{}".format, range(9)):
            link.cut()
            ledger.post(name, topics, "shop", now())
            await street.producer.send({"users": users, "type": "t", "id": name})
            ledger.confirm(topics, "shop")
        await eventually(lambda: not any(each.missing() for each in package.recipients), 120)
        following.cancel()

    assert [each.complaints for each in package.recipients] == [[], [], [], []]
