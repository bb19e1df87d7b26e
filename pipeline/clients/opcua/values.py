"""Values of OPC-UA ↔ JSON: what a node said, and what it is to be told, by its own data type."""

from __future__ import annotations

import dataclasses
import math
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from datetime import UTC, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
from asyncua import ua

from pipeline.errors import MessageError
from pipeline.integrations.document import bad_field, rfc3339
from pipeline.integrations.opcua import GOOD, Value

DEPTH_MAX = 32
ELEMENTS_MAX = 100_000  # of an array that is to be written
_CODE = 0xFFFF0000  # of a status; below are bits that tell more of a value
_OVERFLOW = 0x0480  # «the server's queue was full»: the kind of the bits, and the bit
_NOT_A_NUMBER = "NaN"
_INFINITE = "Infinite"
_TOO_DEEP = "BadEncodingLimitsExceeded"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_T = ua.VariantType
_WHOLE = {
    _T.SByte: (-(2**7), 2**7 - 1),
    _T.Byte: (0, 2**8 - 1),
    _T.Int16: (-(2**15), 2**15 - 1),
    _T.UInt16: (0, 2**16 - 1),
    _T.Int32: (-(2**31), 2**31 - 1),
    _T.UInt32: (0, 2**32 - 1),
    _T.Int64: (-(2**63), 2**63 - 1),
    _T.UInt64: (0, 2**64 - 1),
}
_FLOAT_MAX = 3.4028234663852886e38  # of 32 bits


def value_of(field: str, node: str, said: ua.DataValue) -> Value:
    """Return what a node said, as the dialect reads it."""
    status = name_of(said.StatusCode)
    variant = said.Value
    value: Any = None
    kind = ""
    if variant is not None and variant.VariantType is not None:
        kind = variant.VariantType.name
        try:
            value = plain(variant.Value)
        except RecursionError:
            status = _TOO_DEEP
    if isinstance(value, float) and not math.isfinite(value):
        status = status if status != GOOD else _NOT_A_NUMBER if math.isnan(value) else _INFINITE
        value = None
    time = time_of(said)
    return Value(field, value, kind, None if time is None else milliseconds(time), status, node)


def time_of(said: ua.DataValue) -> datetime | None:
    """Return the source's time, or the server's where the source says none."""
    time = said.SourceTimestamp or said.ServerTimestamp
    if time is None:
        return None
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return time if time > _EPOCH else None  # a clock that was never set


def milliseconds(time: datetime) -> int:
    """Return epoch milliseconds."""
    return round((time - _EPOCH).total_seconds() * 1_000)


def name_of(status: ua.StatusCode | None) -> str:
    """Return a status code's name."""
    code = (status.value if status is not None else 0) & _CODE
    return GOOD if code == 0 else str(ua.status_codes.get_name_and_doc(code)[0])


def overflowed(said: ua.DataValue) -> bool:
    """Return whether the server's queue was full: values before this one are gone."""
    status = said.StatusCode
    return status is not None and status.value & _OVERFLOW == _OVERFLOW


def plain(value: Any, depth: int = 0) -> Any:
    """Return JSON of a value; numbers that JSON has not stay as they are on the first level.
    RecursionError: it is nested more than DEPTH_MAX deep.
    """
    if depth > DEPTH_MAX:
        raise RecursionError
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if depth == 0 or math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [plain(each, depth + 1) for each in value]
    return _text(value, depth)


def _text(value: Any, depth: int) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, datetime):
        time = value if value.tzinfo else value.replace(tzinfo=UTC)
        return rfc3339(milliseconds(time))
    if isinstance(value, ua.LocalizedText):
        return value.Text
    if isinstance(value, ua.NodeId | ua.QualifiedName):
        return value.to_string()
    if isinstance(value, ua.StatusCode):
        return name_of(value)
    if isinstance(value, ua.Variant | ua.DataValue):
        return plain(value.Value, depth + 1)
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {each.name: plain(getattr(value, each.name), depth + 1) for each in fields}
    return str(value)  # Guid, and types of the future


def variant_of(field: str, value: Any, kind: ua.VariantType, *, array: bool) -> ua.Variant:
    """Return a JSON value as a node's data type has it. MessageError `field`: it cannot be."""
    if array != isinstance(value, list):
        raise bad_field(field, "must be a list" if array else "must be one value, not a list")
    if not array:
        return ua.Variant(_scalar(field, value, kind), kind)
    shape, flat = _flat(field, value)
    made = [_scalar(field, each, kind) for each in flat]
    if len(shape) == 1:
        return ua.Variant(made, kind, is_array=True)
    for size in reversed(shape[1:]):
        made = [made[at : at + size] for at in range(0, len(made), size)] if size else []
    return ua.Variant(made, kind, Dimensions=shape, is_array=True)


def _flat(field: str, value: list[Any]) -> tuple[list[int], list[Any]]:
    """Return the shape of nested lists, and what is in them."""
    shape, level = [len(value)], value
    while level and all(isinstance(each, list) for each in level):
        sizes = {len(each) for each in level}
        if len(sizes) != 1:
            raise bad_field(field, "must have rows of one length")
        shape.append(sizes.pop())
        level = [inner for each in level for inner in each]
        if len(shape) > DEPTH_MAX:
            raise bad_field(field, "is nested too deep")
    if len(level) > ELEMENTS_MAX:
        raise bad_field(field, f"has more than {ELEMENTS_MAX:,} elements")
    return shape, level


def _scalar(field: str, value: Any, kind: ua.VariantType) -> Any:
    if kind in _WHOLE:
        return _whole(field, value, *_WHOLE[kind])
    if kind in (_T.Float, _T.Double):
        return _number(field, value, kind)
    if kind is _T.Boolean:
        if type(value) is not bool:
            raise bad_field(field, "must be true or false")
        return value
    if not isinstance(value, str):
        raise bad_field(field, f"must be text, as the node is a {kind.name}")
    return _of_text(field, value, kind)


def _whole(field: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not least <= value <= most:
        raise bad_field(field, f"must be a whole number from {least} to {most}")
    return value


def _number(field: str, value: Any, kind: ua.VariantType) -> float:
    if type(value) not in (int, float):
        raise bad_field(field, "must be a number")
    if kind is _T.Float and abs(value) > _FLOAT_MAX:
        raise bad_field(field, "is more than a Float of 32 bits can be")
    try:
        return float(value)
    except OverflowError:
        raise bad_field(field, "is more than a Double can be") from None


def _of_text(field: str, text: str, kind: ua.VariantType) -> Any:
    try:
        if kind is _T.String:
            return text
        if kind is _T.ByteString:
            return b64decode(text, validate=True)
        if kind is _T.DateTime:
            return msgspec.convert(text, datetime).astimezone(UTC)
        if kind is _T.Guid:
            return UUID(text)
        if kind is _T.LocalizedText:
            return ua.LocalizedText(text)
        if kind is _T.NodeId:
            return ua.NodeId.from_string(text)
    except (ValueError, Base64Error, msgspec.ValidationError, ua.UaError):
        raise bad_field(field, f"is no {kind.name}: {text[:100]!r}") from None
    raise MessageError(
        f"`{field}` is a {kind.name}, which downlinks cannot write", code="field", field=field
    )
