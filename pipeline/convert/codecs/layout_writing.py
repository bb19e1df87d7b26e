"""Fields of a layout, and values → the bytes of a downlink. Not a codec by itself."""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from pipeline.convert.codecs.codec import bad
from pipeline.convert.codecs.layout_config import Bits, Endianness, FieldConfig
from pipeline.convert.codecs.layout_reading import FLOATS, whole_number


def required(fields: list[FieldConfig]) -> list[str]:
    """Return the names that a rule must give: of fields with neither a value nor a default."""
    names = []
    for field in fields:
        names += [part.name for part in field.bits or () if part.default is None]
        if field.name and field.value is None and field.default is None and not field.optional:
            names.append(field.name)
    return names


def write(
    field: FieldConfig,
    values: Mapping[str, Any],
    payload: bytearray,
    used: set[str],
    endianness: Endianness,
) -> None:
    """Append one field's bytes, or put them to its place; `used` gathers the names."""
    order = field.endianness or endianness
    if field.name:
        used.add(field.name)
    if field.skip is not None:
        raw = bytes(field.skip)
    elif field.repeat is not None:
        raw = _group_bytes(field, values, endianness)
    elif field.bits is not None:
        used.update(each.name for each in field.bits)
        raw = _bits_bytes(field, field.bits, values, order)
    elif field.value is not None:
        raw = _number_bytes(field.name or "value", field.type or "", field.value, order)
    else:
        name = field.name or ""
        value = values.get(name, field.default)
        if value is None:
            return  # optional, and not given
        raw = _value_bytes(field, name, value, order)
    at = len(payload) if field.offset is None else field.offset
    if at < 0:
        raise bad(f"`{field.name}`: a downlink has no end to count from", field=field.name)
    if at > len(payload):
        payload.extend(bytes(at - len(payload)))
    payload[at : at + len(raw)] = raw


def _group_bytes(field: FieldConfig, values: Mapping[str, Any], endianness: Endianness) -> bytes:
    name = field.name or ""
    items = values.get(name, field.default)
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise bad(f"`{name}` must be a list of objects", field=name)
    wanted = field.repeat if isinstance(field.repeat, int) else None
    if isinstance(field.repeat, str) and field.repeat != "rest":
        wanted = values.get(field.repeat)
    if wanted is not None and len(items) != wanted:
        raise bad(f"`{name}` has {len(items)} entries; it must have {wanted}", field=name)
    payload = bytearray()
    for index, item in enumerate(items):
        for each in field.fields or ():
            if each.name and each.value is None and each.default is None and each.name not in item:
                raise bad(f"`{name}[{index}].{each.name}` is missing", field=each.name)
            write(each, item, payload, set(), endianness)
    return bytes(payload)


def _bits_bytes(
    field: FieldConfig, bits: list[Bits], values: Mapping[str, Any], endianness: Endianness
) -> bytes:
    number = 0
    for each in bits:
        value = values.get(each.name, each.default)
        whole = _units(each.name, value, each.scale, each.plus, each.enum)
        if not 0 <= whole < 1 << each.size:
            raise bad(f"`{each.name}` is {value}, which does not fit {each.size} bits")
        number |= whole << each.at
    size, _ = whole_number(field.type or "")
    return number.to_bytes(size, endianness)


def _value_bytes(field: FieldConfig, name: str, value: Any, endianness: Endianness) -> bytes:
    kind = field.type or ""
    if kind in ("hex", "text", "base64"):
        return _text_bytes(field, name, value)
    if kind == "bool":
        return b"\1" if _units(name, value, None, 0, None) else b"\0"
    if kind.startswith("float"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise bad(f"`{name}` must be a number", field=name)
        form = (">" if endianness == "big" else "<") + FLOATS[int(kind.removeprefix("float"))]
        try:
            return struct.pack(form, (value - field.plus) / (field.scale or 1))
        except OverflowError:
            raise bad(f"`{name}` is {value}, which does not fit {kind}", field=name) from None
    units = _units(name, value, field.scale, field.plus, field.enum)
    return _number_bytes(name, kind, units, endianness, shown=value)


def _text_bytes(field: FieldConfig, name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise bad(f"`{name}` must be text", field=name)
    try:
        if field.type == "hex":
            raw = bytes.fromhex(value)
        elif field.type == "base64":
            raw = b64decode(value, validate=True)
        else:
            raw = value.encode()
    except ValueError:
        raise bad(f"`{name}` is not {field.type}", field=name) from None
    if isinstance(field.length, int):
        if len(raw) > field.length:
            raise bad(f"`{name}` has {len(raw)} bytes; it may have {field.length}", field=name)
        raw = raw.ljust(field.length, b"\0")
    return raw


def _units(
    name: str, value: Any, scale: float | None, plus: float, enum: Mapping[int, Any] | None
) -> int:
    """Return the whole number that stands for a value."""
    if enum is not None:
        for number, word in enum.items():
            if word == value and type(word) is type(value):
                return number
        if not isinstance(value, int) or isinstance(value, bool):
            listed = ", ".join(map(str, enum.values()))
            raise bad(f"`{name}` is {value!r}; it may be {listed}", field=name)
        return value
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, int | float) or value - value != 0:
        raise bad(f"`{name}` must be a number", field=name)
    return round((value - plus) / (scale or 1))


def _number_bytes(
    name: str, kind: str, units: int, endianness: Endianness, *, shown: Any = None
) -> bytes:
    size, signed = whole_number(kind)
    try:
        return units.to_bytes(size, endianness, signed=signed)
    except OverflowError:
        value = units if shown is None else shown
        raise bad(f"`{name}` is {value}, which does not fit {kind}", field=name) from None
