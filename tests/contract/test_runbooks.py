"""Commands that a runbook tells at night are commands that RabbitMQ has."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.services import RabbitServer

_ASKS = re.compile(r"`((?:rabbitmqctl (?:list_|eval )|rabbitmq-diagnostics )[^`]+)`")


@pytest.mark.services
def test_rabbitmq_answers_the_questions_of_runbooks(pytestconfig: pytest.Config) -> None:
    runbooks = (pytestconfig.rootpath / "docs/runbooks").glob("*.md")
    questions = {found for each in runbooks for found in _ASKS.findall(Path(each).read_text())}

    with RabbitServer() as server:
        for program, *arguments in map(shlex.split, sorted(questions)):
            server.ctl(*arguments, program=program)

    assert len(questions) > 5
