"""The documents say of the command the same as the command."""

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner

from contracts.generate import FOLDER, files
from notifier.cli import main
from notifier.telemetry.metrics import Metrics


@pytest.mark.parametrize(
    ("document", "name"), [("docs/settings.md", "settings"), ("docs/metrics.md", "metrics")]
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
    files = found(pytestconfig.rootpath, ("README.md", "docs/*.md"))

    assert any(f"notifier {command}" in file.read_text() for file in files)


DOCUMENTS = ("*.md", "benchmarks/*.md", "docs/*.md", "docs/adr/*.md", "docs/runbooks/*.md")
ON_METRICS = ("docs/metrics.md", "docs/operating.md", "docs/runbooks/*.md")


def found(root: Path, patterns: Iterable[str]) -> list[Path]:
    return [file for pattern in patterns for file in sorted(root.glob(pattern))]


def test_links_between_documents_lead_somewhere(pytestconfig: pytest.Config) -> None:
    for file in found(pytestconfig.rootpath, DOCUMENTS):
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name}: {target}"


def test_a_metric_that_a_document_names_is_there(pytestconfig: pytest.Config) -> None:
    known = {row.name for row in Metrics().rows()}

    for file in found(pytestconfig.rootpath, ON_METRICS):
        for name in re.findall(r"`(notifier_[a-z_]+)", file.read_text()):
            assert name in known, f"{file.name}: {name}"


def test_a_test_that_a_document_names_is_there(pytestconfig: pytest.Config) -> None:
    for file in found(pytestconfig.rootpath, DOCUMENTS):
        for module, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", file.read_text()):
            source = (pytestconfig.rootpath / module).read_text()
            assert f"def {name}(" in source, f"{file.name}: {name}"


CLAUSE = re.compile(
    r"(?:^|\n\n|[.;:!|,]\s+(?:(?:and|or|but)\s+)?|\(|\n- |\n\d+\. |\*\*|# )"
    r"(?:what|who|whom|whatever|whoever)\b[^.?!|]*(?:[.!|]|$)",
    re.IGNORECASE,
)


def test_no_clause_begins_with_what_or_who_unless_it_asks(pytestconfig: pytest.Config) -> None:
    """The rule of CONTRIBUTING.md, which quotes such sentences as examples itself."""
    for file in found(pytestconfig.rootpath, DOCUMENTS):
        text = re.sub(r"```.*?```", "", file.read_text(), flags=re.DOTALL)
        if file.name != "CONTRIBUTING.md":
            clauses = [match[0] for match in CLAUSE.finditer(text)]
            assert clauses == [], f"{file.name}: let the subject begin, in words of its own"


def test_no_name_of_a_test_begins_with_what_or_who(pytestconfig: pytest.Config) -> None:
    names = {
        name
        for file in (pytestconfig.rootpath / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def test_(\w+)", file.read_text(), re.MULTILINE)
    }

    assert [name for name in sorted(names) if re.match("(?:what|who|whom)(?:ever)?_", name)] == []
    assert len(names) > 1_000


@pytest.mark.parametrize("folder", ["notifier", "tests", "benchmarks", "contracts", "examples"])
def test_no_docstring_begins_with_what_or_who(folder: str, pytestconfig: pytest.Config) -> None:
    texts = {file: file.read_text() for file in (pytestconfig.rootpath / folder).rglob("*.py")}

    assert texts
    assert [
        f"{file}: {begin}"
        for file, text in texts.items()
        for begin in re.findall('"""(?:What|Who|Whom)(?:ever)? .*', text)
    ] == []


COMMENT = re.compile(
    r"# (?:.*[.;:!,] )?(?:(?:and|or|but) )?(?:what|who|whom|whatever|whoever) [^?]*$", re.IGNORECASE
)


@pytest.mark.parametrize("folder", ["notifier", "tests", "benchmarks", "contracts", "examples"])
def test_no_clause_of_a_comment_begins_with_what_or_who(
    folder: str, pytestconfig: pytest.Config
) -> None:
    assert [
        f"{file}: {line}"
        for file in (pytestconfig.rootpath / folder).rglob("*.py")
        for line in file.read_text().splitlines()
        if not line.partition("#")[0].count('"') % 2 and COMMENT.search(line)
    ] == []


def test_each_guarantee_names_the_tests_that_hold_it(pytestconfig: pytest.Config) -> None:
    guarantees = (pytestconfig.rootpath / "README.md").read_text().partition("## Guarantees\n")[2]
    rows = (pytestconfig.rootpath / "docs/reliability.md").read_text().splitlines()

    for promise in re.findall(r"\n- \*\*(.+?)\.\*\*", guarantees.partition("\n## ")[0]):
        [row] = [row for row in rows if row.startswith(f"| **{promise}** |")]
        assert "`tests/" in row


def test_the_tests_of_the_first_promises_have_the_word_of_their_promise(
    pytestconfig: pytest.Config,
) -> None:
    text = (pytestconfig.rootpath / "docs/reliability.md").read_text()
    words = re.findall(r"`(\w+)`", text.partition("prints them: ")[2].partition(".")[0])
    rows = text.partition("| promise | made in | tests |\n")[2].splitlines()[1:]

    for word, row in zip(words, rows, strict=False):
        names = re.findall(r"::(test_\w+)`", row)
        assert names
        assert [name for name in names if word not in name] == [], row
    assert len(words) == 6


def test_each_further_word_of_a_promise_finds_a_test(pytestconfig: pytest.Config) -> None:
    text = (pytestconfig.rootpath / "docs/reliability.md").read_text()
    words = re.findall(r"`(\w+)`", text.partition("Further words are ")[2].partition(".")[0])
    tests = [path.read_text() for path in (pytestconfig.rootpath / "tests").rglob("test_*.py")]

    for word in words:
        assert any(re.search(rf"def test_\w*{word}", each) for each in tests), word
    assert words


RECORD = re.compile(
    r"# (\d+)\. .+\n\n- Status: (accepted|superseded by \[(\d+)\]\(.+\))\n"
    r"- Date: \d{4}-\d\d-\d\d(?:, revised \d{4}-\d\d-\d\d)?\n"
    r"- Supersedes: (none|\[(\d+)\]\(.+\))\n\n"
)


def test_each_decision_has_status_and_date_and_agrees_with_the_one_it_supersedes(
    pytestconfig: pytest.Config,
) -> None:
    files = found(pytestconfig.rootpath, ("docs/adr/*.md",))
    records = [RECORD.match(file.read_text()) for file in files]

    heads = {match[1]: match for match in records if match}

    assert [int(number) for number in heads] == list(range(1, len(files) + 1))
    superseded = {(number, head[3]) for number, head in heads.items() if head[3]}
    assert superseded == {(head[5], number) for number, head in heads.items() if head[5]}


@pytest.mark.parametrize("name", sorted(files()))
def test_a_contract_is_the_one_that_the_code_makes(name: str) -> None:
    assert (FOLDER / name).read_text() == files()[name], "make contracts"
