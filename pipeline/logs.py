"""How this process logs: a logger a module, and where their lines go."""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

# structlog imports rich where it can, for its tracebacks: they show local variables, and those hold
# secrets. Ours are plain; without rich each command starts 55 ms sooner.
_HIDDEN = "rich" not in sys.modules
if _HIDDEN:
    sys.modules["rich"] = None  # type: ignore[assignment]
import structlog  # noqa: E402 - see above
from structlog.tracebacks import ExceptionDictTransformer  # noqa: E402

if _HIDDEN:
    del sys.modules["rich"]

LogFormat = Literal["text", "json", "auto"]

get_logger = structlog.get_logger
"""Returns the logger of a module, by its name."""


def configure_logs(
    log_format: LogFormat = "auto", level: str = "info", to: TextIO | None = None
) -> None:
    """Send logs to stderr (or `to`): readable on a terminal, JSON lines elsewhere. Errors are
    logged with the way they came by, and without the values of variables.
    """
    to = to or sys.stderr
    terminal = to.isatty() if log_format == "auto" else log_format == "text"
    renderers: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if terminal
        else [
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(to),
        cache_logger_on_first_use=False,
    )
