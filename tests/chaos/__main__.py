"""Provoke failures, one after another, and print the table: `python -m tests.chaos --help`."""

import asyncio
import logging
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from tests.chaos import campaign
from tests.chaos.failures import FAILURES

_BEGIN, _END = "<!-- table: made by `make chaos` -->", "<!-- end of table -->"


@click.command(context_settings={"show_default": True})
@click.option("--failure", "names", multiple=True, type=click.Choice(list(FAILURES)))
@click.option("--rounds", default=20, help="How often each failure is provoked.")
@click.option("--seed", type=int, help="Of all random choices; made up if it is not given.")
@click.option("--write", type=click.Path(path_type=Path), help="A document to put the table into.")
def main(names: tuple[str, ...], rounds: int, seed: int | None, write: Path | None) -> None:
    """Break everything that notifier stands on, while events flow."""
    seed = random.randrange(10**6) if seed is None else seed
    logging.disable()  # aiormq says at length that it was disconnected
    click.echo(f"seed {seed}")
    failures = [FAILURES[name] for name in names or FAILURES]
    rows = asyncio.run(campaign.run(failures, rounds, seed, click.echo))
    click.echo(f"\n{campaign.table(rows)}\n\nseed {seed}")
    for row in rows:
        for broken in row.broken:
            click.echo(f"{row.failure.name}: {broken}")
        if row.repeats:
            click.echo(f"{row.failure.name}: {row.repeats} events came again behind a gap")
    if write:
        _write(write, campaign.table(rows), rounds, seed)
    sys.exit(any(row.broken for row in rows))


def _write(document: Path, table: str, rounds: int, seed: int) -> None:
    before, rest = document.read_text().split(_BEGIN)
    _, after = rest.split(_END)
    when = datetime.now(UTC).date()
    how = f"`make chaos ROUNDS={rounds} SEED={seed}`, {when}."
    document.write_text(f"{before}{_BEGIN}\n{how}\n\n{table}\n{_END}{after}")


main()
