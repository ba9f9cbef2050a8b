"""Reads the settings anew while a role runs: on SIGHUP, and when one of their files changes."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from notifier.core.background import Background
from notifier.settings import Role, Settings, SettingsError, variable
from notifier.telemetry import logs
from notifier.telemetry.metrics import Metrics

LOOK_EVERY = 10.0  # seconds
# Those that a running role takes over, where it has them at all.
_TAKEN = {
    *("amqp_url", "redis_url", "jwt_secret", "jwt_public_key", "api_keys", "log_level"),
    *("tls_certificate", "tls_key"),
}

Take = Callable[[Settings], Collection[str]]
"""Takes over the settings that it can, and returns the names of the others that have changed.

Raises SettingsError, and takes none, where one of them cannot work.
"""

_log = structlog.stdlib.get_logger(__name__)


@asynccontextmanager
async def reloading(
    role: Role, settings: Settings, take: Take, metrics: Metrics, every: float = LOOK_EVERY
) -> AsyncIterator[None]:
    """Give `take` the settings whenever they may have changed, while inside.

    Settings that cannot work are logged, and the earlier ones stay in force. SIGHUP ends no
    process; one that came before, and was held back, counts.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    # A handler of the loop's would be taken back with a moment in which SIGHUP ends the process.
    signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(asked.set))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    reloaded = _Reloaded(role, settings, take, metrics)
    try:
        async with Background() as background:
            background.start(_reload(reloaded, asked, every), "settings")
            yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the process is yet to end, with code 0


async def _reload(reloaded: "_Reloaded", asked: asyncio.Event, every: float) -> None:
    seen = list(_states())
    while True:
        with suppress(TimeoutError):
            # asyncio.wait_for forgets a cancellation that comes together with the event (< 3.12).
            async with asyncio.timeout(every):
                await asked.wait()
        now = list(_states())
        if asked.is_set() or now != seen:
            reloaded.read()
        asked.clear()
        seen = now


class _Reloaded:
    """The settings of a running role, read again and again."""

    def __init__(self, role: Role, settings: Settings, take: Take, metrics: Metrics) -> None:
        self._role = role
        self._at_start = settings
        self._take = take
        self._metrics = metrics

    def read(self) -> None:
        try:
            changed = Settings.load(self._role)
            left = {*self._take(changed), *self._left_by(changed)}
        except SettingsError as error:
            self._metrics.settings_refused.set(1)
            _log.error("settings_not_reloaded", reason="; ".join(error.lines))
            return
        logs.set_level(changed.log_level)
        self._metrics.settings_refused.set(0)
        if left:
            _log.warning("settings_wait_for_a_restart", settings=sorted(map(variable, left)))
        _log.info("settings_reloaded")  # the last line, which a script may wait for

    def _left_by(self, changed: Settings) -> Iterator[str]:
        for name in Settings.model_fields.keys() - _TAKEN:
            if getattr(changed, name) != getattr(self._at_start, name):
                yield name


def _states() -> Iterator[tuple[int, int, int] | None]:
    """Yield the state of each file that settings come from; None for one that is not there."""
    try:
        files = Settings.files()
    except SettingsError:  # told when they are read
        files = (".env",)
    for name in files:
        try:
            # Kubernetes exchanges the link that leads to the file, not the file.
            found = Path(name).stat()
            yield found.st_ino, found.st_mtime_ns, found.st_size
        except OSError:
            yield None
