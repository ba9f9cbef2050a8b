"""Every command's process: its settings, its loop, and the way it ends."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

if TYPE_CHECKING:
    from notifier.settings import Role, Settings

FAILED, WRONG_USE = 1, 2


def fail(sentence: str, code: int = FAILED) -> NoReturn:
    """Say why on standard error, and end with `code`."""
    click.echo(sentence, err=True)
    sys.exit(code)


def load_settings(role: "Role | None" = None) -> "Settings":
    """Load them for a role, and configure the log; end with WRONG_USE if one is wrong."""
    from notifier.settings import Settings, SettingsError
    from notifier.telemetry import logs

    try:
        settings = Settings.load(role)
    except SettingsError as error:
        fail(str(error), WRONG_USE)
    logs.configure(settings.log_format, settings.log_level)
    return settings


def url_option(
    meaning: str, port: Literal["api_port", "gateway_port"], scheme: str = "http"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option --url, by default the port of this machine that the settings name."""
    return click.option(
        "--url",
        default=lambda: f"{scheme}://127.0.0.1:{getattr(load_settings(), port)}",
        show_default="this machine's",
        help=meaning,
    )


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run it on the event loop that the roles have."""
    from notifier.serving import loop_factory

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work)
