"""`notifier token` and `notifier key`: tokens for clients, keys for producers."""

from typing import TYPE_CHECKING

import click

from notifier.commands.pipes import run_client
from notifier.commands.process import WRONG_USE, fail, load_settings, url_option
from notifier.core.errors import Invalid

if TYPE_CHECKING:
    from notifier.settings import Settings


@click.command()
@click.option("--user", required=True, help="Whose token.")
@click.option("--topic", "topics", multiple=True, help="A topic, or pattern with *, it may follow.")
@click.option(
    "--publish", multiple=True, help="A topic, or pattern with *, its clients may publish to."
)
@click.option(
    "--presence", multiple=True, help="A topic, or pattern with *, it may be a member of."
)
@click.option("--lifetime", default=3600, show_default=True, help="In seconds.")
@url_option("`notifier dev`.", "gateway_port")
def token(  # noqa: PLR0913, PLR0917 - one for each option
    user: str,
    topics: tuple[str, ...],
    publish: tuple[str, ...],
    presence: tuple[str, ...],
    lifetime: int,
    url: str,
) -> None:
    """Print a development token.

    Signed with NOTIFIER_JWT_SECRET; without one a running `notifier dev` is asked for it, whose
    tokens are always for all topics and 12 hours: all options but --user are ignored.
    """
    settings = load_settings()

    async def work() -> None:
        from notifier import client

        click.echo(await client.fetch_token(url, user))

    if settings.jwt_secret is None:
        run_client(work())
    else:
        click.echo(mint(settings, user, topics, lifetime, publish=publish, presence=presence))


@click.command()
@click.option("--name", required=True, help="The producer; also the default source of its events.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(["post", "read", "control"]),
    help="What it may do; may be repeated.  [default: post]",
)
@click.option(
    "--topic", "patterns", multiple=True, help="A topic, or pattern with *, that it is bound to."
)
def key(name: str, scopes: tuple[str, ...], patterns: tuple[str, ...]) -> None:
    """Make an API key, for a producer or a backend.

    \b
    notifier key --name billing --topic 'billing.*' --topic 'user:*'
    notifier key --name support --scope read --scope control
    """  # noqa: D301 - click reads \b, the character
    from notifier.api.keys import new_key

    try:
        made = new_key(name, scopes, patterns)
    except Invalid as error:
        fail(f"--{error}", WRONG_USE)
    click.echo(f"for the producer, shown once:  {made.secret}")
    click.echo(f"to add to NOTIFIER_API_KEYS:   {made.entry}")


def mint(
    settings: "Settings", user: str, topics: tuple[str, ...], lifetime: int, **more: tuple[str, ...]
) -> str:
    """Sign a token with NOTIFIER_JWT_SECRET, for so many seconds; end if it is not to be."""
    from notifier.credentials import minted

    try:
        return minted(settings, user, topics, lifetime, **more)
    except Invalid as error:
        fail(str(error), WRONG_USE)
