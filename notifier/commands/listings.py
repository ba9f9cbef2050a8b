"""`notifier settings`, `metrics` and `topology`: what there is, for people and for files."""

import json
from typing import TYPE_CHECKING

import click

from notifier.commands.process import load_settings

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from notifier.telemetry.series import Values


@click.command()
@click.option("--markdown", is_flag=True, help="As a Markdown table.")
def settings(*, markdown: bool) -> None:
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


@click.command()
@click.option("--markdown", is_flag=True, help="As a Markdown table.")
def metrics(*, markdown: bool) -> None:
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


@click.command()
def topology() -> None:
    """Print RabbitMQ's topology as a definitions file.

    For operators who declare all of it themselves: `rabbitmqctl import_definitions FILE`.
    """
    from notifier.adapters.rabbitmq import topology

    click.echo(json.dumps(topology.definitions(load_settings().partitions), indent=2))
