import json
import logging
import os
from contextlib import redirect_stderr, suppress
from datetime import UTC, datetime

import pytest
import structlog

from notifier.telemetry import logs

pytestmark = pytest.mark.usefixtures("own_logs")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_one_json_object_with_every_known_field(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("json", "INFO")

    structlog.get_logger("notifier.test").info("connected", session="s1", user="42")

    (line,) = lines(capsys)
    assert (
        line["event"],
        line["session"],
        line["user"],
        line["level"],
        line["logger"],
    ) == ("connected", "s1", "42", "info", "notifier.test")


@pytest.mark.parametrize(
    ("value", "told"), [("\ud800", "\ud800"), (Ellipsis, "Ellipsis"), ({(1, 2): 3}, "{(1, 2): 3}")]
)
def test_values_that_json_cannot_express_are_written_all_the_same(
    value: object, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("json", "INFO")

    structlog.get_logger("notifier.test").info("happened", value=value)

    assert [line["value"] for line in lines(capsys)] == [told]


def test_a_librarys_line_has_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")

    logging.getLogger("uvicorn.error").warning("a %s of theirs", "sentence")

    (line,) = lines(capsys)
    assert (
        line["event"],
        line["level"],
        line["logger"],
    ) == ("a sentence of theirs", "warning", "uvicorn.error")


def test_our_lines_and_those_of_libraries_have_the_same_facts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("json", "INFO")

    structlog.get_logger("notifier.test").warning("happened")
    logging.getLogger("notifier.test").warning("happened")

    ours, theirs = lines(capsys)
    moments = [datetime.fromisoformat(str(line.pop("timestamp"))) for line in (ours, theirs)]
    assert ours == theirs
    assert [moment.tzinfo for moment in moments] == [UTC, UTC]


def test_a_line_below_the_level_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "WARNING")

    structlog.get_logger("notifier.test").info("not heard")
    structlog.get_logger("notifier.test").log(logging.INFO, "not heard")
    logging.getLogger("httpx").info("POST https://issuer.example/?token=secret")

    assert lines(capsys) == []


def test_requests_of_the_http_client_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "INFO")

    logging.getLogger("httpx").info("POST https://issuer.example/?token=secret")

    assert lines(capsys) == []


def test_where_lines_cannot_be_written_work_goes_on() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with suppress(BrokenPipeError), os.fdopen(writing, "w", buffering=1) as nobody:
        with redirect_stderr(nobody):
            logs.configure("json", "INFO")

        structlog.get_logger("notifier.test").info("not heard")
        went_on = True

    assert went_on


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_does_not_show_the_values_of_variables(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("json" if log_format == "json" else "console", "INFO")
    token = "eyJhbGciOi" + "X" * 10

    try:
        int("no number", base=len(token) // 2)
    except ValueError:
        structlog.get_logger("notifier.test").exception("failed")

    written = capsys.readouterr().err
    assert "ValueError" in written
    assert token not in written
