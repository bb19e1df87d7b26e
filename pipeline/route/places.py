"""Places in a message, as users write them: `telemetry.temperature`, `metadata.site.name`.

In: a message and a place. Out: what stands there; or a new message with values put and removed,
since a message is never changed.
"""

from __future__ import annotations

from functools import lru_cache
from math import isfinite
from typing import Annotated, Any, NamedTuple, NoReturn

import msgspec
from pydantic import PlainValidator, WithJsonSchema

from pipeline.errors import MessageError
from pipeline.model.event import DeviceMessage
from pipeline.route.fields import FieldFault

_ROOTS = ("telemetry", "metadata")


class Path(NamedTuple):
    """A place: `root` is the message's field, `names` lead to the value inside."""

    root: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join((self.root, *self.names))


class Missing:
    """What stands at a place where nothing does."""


MISSING = Missing()


def path_of(text: Any) -> Path:
    """Return the place that a user wrote. FieldFault: it is none."""
    return _path_of(text) if type(text) is str else _no_path(text)


@lru_cache(maxsize=4_096)
def _path_of(text: str) -> Path:
    root, *names = text.split(".")
    if root not in _ROOTS or not names or not all(names):
        _no_path(text)
    return Path(root, tuple(names))


def _no_path(text: Any) -> NoReturn:
    last = str(text).rpartition(".")[2] or "name"
    raise FieldFault(
        f"`{text}` is no place in the message",
        suggestion=f"write a path like `telemetry.{last}` or `metadata.{last}`",
    )


def _pairs(value: Any) -> dict[Path, Path]:
    if not isinstance(value, dict) or not value:
        raise FieldFault("must be a mapping from place to place", suggestion="like `a.b: a.c`")
    pairs = {}
    for source, target in value.items():
        try:
            pairs[path_of(source)] = path_of(target)
        except FieldFault as fault:
            raise FieldFault(fault.message, path=(source,), suggestion=fault.suggestion) from fault
    return pairs


_PATTERN = r"^(telemetry|metadata)(\.[^.]+)+$"
_SCHEMA = {"type": "string", "pattern": _PATTERN, "description": "A place in the message."}

Place = Annotated[Path, PlainValidator(path_of), WithJsonSchema(_SCHEMA)]
"""A place in the message, under `telemetry` or `metadata`."""

PlacePairs = Annotated[
    dict[Path, Path],
    PlainValidator(_pairs),
    WithJsonSchema(
        {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": _PATTERN},
            "additionalProperties": _SCHEMA,
        }
    ),
]
"""A mapping from place to place."""


def look(message: DeviceMessage, place: Path) -> Any:
    """Return what stands at a place, `MISSING` where nothing does. It must not be changed."""
    inner: Any = getattr(message, place.root)
    for name in place.names:
        if not isinstance(inner, dict) or name not in inner:
            return MISSING
        inner = inner[name]
    return inner


def number_at(message: DeviceMessage, place: Path) -> float | Missing:
    """Return the number at a place, `MISSING` where nothing or null stands there.

    MessageError (code `number`): something else than a number does.
    """
    value = look(message, place)
    if value is MISSING or value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise MessageError(f"`{place}` is no number", code="number", path=str(place))
    return value


class Draft:
    """A message in the making: values put and removed, all on copies."""

    __slots__ = ("_changed", "_message")

    def __init__(self, message: DeviceMessage) -> None:
        self._message = message
        self._changed: dict[str, dict[str, Any]] = {}

    def put(self, place: Path, value: Any) -> None:
        """Set a value. MessageError (code `set`): the way there leads through no mapping."""
        whole = self._root(place.root)
        for name in place.names[:-1]:
            inner = whole.get(name, {})
            if not isinstance(inner, dict):
                raise MessageError(
                    f"cannot set `{place}`: `{name}` is no mapping", code="set", path=str(place)
                )
            whole[name] = inner = dict(inner)
            whole = inner
        whole[place.names[-1]] = value

    def remove(self, place: Path) -> bool:
        """Take a value out; False: there is none."""
        if look(self.message(), place) is MISSING:
            return False
        whole = self._root(place.root)
        for name in place.names[:-1]:
            whole[name] = whole = dict(whole[name])
        del whole[place.names[-1]]
        return True

    def message(self) -> DeviceMessage:
        """Return the message as it is by now; the one it began with where nothing changed."""
        if not self._changed:
            return self._message
        return msgspec.structs.replace(self._message, **self._changed)

    def _root(self, name: str) -> dict[str, Any]:
        whole = self._changed.get(name)
        if whole is None:
            whole = self._changed[name] = dict(getattr(self._message, name))
        return whole
