"""`notifier send`."""

import json
import math
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from notifier.commands.pipes import run_client
from notifier.commands.process import FAILED, WRONG_USE, fail, url_option
from notifier.core.errors import Invalid

if TYPE_CHECKING:
    from io import BufferedReader

    from notifier.commands import event_input

_STDIN = 0
_ACCEPTED = 202


def _seconds(_context: click.Context, _option: click.Parameter, given: str | None) -> float | None:
    if given is None:
        return None
    with suppress(ValueError):
        seconds = float(given)
        if 0 < seconds < math.inf:
            return seconds
    raise click.BadParameter("must be a number of seconds above 0, such as 60")


@click.command()
@click.option("--user", "users", multiple=True, help="A user in its audience; may be repeated.")
@click.option("--topic", help="The topic whose followers are its audience.")
@click.option("--everyone", is_flag=True, help="Its audience is everyone.")
@click.option("--type", help="Its type.  [default: notification]")
@click.option("--data", help="Its data: JSON, @FILE, or - for standard input.")
@click.option("--id", help="Its id: an event with the same source and id is delivered once.")
@click.option("--source", help="Its source.  [default: the API key's name]")
@click.option("--ttl", callback=_seconds, help="Seconds until it expires.")
@click.option("--collapse-key", help="An event replaces an undelivered one with the same key.")
@click.option("--silent", is_flag=True, help="It never counts as unread.")
@click.option("--report", is_flag=True, help="Producers hear how far it came: notifier reports.")
@click.option(
    "--undelivered-after",
    callback=_seconds,
    help="Seconds until it is handed back for users who have not received it.",
)
@url_option("The producer API.", "api_port")
@click.option("--key", envvar="NOTIFIER_API_KEY", show_envvar=True, help="The API key.")
def send(url: str, key: str | None, data: str | None, **given: Any) -> None:  # noqa: ANN401 - of several types
    """Post events to the producer API.

    \b
    notifier send --user 42 --type order.paid --data '{"order": 7}'
    notifier send --user 42 --type order.paid --data @order.json
    notifier send < events.json       a body as POST /v1/events takes it: one event, or an array
    notifier send < events.ndjson     one event a line, posted as the lines come

    Beside --user, --topic or --everyone, a JSON object or list on standard input is the event's
    data. Events on standard input take --type, --source, --ttl, --collapse-key, --silent,
    --report and --undelivered-after where they have none of their own.
    """  # noqa: D301 - click reads \b, the character
    from notifier.commands import event_input

    members = {name: value for name, value in given.items() if value not in (None, (), False)}
    try:
        if event_input.AUDIENCE.isdisjoint(members):
            _check_stdin_is_meant(data, members)
            _send_stdin(url, key, members)
        else:
            event = event_input.event({"type": "notification", **members}, _data(data))
            run_client(_send_body(url, key, event))
    except Invalid as error:
        fail(str(error), WRONG_USE)


def _data(option: str | None) -> bytes | None:
    from notifier.commands import event_input

    if option is not None:
        return event_input.data_of(option, _stdin)
    state = event_input.state_of(_STDIN)
    if state == "ready":
        return event_input.unasked_data(_stdin())
    if state == "open":
        click.echo("standard input is empty so far: only --data - waits for it", err=True)
    return None


def _stdin() -> "BufferedReader":
    try:
        return open(_STDIN, "rb", closefd=False)
    except OSError:
        fail("standard input is closed: name an audience and --data, or send events on it")


async def _send_body(url: str, key: str | None, body: bytes) -> None:
    from notifier import client

    answer = await client.post(url, body, key)
    click.echo(json.dumps(answer))
    if any(result["status"] != _ACCEPTED for result in answer.get("results", ())):
        sys.exit(FAILED)


def _check_stdin_is_meant(data: str | None, members: dict[str, Any]) -> None:
    for option, is_given in (("--data", data is not None), ("--id", "id" in members)):
        if is_given:
            remedy = "name its audience too, by --user, --topic or --everyone"
            fail(f"{option}: belongs to one event; {remedy}", WRONG_USE)
    if sys.stdin is not None and sys.stdin.isatty():
        fail("name an audience: --user, --topic or --everyone; or send events on standard input")


def _send_stdin(url: str, key: str | None, members: dict[str, Any]) -> None:
    from notifier.commands import event_input

    failed = False
    for body in event_input.bodies(_stdin(), members):
        if isinstance(body, event_input.Lines):
            failed |= run_client(_send_lines(url, key, body))
        else:
            run_client(_send_body(url, key, body))
    if failed:
        sys.exit(FAILED)


async def _send_lines(url: str, key: str | None, lines: "event_input.Lines") -> bool:
    """Post the events of lines, print their ids, and return whether one was refused."""
    from notifier import client

    try:
        answer = await client.post(url, lines.body, key)
    except client.Refused as error:
        if len(lines.numbers) > 1:
            raise
        answer = {"detail": str(error)}
    results = answer.get("results", [answer])
    for number, result in zip(lines.numbers, results, strict=True):
        if "id" in result:
            click.echo(json.dumps({"id": result["id"]}))
        else:
            click.echo(f"line {number} of standard input: {result['detail']}", err=True)
    return any("id" not in result for result in results)
