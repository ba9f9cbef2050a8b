"""The command."""

import asyncio
import json
import logging
import shutil
import sys
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import click
import structlog
from pydantic.fields import FieldInfo

from notifier import client, wiring
from notifier.adapters.rabbitmq import topology
from notifier.adapters.rabbitmq.check import check_rabbitmq
from notifier.adapters.redis.check import check_redis
from notifier.adapters.tokens import verifier as tokens
from notifier.api.keys import new_key
from notifier.core.errors import Invalid
from notifier.core.findings import Finding, render
from notifier.serving import ServingError, loop_factory
from notifier.settings import CLIENT_VARIABLES, Role, Settings, SettingsError, variable
from notifier.telemetry import logs
from notifier.telemetry.metrics import Metrics, Values

_FAILED, _WRONG_USE = 1, 2
_ACCEPTED = 202


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="notifier")
def main() -> None:
    """Push events from backend services to the people they concern.

    \b
    Try it, with nothing installed:    notifier dev
    In production, one process each:   notifier api      producers post events here
                                       notifier router   events become publications
                                       notifier gateway  clients connect here

    All settings come from the environment or .env; `notifier settings` lists them, and
    `notifier check` says whether they, RabbitMQ and Redis are fit for use.
    """  # noqa: D301 - click reads \b, the character


def _fail(sentence: str, code: int = _FAILED) -> NoReturn:
    click.echo(sentence, err=True)
    sys.exit(code)


def _settings(role: Role | None = None) -> Settings:
    try:
        settings = Settings.load(role)
    except SettingsError as error:
        _fail("\n".join(error.lines), _WRONG_USE)
    logs.configure(settings.log_format, settings.log_level)
    return settings


def _run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work)


def _run_role(role: Role) -> None:
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

    Needs Redis (NOTIFIER_REDIS_URL), a key for tokens (NOTIFIER_JWT_SECRET, NOTIFIER_JWT_PUBLIC_KEY
    or NOTIFIER_JWKS_URL), NOTIFIER_JWT_ISSUER and NOTIFIER_JWT_AUDIENCE. SIGTERM drains it.
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


@main.command()
@click.option("--user", "users", multiple=True, help="A user whom it concerns; may be repeated.")
@click.option("--topic", help="The topic whose followers it concerns.")
@click.option("--everyone", is_flag=True, help="It concerns everyone.")
@click.option("--type", "kind", default="notification", show_default=True, help="What happened.")
@click.option("--data", help="The event's data, as JSON.")
@click.option("--id", "event_id", help="Its id: the same one again is delivered once.")
@click.option(
    "--url",
    default=lambda: f"http://127.0.0.1:{_settings().api_port}",
    show_default="this machine's",
    help="The producer API.",
)
@click.option("--key", envvar="NOTIFIER_API_KEY", show_envvar=True, help="The API key.")
def send(  # noqa: PLR0913, PLR0917 - one for each option
    users: tuple[str, ...],
    topic: str | None,
    kind: str,
    data: str | None,
    event_id: str | None,
    url: str,
    key: str | None,
    *,
    everyone: bool,
) -> None:
    """Post an event to the producer API.

    \b
    notifier send --user 42 --type order.paid --data '{"order": 7}'
    notifier send < events.json       a body as POST /v1/events takes it: one event, or an array
    """  # noqa: D301 - as above
    audience: dict[str, Any] = {"users": list(users)} if users else {}
    audience |= ({"topic": topic} if topic else {}) | ({"everyone": True} if everyone else {})
    body = _event(audience, kind, data, event_id) if audience else _event_on_stdin()

    async def work() -> None:
        answer = await client.post(url, body, key)
        click.echo(json.dumps(answer))
        if any(result["status"] != _ACCEPTED for result in answer.get("results", ())):
            sys.exit(_FAILED)

    _run_client(work())


def _event(audience: dict[str, Any], kind: str, data: str | None, event_id: str | None) -> bytes:
    event = {**audience, "type": kind} | ({} if event_id is None else {"id": event_id})
    if data is not None:
        try:
            event["data"] = json.loads(data)
        except ValueError as error:
            _fail(f"--data is not JSON: {error}", _WRONG_USE)
    return json.dumps(event).encode()


def _event_on_stdin() -> bytes:
    if sys.stdin.isatty():
        _fail("say whom it concerns: --user, --topic or --everyone; or give JSON on standard input")
    return sys.stdin.buffer.read()


def _run_client(work: Coroutine[Any, Any, None]) -> None:
    try:
        _run(work)
    except client.ClientError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(0)


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
        if user != self._user:
            raise client.ClientError(f"the token is of user {user}, not of {self._user}")
        click.echo(f"listening as {user}", err=True)


class _Enough(Exception):
    """As many events have come as were asked for."""


async def _token(user: str, url: str, given: str | None) -> str:
    if given:
        return given
    settings = _settings()
    if settings.jwt_secret is None:
        return await client.fetch_token(url, user)
    return _minted(settings, user, ("*",), 3600)


def _minted(settings: Settings, user: str, topics: tuple[str, ...], lifetime: int) -> str:
    assert settings.jwt_secret is not None  # noqa: S101 - asked before
    try:
        return tokens.mint(
            settings.jwt_secret.get_secret_value(),
            user,
            topics=list(topics),
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            lifetime=lifetime,
        )
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
        click.echo(await client.fetch_token(url, user))

    if settings.jwt_secret is None:
        _run_client(work())
    else:
        click.echo(_minted(settings, user, topics, lifetime))


@main.command()
@click.option("--name", required=True, help="The producer; also the default source of its events.")
def key(name: str) -> None:
    """Make an API key for a producer."""
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
def check(role: Role | None) -> None:
    """Say what to mend in settings, RabbitMQ and Redis.

    Ends with 1 when a backend keeps notifier from working, with 2 for wrong settings.
    """
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
    role: Role | None, settings: Settings
) -> Iterator[Coroutine[Any, Any, list[Finding]]]:
    """Yield a check of each backend that the role talks to; of both without a role."""
    management = settings.rabbitmq_management_url
    if role != "gateway":
        yield check_rabbitmq(
            settings.amqp_url.get_secret_value(),
            partitions=settings.partitions,
            management_url=management.get_secret_value() if management else None,
        )
    if role != "api":
        yield check_redis(settings.redis_url.get_secret_value())


@main.command("settings")
@click.option("--markdown", is_flag=True, help="As a Markdown table.")
def settings_(*, markdown: bool) -> None:
    """List every setting: variable, default, meaning."""
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
    if markdown:
        click.echo("| metric | type | labels | meaning |\n|---|---|---|---|")
    for row in Metrics().rows():
        labels = [f"`{name}`: {_values(values)}" for name, values in row.labels.items()]
        if markdown:
            cells = (f"`{row.name}`", row.type, "; ".join(labels), row.meaning)
            click.echo(f"| {' | '.join(cells)} |")
        else:
            click.echo("\n    ".join((f"{row.name} ({row.type})", row.meaning, *labels)))


def _values(values: Values) -> str:
    return values if isinstance(values, str) else ", ".join(values)


def _default(field: FieldInfo) -> str:
    default = field.default
    if hasattr(default, "get_secret_value"):
        default = default.get_secret_value()
    return "" if default in (None, ()) else str(default)


@main.command("topology")
def topology_() -> None:
    """Print RabbitMQ's topology as a definitions file.

    For operators who declare all of it themselves: `rabbitmqctl import_definitions FILE`.
    """
    click.echo(json.dumps(topology.definitions(_settings().partitions), indent=2))
