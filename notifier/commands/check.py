"""`notifier check`."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import click

from notifier.commands.process import FAILED, load_settings, run

if TYPE_CHECKING:
    from notifier.core.findings import Finding
    from notifier.settings import Role, Settings


@click.command()
@click.option(
    "--role",
    type=click.Choice(["gateway", "router", "api"]),
    help="Check the needs of this role only.",
)
def check(role: "Role | None") -> None:
    """Say what to mend in settings and backends.

    The backends are RabbitMQ, Redis and the issuer of tokens. Ends with 1 when one of them keeps
    notifier from working, with 2 for wrong settings.
    """
    from notifier.core.findings import render
    from notifier.core.grants import key_findings

    settings = load_settings(role)

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(each, name="check") for each in _checks_for(role, settings)
            ]
        findings = [finding for task in running for finding in task.result()]
        if role in (None, "api"):
            findings += key_findings(settings.api_keys)
        click.echo(render(findings))
        if any(finding.level == "error" for finding in findings):
            sys.exit(FAILED)

    run(work())


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
    if role != "api" or settings.is_given("redis_url"):
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
