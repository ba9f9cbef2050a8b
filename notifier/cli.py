"""The command."""

import signal
from typing import Any

import click

from notifier import __version__
from notifier.commands import (
    check,
    conformance,
    letters,
    listen,
    listings,
    reports,
    roles,
    send,
    tokens,
    users,
)
from notifier.commands.pipes import ending_unread

_ROLES = ("gateway", "router", "api", "dev")


class _Commands(click.Group):
    """The commands, which end quietly when nobody reads their output any more."""

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:  # noqa: ANN401 - click's
        with ending_unread():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        with ending_unread():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="notifier %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """Push events from backend services to the people they concern.

    \b
    Try it, with nothing installed:    notifier dev
    In production, one process each:   notifier api      producers post events here
                                       notifier router   events become publications
                                       notifier gateway  clients connect here

    All settings come from the environment or .env; `notifier settings` lists them, and
    `notifier check` says whether they, RabbitMQ and Redis are fit for use.
    """  # noqa: D301 - click reads \b, the character
    if context.invoked_subcommand not in _ROLES:  # they take SIGHUP themselves
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


for _command in (
    *(roles.gateway, roles.router, roles.api, roles.dev),
    *(send.send, listen.listen),
    *(tokens.token, tokens.key),
    *(check.check, conformance.conformance, letters.letters, reports.reports),
    *(users.users, users.events),
    *(listings.settings, listings.metrics, listings.topology),
):
    main.add_command(_command)
