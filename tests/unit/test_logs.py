"""The names of log lines, over the whole code and all documents."""

import ast
import re
from ast import unparse
from pathlib import Path

ROOT = Path(__file__).parents[2]
METHODS = ("debug", "info", "warning", "error", "exception", "critical", "log")


def names() -> set[str]:
    """The names of our own lines, as the code has them."""
    calls = (
        node
        for path in (ROOT / "notifier").rglob("*.py")
        if path.parent.name != "client"  # it speaks to the log of another service, in sentences
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    )
    loggers = re.compile(rf"(_log|structlog\.get_logger\(.*\))\.({'|'.join(METHODS)})")
    arguments = [each.args for each in calls if loggers.fullmatch(unparse(each.func))]
    return {next(str(a.value) for a in each if isinstance(a, ast.Constant)) for each in arguments}


def test_every_line_is_named_in_snake_case() -> None:
    found = names()

    assert [name for name in sorted(found) if not re.fullmatch("[a-z]+(_[a-z]+)*", name)] == []
    assert len(found) > 25


def test_the_lines_that_documents_name_are_written() -> None:
    texts = [path.read_text() for path in (ROOT / "docs").rglob("*.md")]
    named = {name for text in texts for name in re.findall(r"log lines? `([^`]+)`", text)}

    assert named >= {"disconnected", "publication_refused"}
    assert named <= names()
