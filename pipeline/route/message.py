"""What chains see of a message: the scope of expressions, and the plain form that is sent on.

In: a `DeviceMessage` (never changed; nodes make new ones) and what is known of its device.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

from pipeline.errors import ExpressionError
from pipeline.model.event import DeviceMessage

ATTRIBUTES_UPDATED = "attributes_updated"
TOLD = "told"
SCOPES = ("client", "shared", "server")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Surroundings(Protocol):
    """What a scope asks of the turn that it is in."""

    tenant: str
    device: str
    now_ms: int

    def attributes(self) -> dict[str, dict[str, Any]]:
        """Return the values of each scope."""

    def relations(self) -> dict[str, dict[str, list[str]]]:
        """Return how the device relates to others."""

    def last_telemetry(self) -> dict[str, Any]:
        """Return the device's last values."""

    def known(self) -> dict[str, Any]:
        """Return the part `device` of its state."""


class Scope(dict[str, Any]):
    """The names of an expression, each made when it is first asked for."""

    __slots__ = ("_around", "_message")

    def __init__(self, message: DeviceMessage, around: Surroundings) -> None:
        self._message = message
        self._around = around
        self["metadata"] = message.metadata
        if message.type != ATTRIBUTES_UPDATED:
            self["telemetry"] = message.telemetry

    def __missing__(self, name: str) -> Any:
        value = self[name] = _MAKE[name](self._message, self._around)
        return value


def moment(time_ms: int) -> datetime:
    """Return a time in epoch milliseconds as a timestamp. ExpressionError: past the year 9999."""
    second, rest = divmod(time_ms, 1_000)
    try:
        return _second(second).replace(microsecond=rest * 1_000)
    except OverflowError as error:
        raise ExpressionError(f"{time_ms} is no time in epoch milliseconds") from error


@lru_cache(maxsize=1_024)
def _second(second: int) -> datetime:
    """Return the beginning of a second; many messages of a batch share theirs."""
    return _EPOCH + timedelta(seconds=second)


@lru_cache(maxsize=1_024)
def _second_text(second: int) -> str:
    return moment(second * 1_000).isoformat()[:19]


def time_text(time_ms: int) -> str:
    """Return a time in epoch milliseconds as RFC 3339 text in UTC."""
    second, rest = divmod(time_ms, 1_000)
    return f"{_second_text(second)}.{rest:03d}Z"


def plain(message: DeviceMessage, known: dict[str, Any]) -> dict[str, Any]:
    """Return a message as an application gets it: the default body of `send`."""
    body = {
        "id": message.id,
        "device": message.device,
        "device_type": message.device_type or known.get("type", ""),
        "integration": message.integration,
        "type": message.type,
        "time": time_text(message.time_ms),
        "telemetry": message.telemetry,
        "metadata": message.metadata,
    }
    if message.attributes:
        body["attributes"] = message.attributes
    if message.type == ATTRIBUTES_UPDATED:
        body["changed"] = message.changed
        body["previous"] = message.previous
    return body


def _telemetry(message: DeviceMessage, around: Surroundings) -> dict[str, Any]:
    """A change of attributes brings no telemetry: rules then see the device's last values."""
    return {**around.last_telemetry(), **message.telemetry}


def _device(message: DeviceMessage, around: Surroundings) -> dict[str, Any]:
    known = around.known()
    return {
        "name": message.device,
        "tenant": message.tenant,
        "integration": message.integration or known.get("integration", ""),
        "type": message.device_type or known.get("type", ""),
        "kind": known.get("kind") or message.device_kind,
        "dev_eui": message.dev_eui or known.get("dev_eui", ""),
        "customer": message.customer or known.get("customer", ""),
        "group": message.group or known.get("group", ""),
    }


def _message(message: DeviceMessage, _around: Surroundings) -> dict[str, Any]:
    return {
        "id": message.id,
        "type": message.type,
        "time": moment(message.time_ms),
        "received": moment(message.received_ms),
        "f_port": message.f_port,
        "f_cnt": message.f_cnt,
        "confirmed": message.confirmed,
        "payload": message.payload,
    }


_MAKE: dict[str, Callable[[DeviceMessage, Surroundings], Any]] = {
    "attributes": lambda _message, around: around.attributes(),
    "changed": lambda message, _around: list(message.changed),
    "device": _device,
    "message": _message,
    "now": lambda _message, around: moment(around.now_ms),
    "previous": lambda message, _around: message.previous,
    "relations": lambda _message, around: around.relations(),
    "telemetry": _telemetry,
}
