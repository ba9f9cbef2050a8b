"""Logs: one line per happening, by structlog, in one format for us and for the libraries.

A line is named as one greps for it: a constant in snake_case for the happening, such as
`batch_not_acked`; fields beside it hold the details. Lines carry ids, users
and sessions, never payloads and never credentials.
"""

import json
import logging
import sys
import time
from typing import Literal, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from notifier.core.dates import date_and_time

_FACTS: tuple[Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
# Libraries that log each frame or request below WARNING; ours tell the same in one line.
_CHATTY = ("httpx", "httpcore", "uvicorn.access", "websockets", "asyncio")
# Libraries whose errors we all catch, and tell with more sense.
_SILENT = ("aio_pika", "aiormq")


class _Lines:
    """Our own lines go straight to the stream: past `logging`, which takes longer than rendering.

    As there, a line that cannot be written is no reason to stop serving.
    """

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self._stream = stream

    def info(self, line: str) -> None:
        try:
            self._stream.write(line + "\n")
        except (OSError, ValueError):  # full, broken, closed
            return

    debug = warning = error = critical = info


class _Logger(structlog.make_filtering_bound_logger("DEBUG")):  # type: ignore[misc] # made at run time
    """Has the methods of structlog's logger for the present level: a line below it costs a call."""


def configure(log_format: Literal["console", "json"] | None, level: str) -> None:
    """Send all logs of the process to standard error.

    A `log_format` of None means console in a terminal and JSON lines otherwise.
    """
    stream = sys.stderr
    console = log_format == "console" or (log_format is None and stream.isatty())
    rendering = _rendering(console=console)
    structlog.configure(
        processors=[*_FACTS, *rendering] if console else [_line],
        logger_factory=lambda name: _Lines(name, stream),
        wrapper_class=_Logger,
        cache_logger_on_first_use=True,
    )
    _take_theirs(logging.StreamHandler(stream), rendering)
    set_level(level)


def set_level(level: str) -> None:
    """Write log lines from this level on, also those of loggers that are in use already."""
    filtering = structlog.make_filtering_bound_logger(level)
    for name, method in vars(filtering).items():
        if not name.startswith("__"):
            setattr(_Logger, name, method)
    root = logging.getLogger()
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def _take_theirs(handler: logging.StreamHandler[TextIO], rendering: list[Processor]) -> None:
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_FACTS, processors=[remove_meta, *rendering]
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _line(logger: _Lines, level: str, line: EventDict) -> str:
    """Render one of our own lines in a single call: the same as `_FACTS` and `_rendering` make.

    A chain of structlog's processors takes twice as long, and each connect has a line.
    """
    second, fraction = divmod(time.time_ns() // 1000, 1_000_000)
    line["level"], line["logger"] = level, logger.name
    line["timestamp"] = f"{date_and_time(second)}.{fraction:06d}Z"
    if "exc_info" in line:
        line = structlog.processors.format_exc_info(logger, level, line)
    return _json(line)


def _json(line: EventDict, **_: object) -> str:
    try:
        return msgspec.json.encode(line).decode()
    except (TypeError, ValueError, RecursionError):  # any value is logged
        return json.dumps({k: v if isinstance(v, str) else repr(v) for k, v in line.items()})


def _rendering(*, console: bool) -> list[Processor]:
    if console:
        return [
            # Plain tracebacks: rich ones print local variables, tokens among them.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]
