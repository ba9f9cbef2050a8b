"""The command."""

import asyncio
import json
import logging
import math
import os
import shutil
import signal
import stat
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from notifier.core.errors import Invalid

if TYPE_CHECKING:
    from io import BufferedReader

    from pydantic.fields import FieldInfo

    from notifier import composing
    from notifier.core.findings import Finding
    from notifier.settings import Role, Settings
    from notifier.telemetry.series import Values

T = TypeVar("T")

_FAILED, _WRONG_USE = 1, 2
_STDIN = 0
_UNREAD = 141  # as a shell says of a program that SIGPIPE ended
_ACCEPTED = 202
_ROLES = ("gateway", "router", "api", "dev")


class _Commands(click.Group):
    """The commands, which end quietly when nobody reads their output any more."""

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:  # noqa: ANN401 - click's
        with _ending_unread():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        with _ending_unread():
            return super().invoke(ctx)


@contextmanager
def _ending_unread() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        # Python writes what is left of the output when it ends: to nowhere, not to the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_UNREAD)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="notifier")
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


def _fail(sentence: str, code: int = _FAILED) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(code)


def _settings(role: "Role | None" = None) -> "Settings":
    from notifier.settings import Settings, SettingsError
    from notifier.telemetry import logs

    try:
        settings = Settings.load(role)
    except SettingsError as error:
        _fail("\n".join(error.lines), _WRONG_USE)
    logs.configure(settings.log_format, settings.log_level)
    return settings


def _run(work: Coroutine[Any, Any, None]) -> None:
    from notifier.serving import loop_factory

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work)


def _run_role(role: "Role") -> None:
    import structlog

    from notifier import wiring
    from notifier.serving import ServingError
    from notifier.settings import SettingsError

    settings = _settings(role)
    try:
        _run(wiring.run(role, settings, _announce))
    except Exception as error:  # noqa: BLE001 - whatever a background task died of ends the process
        cause = _cause(error)
        if isinstance(cause, SettingsError):
            _fail(str(cause), _WRONG_USE)
        if isinstance(cause, ServingError):
            _fail(str(cause))
        structlog.get_logger("notifier").exception("failed", role=role)
        logging.shutdown()
        sys.exit(_FAILED)


def _cause(error: BaseException) -> BaseException:
    # What is raised while tasks run beside comes in a group, or in several.
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _announce(welcome: str) -> None:
    # After `make run` the command is in a virtual environment that is not on the PATH.
    program = click.get_current_context().find_root().command_path
    if program == "notifier" and shutil.which("notifier") is None:
        program = sys.argv[0]
    click.echo(welcome.replace("notifier listen", f"{program} listen"))


@main.command()
def gateway() -> None:
    """Deliver to the clients' connections (public port).

    Needs Redis (NOTIFIER_REDIS_URL), a key for tokens (NOTIFIER_JWT_SECRET,
    NOTIFIER_JWT_PUBLIC_KEY, NOTIFIER_JWKS_URL or NOTIFIER_JWT_DISCOVERY_URL), NOTIFIER_JWT_ISSUER
    and NOTIFIER_JWT_AUDIENCE. SIGTERM drains it.
    """
    _run_role("gateway")


@main.command()
def router() -> None:
    """Take events from RabbitMQ and publish them to Redis.

    Needs NOTIFIER_AMQP_URL and NOTIFIER_REDIS_URL. Declares RabbitMQ's queues at start.
    """
    _run_role("router")


@main.command()
def api() -> None:
    """Accept events over HTTP (internal port).

    They are put into RabbitMQ, and answered with 202 once it has confirmed them.

    Needs NOTIFIER_AMQP_URL and NOTIFIER_API_KEYS.
    """
    _run_role("api")


@main.command()
def dev() -> None:
    """Run all roles in one process, with a page.

    On memory: there is nothing to install.

    Where NOTIFIER_AMQP_URL or NOTIFIER_REDIS_URL is set, the real one takes memory's place.
    """
    _run_role("dev")


def _seconds(_context: click.Context, _option: click.Parameter, given: str | None) -> float | None:
    if given is None:
        return None
    with suppress(ValueError):
        seconds = float(given)
        if 0 < seconds < math.inf:
            return seconds
    raise click.BadParameter("must be a number of seconds above 0, such as 60")


@main.command()
@click.option("--user", "users", multiple=True, help="A user in its audience; may be repeated.")
@click.option("--topic", help="The topic whose followers are its audience.")
@click.option("--everyone", is_flag=True, help="Its audience is everyone.")
@click.option("--type", help="Its type.  [default: notification]")
@click.option("--data", help="Its data: JSON, @FILE, or - for standard input.")
@click.option("--id", help="Its id: an event with the same source and id is delivered once.")
@click.option("--source", help="Its source.  [default: the API key's name]")
@click.option("--ttl", callback=_seconds, help="Seconds until it expires.")
@click.option("--collapse-key", help="An event replaces an undelivered one with the same key.")
@click.option(
    "--url",
    default=lambda: f"http://127.0.0.1:{_settings().api_port}",
    show_default="this machine's",
    help="The producer API.",
)
@click.option("--key", envvar="NOTIFIER_API_KEY", show_envvar=True, help="The API key.")
def send(url: str, key: str | None, data: str | None, **given: Any) -> None:  # noqa: ANN401 - of several types
    """Post events to the producer API.

    \b
    notifier send --user 42 --type order.paid --data '{"order": 7}'
    notifier send --user 42 --type order.paid --data @order.json
    notifier send < events.json       a body as POST /v1/events takes it: one event, or an array
    notifier send < events.ndjson     one event a line, posted as the lines come

    Beside --user, --topic or --everyone, a JSON object or list on standard input is the event's
    data. Events on standard input take --type, --source, --ttl and --collapse-key where they have
    none of their own.
    """  # noqa: D301 - as above
    from notifier import composing

    members = {name: value for name, value in given.items() if value not in (None, (), False)}
    try:
        if composing.AUDIENCE.isdisjoint(members):
            _check_stdin_is_meant(data, members)
            _send_stdin(url, key, members)
        else:
            event = composing.event({"type": "notification", **members}, _data(data))
            _run_client(_send_body(url, key, event))
    except Invalid as error:
        _fail(str(error), _WRONG_USE)


def _data(option: str | None) -> bytes | None:
    from notifier import composing

    if option is not None:
        return composing.data_of(option, _stdin)
    state = composing.state_of(_STDIN)
    if state == "ready":
        return composing.unasked_data(_stdin())
    if state == "open":
        click.echo("standard input is empty so far: only --data - waits for it", err=True)
    return None


def _stdin() -> "BufferedReader":
    try:
        return open(_STDIN, "rb", closefd=False)
    except OSError:
        _fail("standard input is closed: name an audience and --data, or send events on it")


async def _send_body(url: str, key: str | None, body: bytes) -> None:
    from notifier import client

    answer = await client.post(url, body, key)
    click.echo(json.dumps(answer))
    if any(result["status"] != _ACCEPTED for result in answer.get("results", ())):
        sys.exit(_FAILED)


def _check_stdin_is_meant(data: str | None, members: dict[str, Any]) -> None:
    for option, is_given in (("--data", data is not None), ("--id", "id" in members)):
        if is_given:
            remedy = "name its audience too, by --user, --topic or --everyone"
            _fail(f"{option}: belongs to one event; {remedy}", _WRONG_USE)
    if sys.stdin is not None and sys.stdin.isatty():
        _fail("name an audience: --user, --topic or --everyone; or send events on standard input")


def _send_stdin(url: str, key: str | None, members: dict[str, Any]) -> None:
    from notifier import composing

    failed = False
    for body in composing.bodies(_stdin(), members):
        if isinstance(body, composing.Lines):
            failed |= _run_client(_send_lines(url, key, body))
        else:
            _run_client(_send_body(url, key, body))
    if failed:
        sys.exit(_FAILED)


async def _send_lines(url: str, key: str | None, lines: "composing.Lines") -> bool:
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


def _run_client(work: Coroutine[Any, Any, T]) -> T:
    from notifier import client

    try:
        return asyncio.run(_while_read(work))
    except client.ClientError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(0)


async def _while_read(work: Coroutine[Any, Any, T]) -> T:
    """Do `work` until nobody reads the output any more: then raise BrokenPipeError.

    The next line may be long in coming, so the pipe itself is watched.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    is_unread = False

    def end() -> None:
        nonlocal is_unread
        is_unread = True
        loop.remove_reader(sys.stdout.fileno())
        if task is not None:
            task.cancel()

    if _prints_into_a_pipe():
        loop.add_reader(sys.stdout.fileno(), end)
    try:
        return await work
    except asyncio.CancelledError:
        if is_unread:
            raise BrokenPipeError from None
        raise


def _prints_into_a_pipe() -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (AttributeError, OSError):  # there is no standard output, or something in its place
        return False


@main.command()
@click.option("--user", required=True, help="The user to listen as.")
@click.option("--topic", "topics", multiple=True, help="A further topic; may be repeated.")
@click.option(
    "--url",
    default=lambda: f"ws://127.0.0.1:{_settings().gateway_port}",
    show_default="this machine's",
    help="The gateway.",
)
@click.option("--token", envvar="NOTIFIER_TOKEN", show_envvar=True, help="A token of that user.")
@click.option("--frames", is_flag=True, help="Print every frame, not only the events.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
def listen(  # noqa: PLR0913 - one for each option
    user: str,
    topics: tuple[str, ...],
    url: str,
    token: str | None,
    count: int | None,
    *,
    frames: bool,
) -> None:
    """Print what arrives for a user, one JSON a line.

    Comes back by itself when the connection is lost, and misses nothing.

    Without a token it makes one with NOTIFIER_JWT_SECRET, or asks a running `notifier dev`.
    """
    from notifier import client

    follower = client.Follower(
        url,
        lambda: _token(user, url, token),
        topics=topics,
        frame=_Printing(user, count, frames=frames),
        note=partial(click.echo, err=True),
    )

    async def work() -> None:
        with suppress(_Enough):
            await follower.run()

    _run_client(work())


class _Printing:
    """Prints a user's events, or all frames; raises _Enough after `count` events."""

    def __init__(self, user: str, count: int | None, *, frames: bool) -> None:
        self._user = user
        self._left = count
        self._frames = frames

    def __call__(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "hello":
            self._greet(frame["user"])
        elif frame["type"] in ("gap", "error") and not self._frames:
            click.echo(f"{frame['type']}: {json.dumps(frame)}", err=True)
        if self._frames or frame["type"] == "event":
            shown = frame if self._frames else frame["event"]
            click.echo(json.dumps(shown, ensure_ascii=False))
        if self._left is not None and frame["type"] == "event":
            self._left -= 1
            if not self._left:
                raise _Enough

    def _greet(self, user: str) -> None:
        from notifier import client

        if user != self._user:
            raise client.ClientError(f"the token is of user {user}, not of {self._user}")
        click.echo(f"listening as {user}", err=True)


class _Enough(Exception):
    """As many events have come as were asked for."""


async def _token(user: str, url: str, given: str | None) -> str:
    if given:
        return given
    from notifier import client

    settings = _settings()
    if settings.jwt_secret is None:
        return await client.fetch_token(url, user)
    return _minted(settings, user, ("*",), 3600)


def _minted(settings: "Settings", user: str, topics: tuple[str, ...], lifetime: int) -> str:
    from notifier.credentials import minted

    try:
        return minted(settings, user, topics, lifetime)
    except Invalid as error:
        _fail(str(error), _WRONG_USE)


@main.command()
@click.option("--user", required=True, help="Whose token.")
@click.option("--topic", "topics", multiple=True, help="A topic, or pattern with *, it may follow.")
@click.option("--lifetime", default=3600, show_default=True, help="In seconds.")
@click.option(
    "--url",
    default=lambda: f"http://127.0.0.1:{_settings().gateway_port}",
    show_default="this machine's",
    help="`notifier dev`.",
)
def token(user: str, topics: tuple[str, ...], lifetime: int, url: str) -> None:
    """Print a development token.

    Signed with NOTIFIER_JWT_SECRET; without one a running `notifier dev` is asked for it, whose
    tokens are for all topics and 12 hours, whatever --topic and --lifetime say.
    """
    settings = _settings()

    async def work() -> None:
        from notifier import client

        click.echo(await client.fetch_token(url, user))

    if settings.jwt_secret is None:
        _run_client(work())
    else:
        click.echo(_minted(settings, user, topics, lifetime))


@main.command()
@click.option("--name", required=True, help="The producer; also the default source of its events.")
def key(name: str) -> None:
    """Make an API key for a producer."""
    from notifier.api.keys import new_key

    try:
        made = new_key(name)
    except Invalid as error:
        _fail(f"--{error}", _WRONG_USE)
    click.echo(f"for the producer, shown once:  {made.secret}")
    click.echo(f"to add to NOTIFIER_API_KEYS:   {made.entry}")


@main.command()
@click.option(
    "--role",
    type=click.Choice(["gateway", "router", "api"]),
    help="Check what this role needs, and no more.",
)
def check(role: "Role | None") -> None:
    """Say what to mend in settings, RabbitMQ, Redis and the issuer of tokens.

    Ends with 1 when a backend keeps notifier from working, with 2 for wrong settings.
    """
    from notifier.core.findings import render

    settings = _settings(role)

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(each, name="check") for each in _checks_for(role, settings)
            ]
        findings = [finding for task in running for finding in task.result()]
        click.echo(render(findings))
        if any(finding.level == "error" for finding in findings):
            sys.exit(_FAILED)

    _run(work())


def _checks_for(
    role: "Role | None", settings: "Settings"
) -> Iterator[Coroutine[Any, Any, "list[Finding]"]]:
    """Yield a check of each backend that the role talks to; of all without a role."""
    from notifier.adapters.rabbitmq.check import check_rabbitmq
    from notifier.adapters.redis.check import check_redis

    management = settings.rabbitmq_management_url
    if role != "gateway":
        yield check_rabbitmq(
            settings.amqp_url.get_secret_value(),
            partitions=settings.partitions,
            management_url=management.get_secret_value() if management else None,
        )
    if role != "api":
        yield check_redis(settings.redis_url.get_secret_value())
    if role not in ("api", "router") and (settings.jwks_url or settings.jwt_discovery_url):
        yield _check_issuers(settings)


async def _check_issuers(settings: "Settings") -> "list[Finding]":
    """Check each issuer that publishes its keys, one after another."""
    from notifier.adapters.tokens.check import check_issuer
    from notifier.adapters.tokens.issuer import IssuerKeys
    from notifier.credentials import issuers
    from notifier.settings import variable

    [name] = settings.given_keys()
    keys = [issuer.keys for issuer in issuers(settings)]
    return [await check_issuer(k, variable(name)) for k in keys if isinstance(k, IssuerKeys)]


@main.command("settings")
@click.option("--markdown", is_flag=True, help="As a Markdown table.")
def settings_(*, markdown: bool) -> None:
    """List every setting: variable, default, meaning."""
    from notifier.settings import CLIENT_VARIABLES, Settings, variable

    rows = [
        (variable(name), _default(field), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    rows += [(name, "", meaning) for name, meaning in CLIENT_VARIABLES.items()]
    if markdown:
        click.echo("| variable | default | meaning |\n|---|---|---|")
    for name, default, meaning in rows:
        if markdown:
            click.echo(f"| `{name}` | {f'`{default}`' if default else ''} | {meaning} |")
        else:
            click.echo(f"{name}{f' = {default}' if default else ''}\n    {meaning}")
    if not markdown:
        click.echo("\nAny of them can stand in a file that NOTIFIER_…_FILE names, or in .env.")


@main.command("metrics")
@click.option("--markdown", is_flag=True, help="As a Markdown table.")
def metrics_(*, markdown: bool) -> None:
    """List every metric: name, type, labels, meaning.

    Each role tells all of them on its private port, at /metrics.
    """
    from notifier.telemetry.metrics import Metrics

    if markdown:
        click.echo("| metric | type | labels | meaning |\n|---|---|---|---|")
    for row in Metrics().rows():
        labels = [f"`{name}`: {_values(values)}" for name, values in row.labels.items()]
        if markdown:
            cells = (f"`{row.name}`", row.type, "; ".join(labels), row.meaning)
            click.echo(f"| {' | '.join(cells)} |")
        else:
            click.echo("\n    ".join((f"{row.name} ({row.type})", row.meaning, *labels)))


def _values(values: "Values") -> str:
    return values if isinstance(values, str) else ", ".join(values)


def _default(field: "FieldInfo") -> str:
    default = field.default
    if hasattr(default, "get_secret_value"):
        default = default.get_secret_value()
    return "" if default in (None, ()) else str(default)


@main.command("topology")
def topology_() -> None:
    """Print RabbitMQ's topology as a definitions file.

    For operators who declare all of it themselves: `rabbitmqctl import_definitions FILE`.
    """
    from notifier.adapters.rabbitmq import topology

    click.echo(json.dumps(topology.definitions(_settings().partitions), indent=2))
