"""The exceptions, by who is at fault; the fault decides what happens.

FunicularError
├── ConfigError        the user's file          → all faults at once; nothing starts
├── UsageError         the user's command line  → one sentence, exit code 2
├── MessageError       this message, for good   → dead letter at once
│   ├── ExpressionError    an expression met a value that it cannot handle
│   └── ScriptError        a script threw, looped, ate memory or returned nonsense
└── RetryableError     the world                → back off, keep the order
    ├── StorageFullError   no room on the disk; the door answers 503
    ├── LeaseLostError     another worker does now what only one may do
    └── ClosedError        this process is stopping

Anything else is our bug: the worker stops without committing.
Every class has a short `code`; it is the label of a metric and the `reason` of a dead letter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


class FunicularError(Exception):
    """Whatever Funicular raises on purpose; `str()` of it is a sentence for the user."""

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing wrong in one of the user's files. Lines and columns count from 1; 0 is unknown."""

    file: str
    line: int
    column: int
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        hint = f" ({self.suggestion})" if self.suggestion else ""
        return f"{place}: {self.message}{hint}"


class ConfigError(FunicularError):
    """The user's files are wrong; `faults` has every fault found, sorted by place."""

    code = "config"

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = sorted(faults)
        super().__init__("\n".join(map(str, self.faults)))


class UsageError(FunicularError):
    """The user's command or setting is wrong; says what to do instead."""

    code = "usage"


class MessageError(FunicularError):
    """This message is bad and stays bad, whoever tries it again.

    `detail` is JSON that helps whoever mends it: script, line, column, field, limit.
    """

    code = "message"

    def __init__(self, message: str, *, code: str | None = None, **detail: Any) -> None:
        super().__init__(message, code=code)
        self.detail: dict[str, Any] = detail


class ExpressionError(MessageError):
    """An expression failed on this message (no such key, wrong types, over a limit)."""

    code = "expression"


class ScriptError(MessageError):
    """A script failed on this message; `detail` has script, line, and column where known."""

    code = "script"


class RetryableError(FunicularError):
    """The world is at fault: try again after `retry_after_s` seconds (None: caller's choice)."""

    code = "retryable"

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.retry_after_s = retry_after_s


class StorageFullError(RetryableError):
    """The log could not be written: no room on the disk, or its size limit is reached."""

    code = "storage_full"


class LeaseLostError(RetryableError):
    """What must run in one place runs at another worker now; nothing was written."""

    code = "lease_lost"


class ClosedError(RetryableError):
    """This process is stopping and takes no more work."""

    code = "closed"
