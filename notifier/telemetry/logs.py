"""Logs: one line per happening, by structlog, in one format for us and for the libraries.

Lines carry ids, users and sessions, never payloads and never credentials.
"""

import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.stdlib.ExtraAdder(allow=()),
)
# Libraries that log each frame or request below WARNING; ours tell the same in one line.
_CHATTY = ("httpx", "httpcore", "uvicorn.access", "websockets", "asyncio")
# Libraries whose errors we all catch, and tell with more sense.
_SILENT = ("aio_pika", "aiormq")


def configure(log_format: Literal["console", "json"] | None, level: str) -> None:
    """Send all logs of the process to standard error.

    A `log_format` of None means console in a terminal and JSON lines otherwise.
    """
    console = log_format == "console" or (log_format is None and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(_SHARED), processors=_rendering(console=console)
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _rendering(*, console: bool) -> list[Processor]:
    if console:
        return [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Plain tracebacks: rich ones print local variables, tokens among them.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    return [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
