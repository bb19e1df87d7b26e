"""What a library of codecs is made of, whoever laid it out: cases, and what cannot be run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.ports import ScriptCall

TENANT = "library"
"""Whose scripts they are to the engines: one child process for all of them."""
FILE_BYTES_MAX = 4 << 20
"""Of any file; the longest codecs of public libraries have a few hundred KiB."""


@dataclass(frozen=True, slots=True)
class Case:
    """One example. `file` and `line` say where it stands; `expected` is what its codec must give.

    `whole`: `expected` is the result itself (ThingsBoard), else `{data | bytes, warnings,
    errors}`. `normalized` are the measurements that the normalizer must make of the decoded data;
    None: the example says nothing of them.
    """

    vendor: str
    name: str
    file: str
    line: int
    call: ScriptCall
    expected: Any
    whole: bool = False
    normalized: Any = None


@dataclass(frozen=True, slots=True)
class Unrunnable:
    """What looks like a test and cannot be run: where, and why."""

    vendor: str
    file: str
    reason: str


Piece = Case | Unrunnable
