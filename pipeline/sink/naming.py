"""Names with placeholders, as topics, routing keys and object names: `sensors/{device}`.

In: a text of a sink's YAML, a delivery. Out: the name. What is filled in is escaped as the
transport says, so that a device's name cannot lead to another's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pipeline.errors import MessageError
from pipeline.model.delivery import Delivery
from pipeline.sink.formats.shaped import origin_of

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_ORIGIN = ("type", "integration", "device_type", "application_id", "device_id", "dev_eui")
NAMES = ("device", "tenant", "sink", *_ORIGIN)
"""What may stand in braces: of the delivery, and of where its body came from."""

Escape = Callable[[str], str]


def check_name(text: str, *, known: Iterable[str] = NAMES) -> str:
    """Return the text. ValueError: it has a placeholder that is not known."""
    known = tuple(known)
    for name in _PLACEHOLDER.findall(text):
        if name not in known:
            listed = ", ".join(f"{{{each}}}" for each in known)
            raise ValueError(f"{{{name}}} is not known here; there are {listed}")
    if "{" in _PLACEHOLDER.sub("", text) or "}" in _PLACEHOLDER.sub("", text):
        raise ValueError("a brace has no other half")
    return text


def percent_encoder(reserved: str) -> Escape:
    """Return an escape that writes `%` and the reserved characters as `%2F` and the like."""
    table = {ord(sign): f"%{ord(sign):02X}" for sign in {*reserved, "%", "\0"}}

    def escape(value: str) -> str:
        return value.translate(table)

    return escape


class Name:
    """A name that was checked; `fixed` where it is the same for all deliveries."""

    __slots__ = ("_escape", "_parts", "_text", "fixed")

    def __init__(self, text: str, escape: Escape) -> None:
        self._text = text
        self._escape = escape
        self._parts = _PLACEHOLDER.split(text)
        self.fixed = len(self._parts) == 1

    def __call__(self, delivery: Delivery) -> str:
        """Return the name. MessageError (`name`): what is to be filled in is empty."""
        if self.fixed:
            return self._text
        made = list(self._parts)
        for place in range(1, len(made), 2):
            value = _value(made[place], delivery)
            if not value:
                raise MessageError(
                    f"`{self._text}` cannot be filled in: the message has no {made[place]}",
                    code="name",
                    field=made[place],
                )
            made[place] = self._escape(value)
        return "".join(made)


def _value(name: str, delivery: Delivery) -> str:
    if name == "device":
        return delivery.device
    if name == "tenant":
        return delivery.tenant
    if name == "sink":
        return delivery.destination
    value: str = getattr(origin_of(delivery), name)
    return value
