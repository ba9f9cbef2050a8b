"""Reads the settings anew while a role runs: on SIGHUP, and when one of their files changes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from notifier.core.background import Background
from notifier.settings import Role, Settings, SettingsError, variable

LOOK_EVERY = 10.0  # seconds
_log = structlog.stdlib.get_logger(__name__)


def _take_none(_settings: Settings) -> None:
    """Take over no setting."""


@asynccontextmanager
async def reloading(
    role: Role, take: Callable[[Settings], None] = _take_none, every: float = LOOK_EVERY
) -> AsyncIterator[None]:
    """Give `take` the settings whenever they may have changed, while inside.

    `take` takes over those that it can, and raises SettingsError for those that cannot work: they
    are logged, and the earlier ones stay in force. SIGHUP ends no process.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, asked.set)
    try:
        async with Background() as background:
            background.start(_reload(role, take, asked, every), "settings")
            yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


async def _reload(
    role: Role, take: Callable[[Settings], None], asked: asyncio.Event, every: float
) -> None:
    seen = list(_states())
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(asked.wait(), every)
        now = list(_states())
        if asked.is_set() or now != seen:
            _take(role, take)
        asked.clear()
        seen = now


def _take(role: Role, take: Callable[[Settings], None]) -> None:
    try:
        take(Settings.load(role))
    except SettingsError as error:
        _log.error("settings_not_reloaded", reason="; ".join(error.lines))
    else:
        _log.info("settings_reloaded")


def _states() -> Iterator[tuple[int, int, int] | None]:
    """Yield the state of each file that settings come from; None for one that is not there."""
    names = (os.environ.get(f"{variable(name)}_FILE") for name in Settings.model_fields)
    for name in (".env", *filter(None, names)):
        try:
            # Kubernetes exchanges the link that leads to the file, not the file.
            found = Path(name).stat()
            yield found.st_ino, found.st_mtime_ns, found.st_size
        except OSError:
            yield None
