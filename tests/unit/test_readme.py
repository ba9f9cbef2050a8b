"""What README.md says of the command is what the command says."""

import pytest
from click.testing import CliRunner

from notifier.cli import main

BEGIN = "<!-- settings: made by `notifier settings --markdown` -->\n"
END = "<!-- end of settings -->"


def test_the_table_of_settings_is_the_one_that_the_command_prints(
    pytestconfig: pytest.Config,
) -> None:
    readme = (pytestconfig.rootpath / "README.md").read_text()

    table = readme.partition(BEGIN)[2].partition(END)[0]

    assert table == CliRunner().invoke(main, ["settings", "--markdown"]).stdout


@pytest.mark.parametrize("command", sorted(main.commands))
def test_each_command_is_told_of(command: str, pytestconfig: pytest.Config) -> None:
    readme = (pytestconfig.rootpath / "README.md").read_text()

    assert f"notifier {command}" in readme
