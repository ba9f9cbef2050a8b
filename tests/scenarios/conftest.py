"""The whole service in processes of its own. What logs gained shows when a test fails."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractQueue

from tests.support.clients import Client, connected
from tests.support.roles import Role, Service, clean_environment, running, service_of, token
from tests.support.services import RabbitAddress, emptied, fresh_vhost

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext

    from tests.support.recipes import TwoGateways
    from tests.support.street import Street
    from tests.support.visitor import Visit


@pytest.fixture(scope="module", autouse=True)
def _environment_of_processes(logs: Path) -> Iterator[None]:
    with clean_environment(logs):
        yield


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the roles of a module's tests write their logs."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(autouse=True)
def _what_was_logged_meanwhile(logs: Path, tmp_path: Path) -> Iterator[None]:
    before = {log: log.stat().st_size for log in logs.glob("*.log")}
    yield
    for log in (*sorted(logs.glob("*.log")), *sorted(tmp_path.glob("*.log"))):
        gained = log.read_bytes()[before.get(log, 0) :].decode(errors="replace").splitlines()
        print(f"{log.name}:", *gained[-40:], sep="\n")  # noqa: T201  # pytest shows it on failure


@pytest.fixture(scope="module")
def dev(logs: Path) -> Iterator[Role]:
    """A `notifier dev` on memory, shared by a module's tests."""
    role = Role("dev", logs / "dev.log")
    with running(role):
        yield role


@pytest.fixture(scope="module")
def gateways(_rabbitmq: RabbitAddress, _redis_address: str, logs: Path) -> Iterator["TwoGateways"]:
    """Two gateways and an api that a proxy may stand before, shared by a module's tests."""
    from tests.support.recipes import two_gateways  # noqa: PLC0415  # others need no proxies

    with (
        fresh_vhost(_rabbitmq) as amqp_url,
        emptied(_redis_address) as redis_url,
        two_gateways(logs, amqp_url, redis_url) as gateways,
    ):
        yield gateways


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _browser(chromium: str) -> AsyncIterator["Browser"]:
    from tests.support.visitor import browser_of  # noqa: PLC0415  # the other tests need no browser

    async with browser_of(chromium) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def visit(dev: Role, _browser: "Browser") -> AsyncIterator["Visit"]:
    """How to open a tab of the page in Chromium: `await visit(user)`.

    A module's tests share the browser, and so the event loop: mark them with `loop_scope="module"`.
    """
    from tests.support.visitor import tabs  # noqa: PLC0415  # as above

    async with tabs(_browser, dev.page_url) as visit:
        yield visit


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def street(
    _rabbitmq: RabbitAddress,
    _redis_address: str,
    logs: Path,
    chromium: str,
    js_client: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator["Street"]:
    """A shop in a browser, and the service behind it."""
    from tests.support.street import SETTINGS, street_of  # noqa: PLC0415  # as above

    pages = tmp_path_factory.mktemp("pages")
    with fresh_vhost(_rabbitmq) as amqp_url, emptied(_redis_address) as redis_url:
        service = service_of(logs, amqp_url, redis_url, **SETTINGS)
        async with street_of(service, chromium, js_client, pages) as street:
            yield street


@pytest_asyncio.fixture(loop_scope="module")
async def context(street: "Street") -> AsyncIterator["BrowserContext"]:
    """The profile of a person of the test's own: its tabs share nothing with others."""
    context = await street.browser.new_context()
    yield context
    await context.close()


@pytest.fixture(scope="module")
def service(_rabbitmq: RabbitAddress, _redis_address: str, logs: Path) -> Iterator[Service]:
    """One process of each role, shared by a module's tests: each has users of its own."""
    with fresh_vhost(_rabbitmq) as amqp_url, emptied(_redis_address) as redis_url:
        service = service_of(logs, amqp_url, redis_url)
        with running(service.api, service.router, service.gateway):
            yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """User 42, connected."""
    async with connected(service.gateway.gateway_url, token("42")) as client:
        yield client


@pytest.fixture
async def dead(service: Service) -> AsyncIterator[AbstractQueue]:
    """The dead letters, none there yet."""
    async with await aio_pika.connect(service.amqp_url) as connection:
        queue = await (await connection.channel()).get_queue("notifier.dead")
        await queue.purge()
        yield queue
