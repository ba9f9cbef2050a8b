"""The roles, each a command: `gateway`, `router`, `api`, and `dev`, which is all of them."""

import logging
import shutil
import sys
from typing import TYPE_CHECKING

import click

from notifier.commands.process import FAILED, WRONG_USE, fail, load_settings, run

if TYPE_CHECKING:
    from notifier.settings import Role


@click.command()
def gateway() -> None:
    """Deliver to the clients' connections (public port).

    Needs Redis (NOTIFIER_REDIS_URL), a key for tokens (NOTIFIER_JWT_SECRET,
    NOTIFIER_JWT_PUBLIC_KEY, NOTIFIER_JWKS_URL or NOTIFIER_JWT_DISCOVERY_URL), NOTIFIER_JWT_ISSUER
    and NOTIFIER_JWT_AUDIENCE. SIGTERM drains it.
    """
    _run_role("gateway")


@click.command()
def router() -> None:
    """Take events from RabbitMQ and publish them to Redis.

    Needs NOTIFIER_AMQP_URL and NOTIFIER_REDIS_URL. Declares RabbitMQ's queues at start.
    """
    _run_role("router")


@click.command()
def api() -> None:
    """Accept events over HTTP (internal port).

    They are put into RabbitMQ, and answered with 202 once it has confirmed them.

    Needs NOTIFIER_AMQP_URL and NOTIFIER_API_KEYS.
    """
    _run_role("api")


@click.command()
def dev() -> None:
    """Run all roles in one process, with a page.

    On memory: there is nothing to install.

    Where NOTIFIER_AMQP_URL or NOTIFIER_REDIS_URL is set, the real one takes memory's place.
    """
    _run_role("dev")


def _run_role(role: "Role") -> None:
    import structlog

    from notifier import wiring
    from notifier.serving import ServingError
    from notifier.settings import SettingsError

    settings = load_settings(role)
    try:
        run(wiring.run(role, settings, _announce))
    except Exception as error:  # noqa: BLE001 - any error of a background task ends the process
        cause = _cause(error)
        if isinstance(cause, SettingsError):
            fail(str(cause), WRONG_USE)
        if isinstance(cause, ServingError):
            fail(str(cause))
        structlog.get_logger("notifier").exception("failed", role=role)
        logging.shutdown()
        sys.exit(FAILED)


def _cause(error: BaseException) -> BaseException:
    # While background tasks run, an error comes in a group, or in several.
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _announce(welcome: str) -> None:
    # After `make run` the command is in a virtual environment that is not on the PATH.
    program = click.get_current_context().find_root().command_path
    if program == "notifier" and shutil.which("notifier") is None:
        program = sys.argv[0]
    click.echo(welcome.replace("notifier listen", f"{program} listen"))
