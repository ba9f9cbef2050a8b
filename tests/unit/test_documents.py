"""What the documents say of the command is what the command says."""

import pytest
from click.testing import CliRunner

from notifier.cli import main


@pytest.mark.parametrize(
    ("document", "name"), [("README.md", "settings"), ("docs/metrics.md", "metrics")]
)
def test_a_table_is_the_one_that_the_command_prints(
    document: str, name: str, pytestconfig: pytest.Config
) -> None:
    text = (pytestconfig.rootpath / document).read_text()
    begin = f"<!-- {name}: made by `notifier {name} --markdown` -->\n"

    table = text.partition(begin)[2].partition(f"<!-- end of {name} -->")[0]

    assert table == CliRunner().invoke(main, [name, "--markdown"]).stdout


@pytest.mark.parametrize("command", sorted(main.commands))
def test_each_command_is_told_of(command: str, pytestconfig: pytest.Config) -> None:
    readme = (pytestconfig.rootpath / "README.md").read_text()

    assert f"notifier {command}" in readme
