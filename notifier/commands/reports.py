"""`notifier reports`."""

from contextlib import aclosing

import click

from notifier.commands.pipes import run_client
from notifier.commands.process import fail, load_settings
from notifier.core.errors import Invalid
from notifier.core.names import checked_name
from notifier.core.reports import Report


@click.command()
@click.option("--user", help="Only those about this user.  [default: all users]")
@click.option(
    "--report",
    type=click.Choice([each.value for each in Report]),
    help="Only this one.  [default: all]",
)
@click.option("--count", type=click.IntRange(1), help="End after so many reports.")
def reports(user: str | None, report: str | None, count: int | None) -> None:
    """Print delivery reports as they come, one JSON a line.

    They are about events that were posted with "report": true. They come from RabbitMQ, by a queue
    that is gone when the command ends. Consumers of producers get them all the same; but with none,
    those that are printed here do not wait in notifier.unclaimed. A reader that is 10,000 reports
    late loses the oldest.
    """
    try:
        key = f"{report or '*'}.user.{'#' if user is None else checked_name(user, '--user')}"
    except Invalid as error:
        fail(str(error))
    from notifier.adapters.rabbitmq import report_stream
    from notifier.adapters.rabbitmq.errors import Lost

    url = load_settings().amqp_url.get_secret_value()
    stream = report_stream.reports(url, key, lambda: click.echo("waiting for reports", err=True))

    async def work() -> None:
        left = count
        async with aclosing(stream):
            async for body in stream:
                click.echo(body)
                left = left and left - 1
                if left == 0:
                    return

    try:
        run_client(work())
    except Lost as lost:
        fail(f"RabbitMQ: {lost}")
