"""The services that tests ask for by name; nothing is imported or started for those that don't."""

import gc
import logging
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import settings

if TYPE_CHECKING:
    from tests.support.services import RabbitAddress

settings.register_profile("any machine", deadline=None)  # however slow it is
settings.register_profile("fewer examples", deadline=None, max_examples=10)
settings.load_profile("any machine")

# As in production: a rich traceback of a handled error takes two seconds of CPU.
structlog.dev.ConsoleRenderer.get_active().exception_formatter = structlog.dev.plain_traceback

_SERVICES = {
    "amqp_url",
    "amqp_management_url",
    "redis_url",
    "chromium",
    "whole_chromium",
    "js_client",
}


def pytest_configure() -> None:
    """Have SIGHUP end processes, also where these tests run under nohup, which ignores it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what names a service; a parameter that asks for one by itself carries the mark."""
    for item in items:
        if isinstance(item, pytest.Function) and _SERVICES.intersection(item.fixturenames):
            item.add_marker(pytest.mark.services)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Search for no garbage while collection makes much that stays, nor among that afterwards."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def own_logs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test configure logs, and have them as they were before.

    No logger is cached meanwhile: else those of modules would keep this configuration for ever, and
    later tests capture none of their lines.
    """
    root, configure = logging.getLogger(), structlog.configure
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr(
        structlog,
        "configure",
        lambda **given: configure(**given | {"cache_logger_on_first_use": False}),
    )
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def own_sighup() -> Iterator[None]:
    """Let a test run a role's parts in this process, and have SIGHUP do as before.

    A role ignores it at its end; processes that later tests start would ignore it too.
    """
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def _rabbitmq(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator["RabbitAddress"]:
    """A RabbitMQ; workers share one, as its start takes six seconds of CPU time."""
    from tests.support.services import rabbitmq, shared_rabbitmq  # noqa: PLC0415  # see above

    folder = tmp_path_factory.getbasetemp().parent  # of all workers
    with rabbitmq() if worker_id == "master" else shared_rabbitmq(folder) as address:
        yield address


@pytest.fixture(scope="session")
def _redis_address() -> Iterator[str]:
    from tests.support.services import redis_address  # noqa: PLC0415  # see above

    with redis_address() as url:
        yield url


@pytest.fixture
def amqp_url(_rabbitmq: "RabbitAddress") -> Iterator[str]:
    """An AMQP URL with a virtual host of the test's own."""
    from tests.support.services import fresh_vhost  # noqa: PLC0415  # see above

    with fresh_vhost(_rabbitmq) as url:
        yield url


@pytest.fixture(scope="session")
def amqp_management_url(_rabbitmq: "RabbitAddress") -> str:
    """The URL of RabbitMQ's management API, with user and password."""
    return _rabbitmq.management_url


@pytest.fixture
def redis_url(_redis_address: str) -> Iterator[str]:
    """A Redis URL whose database is empty."""
    from tests.support.services import emptied  # noqa: PLC0415  # see above

    with emptied(_redis_address) as url:
        yield url


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium to drive with Playwright."""
    from tests.support.services import find_chromium  # noqa: PLC0415  # see above

    return find_chromium()


@pytest.fixture(scope="session")
def whole_chromium() -> str:
    """The path of a Chromium that heeds the settings of a profile."""
    from tests.support.services import find_whole_chromium  # noqa: PLC0415  # see above

    return find_whole_chromium()


@pytest.fixture(scope="session")
def js_client(pytestconfig: pytest.Config) -> Path:
    """The folder of the package for browsers, built."""
    folder = pytestconfig.rootpath / "clients/js"
    if not (folder / "dist/.made").exists():
        pytest.fail(
            "Build the client for browsers first: make clients/js/dist/.made", pytrace=False
        )
    return folder
