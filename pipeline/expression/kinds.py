"""The kinds of values that expressions work on, and how Python carries them.

int       int      | bytes      bytes
uint      UInt     | list       list (tuple is read)
double    float    | map        dict (any Mapping is read)
bool      bool     | timestamp  datetime with a time zone
string    str      | duration   timedelta
null      None     | type       Kind
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
UINT_MAX = 2**64 - 1


class UInt(int):
    """An unsigned number of an expression (`7u`); it leaves the expression as a plain int."""

    __slots__ = ()


class Kind:
    """A type as a value: what `type(x)` gives; equal only to itself. It leaves as its name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


# The names that an expression can write for a type, and the short names that faults use.
KINDS = {
    name: Kind(name)
    for name in (
        "bool",
        "bytes",
        "double",
        "google.protobuf.Duration",
        "google.protobuf.Timestamp",
        "int",
        "list",
        "map",
        "null_type",
        "string",
        "type",
        "uint",
    )
}
_SHORT = {
    "google.protobuf.Duration": "duration",
    "google.protobuf.Timestamp": "timestamp",
    "null_type": "null",
}
_OF_PYTHON: dict[type, Kind] = {
    bool: KINDS["bool"],
    bytes: KINDS["bytes"],
    float: KINDS["double"],
    timedelta: KINDS["google.protobuf.Duration"],
    datetime: KINDS["google.protobuf.Timestamp"],
    int: KINDS["int"],
    list: KINDS["list"],
    tuple: KINDS["list"],
    dict: KINDS["map"],
    type(None): KINDS["null_type"],
    str: KINDS["string"],
    Kind: KINDS["type"],
    UInt: KINDS["uint"],
}
NUMBERS = frozenset({int, float, UInt})
WHOLE = frozenset({int, UInt})
CONTAINERS = frozenset({list, dict, tuple})


def kind_of(value: Any) -> Kind | None:
    """Return the type of a value; None for a Python object that no expression knows."""
    kind = _OF_PYTHON.get(type(value))
    if kind is None and isinstance(value, Mapping):
        return KINDS["map"]
    return kind


def kind_name(value: Any) -> str:
    """Return the short name of a value's type, for messages to the user."""
    kind = kind_of(value)
    return "unknown" if kind is None else _SHORT.get(kind.name, kind.name)


class Failure(Exception):  # noqa: N818 - it is CEL's word for a value; && and || may absorb it
    """An error in CEL's sense: it makes its expression fail unless `&&` or `||` decide without it.

    `offset` is the place in the source, -1 until known. Where Python's own error stands for one of
    CEL's, `python` is its class and the message is empty until somebody asks.
    """

    def __init__(
        self, message: str, offset: int = -1, python: type[Exception] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.python = python


class OverLimit(Exception):  # noqa: N818 - nothing may absorb it, so it is no Failure
    """The evaluation is over one of its limits; `limit` is the name of it."""

    def __init__(self, message: str, limit: str) -> None:
        super().__init__(message)
        self.message = message
        self.limit = limit


# [steps left, size left] of one evaluation; operators take from it.
Budget = list[int]


def spend_steps(budget: Budget, steps: int) -> None:
    """Take `steps`, or raise `OverLimit`."""
    budget[0] -= steps
    if budget[0] < 0:
        raise OverLimit("the expression takes too many steps", "steps_max")


def spend_size(budget: Budget, size: int) -> None:
    """Take `size`, or raise `OverLimit`."""
    budget[1] -= size
    if budget[1] < 0:
        raise OverLimit("the expression makes values that are too large", "size_max")
