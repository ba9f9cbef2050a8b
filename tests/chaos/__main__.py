"""Provoke failures, one after another, and print the table: `python -m tests.chaos --help`."""

import asyncio
import logging
import os
import random
import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from tests.chaos import campaign
from tests.chaos.failures import FAILURES
from tests.support.services import in_docker
from tests.support.spoilt import begin_anew_in_own_network, has_own_network

_END = "<!-- end of table -->"


@click.command(context_settings={"show_default": True})
@click.option("--failure", "names", multiple=True, type=click.Choice(list(FAILURES)))
@click.option("--rounds", default=20, help="How often each failure is provoked.")
@click.option("--seed", type=int, help="Of all random choices; made up if it is not given.")
@click.option("--write", type=click.Path(path_type=Path), help="A document to put the table into.")
def main(names: tuple[str, ...], rounds: int, seed: int | None, write: Path | None) -> None:
    """Break everything that notifier stands on, while events flow."""
    _take_a_network_of_our_own()
    seed = random.randrange(10**6) if seed is None else seed
    logging.disable()  # aiormq says at length that it was disconnected
    click.echo(f"seed {seed}")
    failures = [FAILURES[name] for name in names or FAILURES]
    rows = asyncio.run(campaign.run(failures, rounds, seed, click.echo))
    click.echo(f"\n{campaign.table(rows)}\n\nseed {seed}")
    for row in rows:
        for broken in row.broken:
            click.echo(f"{row.failure.name}: {broken}")
        if repeats := row.counts["repeats"]:
            click.echo(f"{row.failure.name}: {repeats} events came again behind a gap")
    if write:
        _write(write, rows, f"ROUNDS={rounds} SEED={seed}")
    sys.exit(any(row.broken for row in rows))


def _take_a_network_of_our_own() -> None:
    """Begin anew in a network namespace with nothing but loopback, which failures may spoil.

    Not without root; nor in Docker, whose containers are reached over the machine's own network.
    """
    if os.geteuid() == 0 and not in_docker() and not has_own_network():
        begin_anew_in_own_network(sys.executable, "-m", "tests.chaos", *sys.argv[1:])


def _write(document: Path, rows: list[campaign.Row], how: str) -> None:
    """Put the rows into the table of these servers, beside those that were not run this time."""
    servers = os.environ.get("TEST_SERVERS") or "own"
    begin = f"<!-- table of {servers}: made by `make chaos` -->"
    before, rest = document.read_text().split(begin)
    former, after = rest.split(_END, maxsplit=1)
    on = "" if servers == "own" else f" SERVERS={servers}"
    told = f"{rows[-1].servers}; last `make chaos {how}{on}`, {datetime.now(UTC).date()}."
    table = campaign.table(rows, former)
    document.write_text(f"{before}{begin}\n{told}\n\n{table}\n{_END}{after}")


main()
