"""`notifier conformance`."""

import sys
from typing import TYPE_CHECKING

import click

from notifier.commands.pipes import run_client
from notifier.commands.process import FAILED

if TYPE_CHECKING:
    from notifier.conformance import Deployment


@click.command()
@click.option("--url", required=True, help="The gateway, such as https://push.example.")
@click.option("--api-url", help="The producer API; without it no event is posted.")
@click.option("--token", envvar="NOTIFIER_TOKEN", show_envvar=True, required=True, help="A token.")
@click.option("--key", envvar="NOTIFIER_API_KEY", show_envvar=True, help="The API key.")
@click.option("--topic", help="A topic in the token's claims topics, publish and presence.")
def conformance(
    url: str, api_url: str | None, token: str, key: str | None, topic: str | None
) -> None:
    """Try the protocol's promises on a deployment.

    Ends with 1 if one is broken.

    The events that it posts are for the token's user, silent, and expire after a minute; one of
    them is marked read. Those that it publishes are in the topic. Without the address of the API,
    and without a topic, some promises are skipped.
    """
    from notifier.conformance import Deployment

    run_client(_try(Deployment(url.rstrip("/"), token, api_url, key, topic)))


async def _try(deployment: "Deployment") -> None:
    from notifier.conformance import tried

    is_broken = False
    async for promise, result, reason in tried(deployment):
        click.echo(f"{result:<8} {promise}" + (f": {reason}" if reason else ""))
        is_broken |= result == "broken"
    if is_broken:
        sys.exit(FAILED)
