"""`notifier letters`."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from notifier.commands.process import fail, load_settings, run

if TYPE_CHECKING:
    from notifier.adapters.rabbitmq.dead_letter_queue import DeadLetter

_REASONS = "invalid, unreadable, too_large, refused, expired, rejected, internal or another"


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--reason", default="", help=f"With this notifier-reason: {_REASONS}."),
        click.option("--error", default="", help="With this in the sentence of notifier-error."),
        click.option("--routing-key", default="", help="With this routing key."),
        click.option(
            "--limit",
            type=click.IntRange(1),
            default=1_000,
            show_default=True,
            help="Look at so many of the oldest.",
        ),
    ):
        command = option(command)
    return command


@click.group()
def letters() -> None:
    """Look at dead letters, and put them back.

    They are the entries that routers found bad, in the queue notifier.dead.
    """


@letters.command("list")
@_filtered
def list_(limit: int, **wanted: str) -> None:
    """Print dead letters, the oldest first. Each is a line of JSON; all of them stay."""
    from notifier.adapters.rabbitmq import dead_letter_queue as queue

    async def work(url: str) -> None:
        async for letter in queue.dead_letters(url, queue.LetterFilter(**wanted), limit):
            _print(letter)

    _run(work)


@letters.command("put-back")
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--dry-run", is_flag=True, help="Only print those that would be put back.")
@_filtered
def put_back(limit: int, *, everything: bool, dry_run: bool, **wanted: str) -> None:
    """Publish dead letters once more, and print each.

    Each goes out as its producer published it. The oldest comes first. A letter leaves the queue
    once RabbitMQ has confirmed its event. Killed in between, no event is lost, and deduplication
    drops one that was published twice.
    """
    from notifier.adapters.rabbitmq import dead_letter_queue as queue

    if everything == any(wanted.values()):
        raise click.UsageError("Name --reason, --error or --routing-key, or --all without them.")
    if dry_run:
        list_.callback(limit=limit, **wanted)  # type: ignore[misc] # it is there
        return

    async def work(url: str) -> None:
        await queue.put_back(url, queue.LetterFilter(**wanted), limit, _print)

    _run(work)


def _print(letter: "DeadLetter") -> None:
    from msgspec.json import encode

    click.echo(encode({name: value for name, value in asdict(letter).items() if value}))


def _run(work: Callable[[str], Any]) -> None:
    from notifier.adapters.rabbitmq.errors import Lost

    url = load_settings().amqp_url.get_secret_value()
    try:
        run(work(url))
    except Lost as lost:
        fail(f"RabbitMQ: {lost}")
