"""JSON to JSON by expressions: what a device or platform sends → telemetry, attributes, a name.

    codec: json_mapping
    uplink:
      each: ${payload.readings}
      device: ${payload.id}
      type: thermostat
      time: ${item.at}
      telemetry: {temperature: "${item.t / 10.0}", door: "${has(item.d) ? item.d : null}"}
      attributes: {firmware: "${payload.fw}"}
    downlink: {set: {target: "${fields.target}"}}

Expressions see `payload` (the JSON), `item` (of `each`), `metadata`, `f_port`; in a downlink
`fields` and `f_port`. A value that is null is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from pipeline.convert.codecs.codec import FIELDS_MAX, CodecConfig, Encoded, Given, bad
from pipeline.errors import MessageError
from pipeline.expression import ExpressionFault, Value, compile_value
from pipeline.integrations.document import parse
from pipeline.part import Part

_UPLINK = frozenset({"payload", "item", "metadata", "f_port"})
_DOWNLINK = frozenset({"fields", "f_port"})


def _check(names: frozenset[str]) -> AfterValidator:
    """Find the faults of a value's expressions. It stays as it was written: it is compiled again
    where it runs.
    """

    def check(value: Any) -> Any:
        try:
            compile_value(value, names=names)
        except ExpressionFault as fault:
            raise PydanticCustomError("expression", "{said}", {"said": str(fault)}) from None
        return value

    return AfterValidator(check)


_Up = Annotated[Any, _check(_UPLINK)]
_Down = Annotated[Any, _check(_DOWNLINK)]


class UplinkConfig(Part):
    """What becomes of what a device sends."""

    each: Annotated[_Up, Field(description="a list: what follows is done for each `item`")] = None
    device: _Up = None
    type: _Up = None
    customer: _Up = None
    group: _Up = None
    time: Annotated[_Up, Field(description="epoch milliseconds or seconds, or RFC 3339")] = None
    telemetry: _Up = None
    attributes: _Up = None

    @model_validator(mode="after")
    def _has_any(self) -> UplinkConfig:
        if self.telemetry is None and self.attributes is None:
            raise ValueError("needs `telemetry` or `attributes`")
        return self


class JsonMapping(CodecConfig):
    """JSON by expressions. See the module."""

    uplink: UplinkConfig | None = None
    downlink: _Down = None

    contract: ClassVar = "thingsboard"

    @model_validator(mode="after")
    def _has_any(self) -> JsonMapping:
        if self.uplink is None and self.downlink is None:
            raise ValueError("needs `uplink` or `downlink`")
        return self

    @property
    def decodes(self) -> bool:
        """See `CodecConfig`."""
        return self.uplink is not None

    @property
    def encodes(self) -> bool:
        """See `CodecConfig`."""
        return self.downlink is not None

    def build(self) -> _JsonMapping:
        """See `CodecConfig`."""
        return _JsonMapping(self)


class _JsonMapping:
    def __init__(self, config: JsonMapping) -> None:
        uplink = config.uplink
        written = {} if uplink is None else uplink.model_dump(exclude_none=True)
        each = written.pop("each", None)
        self._each = None if each is None else compile_value(each, names=_UPLINK)
        self._values = {
            name: compile_value(value, names=_UPLINK) for name, value in written.items()
        }
        self._downlink: Value | None = None
        if config.downlink is not None:
            self._downlink = compile_value(config.downlink, names=_DOWNLINK)

    def decode(self, given: Given) -> Any:
        """See `Codec`."""
        try:
            payload = parse(given.payload)
        except MessageError as fault:
            raise bad(fault.message) from None
        scope = {
            "payload": payload,
            "item": None,
            "metadata": given.metadata,
            "f_port": given.f_port,
        }
        if self._each is None:
            return self._shaped(scope)
        items = self._each(scope)
        if not isinstance(items, list):
            raise bad("`each` gives no list", field="each")
        if len(items) > FIELDS_MAX:
            raise bad(f"`each` gives {len(items)} items; at most {FIELDS_MAX} are allowed")
        return [self._shaped({**scope, "item": item}) for item in items]

    def _shaped(self, scope: Mapping[str, Any]) -> dict[str, Any]:
        values = {name: value(scope) for name, value in self._values.items()}
        telemetry = _object(values.get("telemetry"), "telemetry")
        time = values.get("time")
        shaped: dict[str, Any] = {
            "telemetry": telemetry
            if time is None
            else {"ts": _milliseconds(time), "values": telemetry}
        }
        attributes = _object(values.get("attributes"), "attributes")
        if attributes:
            shaped["attributes"] = attributes
        for name, key in (
            ("device", "deviceName"),
            ("type", "deviceType"),
            ("customer", "customerName"),
            ("group", "groupName"),
        ):
            value = values.get(name)
            if value is not None:
                shaped[key] = str(value)
        return shaped

    def encode(self, fields: Mapping[str, Any], f_port: int | None) -> Encoded:
        """See `Codec`. The payload is JSON."""
        if self._downlink is None:
            raise bad("the codec has no `downlink`")
        made = self._downlink({"fields": fields, "f_port": f_port})
        if isinstance(made, dict):
            made = {key: value for key, value in made.items() if value is not None}
        try:
            return Encoded(orjson.dumps(made), f_port, text=True)
        except orjson.JSONEncodeError as fault:
            raise bad(f"the downlink is no JSON: {fault}") from None


def _object(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad(f"`{name}` gives no object", field=name)
    return {key: item for key, item in value.items() if item is not None}


def _milliseconds(time: Any) -> int:
    """Return epoch milliseconds; a number below the year 5138 in seconds counts seconds."""
    if isinstance(time, str):
        try:
            at = datetime.fromisoformat(time)
        except ValueError:
            raise bad(
                f"`time` is {time!r}, which is no time as in RFC 3339", field="time"
            ) from None
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    if isinstance(time, bool) or not isinstance(time, int | float) or time - time != 0 or time < 0:
        raise bad("`time` is neither a number nor text", field="time")
    return round(time if time >= 1e11 else time * 1000)


CODEC = JsonMapping
