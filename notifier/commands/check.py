"""`notifier check`."""

import asyncio
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from notifier.commands.process import FAILED, WRONG_USE, fail, load_settings, run

if TYPE_CHECKING:
    from notifier.adapters.tokens.verifier import Issuer
    from notifier.core.findings import Finding
    from notifier.http.certificate import ServerCertificate
    from notifier.settings import Role, Settings

_DAYS_TO_RENEW = 14  # as the alert NotifierCertificateExpires


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
    issuers, certificate = ((), None) if role in ("api", "router") else _credentials(settings)

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(each, name="check")
                for each in (*_checks_for(role, settings), _check_issuers(settings, issuers))
            ]
        findings = [finding for task in running for finding in task.result()]
        findings += _certificate_findings(certificate)
        if role in (None, "api"):
            findings += key_findings(settings.api_keys)
        click.echo(render(findings))
        if any(finding.level == "error" for finding in findings):
            sys.exit(FAILED)

    run(work())


def _checks_for(
    role: "Role | None", settings: "Settings"
) -> Iterator[Coroutine[Any, Any, "list[Finding]"]]:
    """Yield a check of RabbitMQ and Redis where the role talks to them; of both without a role."""
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


def _credentials(settings: "Settings") -> "tuple[Sequence[Issuer], ServerCertificate | None]":
    """Return the issuers of tokens and the certificate; end with WRONG_USE where they cannot be."""
    from notifier import credentials
    from notifier.settings import SettingsError

    try:
        issuers = credentials.issuers(settings) if settings.given_keys() else ()
        return issuers, credentials.certificate(settings)
    except SettingsError as error:
        fail(str(error), WRONG_USE)


def _certificate_findings(certificate: "ServerCertificate | None") -> "Iterator[Finding]":
    """Say when the gateway's certificate expires, where it has one."""
    from notifier.core.findings import Finding

    if certificate is None:
        return
    days, subject = (certificate.expires - time.time()) // 86400, "certificate"
    mend = "renew NOTIFIER_TLS_CERTIFICATE and NOTIFIER_TLS_KEY"
    if days < 0:
        yield Finding("error", subject, "it has expired, so no client connects", mend)
    elif days < _DAYS_TO_RENEW:
        yield Finding("warning", subject, f"it expires in {days:.0f} days", mend)
    else:
        yield Finding("ok", subject, f"it expires in {days:.0f} days")


async def _check_issuers(settings: "Settings", issuers: "Sequence[Issuer]") -> "list[Finding]":
    """Check each issuer that publishes its keys, one after another."""
    from notifier.adapters.tokens.check import check_issuer
    from notifier.adapters.tokens.issuer import IssuerKeys
    from notifier.settings import variable

    names = [variable(name) for name in settings.given_keys()]
    keys = [issuer.keys for issuer in issuers]
    return [await check_issuer(each, names[0]) for each in keys if isinstance(each, IssuerKeys)]
