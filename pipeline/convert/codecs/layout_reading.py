"""Fields of a layout → functions that read them out of a payload, compiled once. Not a codec."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.convert.codecs.codec import FIELDS_MAX, bad
from pipeline.convert.codecs.layout_config import Bits, Endianness, FieldConfig
from pipeline.errors import MessageError

FLOATS = {16: "e", 32: "f", 64: "d"}


class Reading:
    """Where the reading of one payload stands."""

    __slots__ = ("at", "budget", "payload", "warnings")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.at = 0
        self.budget = FIELDS_MAX
        self.warnings: list[str] = []

    def take(self, field: FieldConfig, size: int) -> bytes:
        """Return the bytes of a field, and stand behind them. Short: the payload ends before."""
        payload = self.payload
        at = self.at
        if field.offset is not None:
            at = field.offset if field.offset >= 0 else len(payload) + field.offset
        if at < 0 or at + size > len(payload):
            what = f"`{field.name}`" if field.name else "a field"
            raise Short(
                f"the payload has {len(payload)} bytes; {what} is at byte {max(at, 0)} and has"
                f" {size}",
                code="codec",
                offset=at,
            )
        self.at = at + size
        return payload[at : at + size]


class Short(MessageError):  # noqa: N818 - says what happened, as MessageErrors do
    """The payload ends before a field."""


Read = Callable[[Reading, dict[str, Any]], None]


def reader(field: FieldConfig, endianness: Endianness) -> Read:
    """Return the function that reads a field into the data."""
    read = _plain_reader(field, field.endianness or endianness)
    if not field.optional:
        return read

    def optional(reading: Reading, data: dict[str, Any]) -> None:
        try:
            read(reading, data)
        except Short:
            reading.at = len(reading.payload)

    return optional


def _plain_reader(field: FieldConfig, endianness: Endianness) -> Read:
    if field.skip is not None:
        skip = field.skip

        def passed(reading: Reading, _data: dict[str, Any]) -> None:
            reading.take(field, skip)

        return passed
    if field.repeat is not None:
        return _group_reader(field, endianness)
    if field.bits is not None:
        return _bits_reader(field, field.bits, endianness)
    size, value_of = _value_reader(field, endianness)
    name = field.name

    def one(reading: Reading, data: dict[str, Any]) -> None:
        wanted = len(reading.payload) - reading.at if size is None else size
        value = value_of(reading.take(field, wanted), reading)
        if name is not None and value is not None:
            data[name] = value

    return one


def _value_reader(
    field: FieldConfig, endianness: Endianness
) -> tuple[int | None, Callable[[bytes, Reading], Any]]:
    """Return how many bytes a value has (None: all that are left), and what reads it."""
    kind = field.type or ""
    if kind in ("hex", "text", "base64"):
        size = field.length if isinstance(field.length, int) else None
        return size, {"hex": _read_hex, "text": _read_text, "base64": _read_base64}[kind]
    if kind == "bool":
        return 1, lambda raw, _reading: raw != b"\0"
    if kind.startswith("float"):
        width = int(kind.removeprefix("float"))
        unpack = struct.Struct((">" if endianness == "big" else "<") + FLOATS[width]).unpack
        scaled = _scaling(field.scale, field.plus)

        def floating(raw: bytes, reading: Reading) -> Any:
            (value,) = unpack(raw)
            if value - value != 0:  # NaN and infinite: JSON has no word for them
                reading.warnings.append(f"`{field.name}` is {value}, and left out")
                return None
            return scaled(value)

        return width // 8, floating
    size, signed = whole_number(kind)
    missing = field.missing
    absent = frozenset([missing] if isinstance(missing, int) else missing or ())
    made = _meaning(field.name, field.scale, field.plus, field.enum)

    def whole(raw: bytes, reading: Reading) -> Any:
        value = int.from_bytes(raw, endianness, signed=signed)
        return None if value in absent else made(value, reading)

    return size, whole


def _group_reader(field: FieldConfig, endianness: Endianness) -> Read:
    name = field.name or ""
    readers = [reader(each, endianness) for each in field.fields or ()]
    repeat = field.repeat

    def group(reading: Reading, data: dict[str, Any]) -> None:
        if field.offset is not None:
            reading.take(field, 0)
        count = repeat if isinstance(repeat, int) else None
        if isinstance(repeat, str) and repeat != "rest":
            count = data.get(repeat)
            if not isinstance(count, int) or not 0 <= count <= FIELDS_MAX:
                raise bad(f"`{repeat}` is {count}, which is no number of `{name}`", field=repeat)
        items: list[dict[str, Any]] = []
        while len(items) < count if count is not None else reading.at < len(reading.payload):
            before = reading.at
            item: dict[str, Any] = {}
            for read in readers:
                reading.budget -= 1
                read(reading, item)
            if reading.budget < 0:
                raise bad(f"the payload has more than {FIELDS_MAX} values", field=name)
            if count is None and reading.at <= before:
                raise bad(f"`{name}` takes no bytes, so it would repeat without end", field=name)
            items.append(item)
        data[name] = items

    return group


def _bits_reader(field: FieldConfig, bits: list[Bits], endianness: Endianness) -> Read:
    size, _ = whole_number(field.type or "")
    parts = [
        (each.name, each.at, (1 << each.size) - 1,
         _meaning(each.name, each.scale, each.plus, each.enum)
         if each.size > 1 or each.enum or each.scale is not None else None)
        for each in bits
    ]  # fmt: skip

    def read(reading: Reading, data: dict[str, Any]) -> None:
        number = int.from_bytes(reading.take(field, size), endianness)
        for name, at, mask, made in parts:
            value = number >> at & mask
            data[name] = bool(value) if made is None else made(value, reading)

    return read


def whole_number(kind: str) -> tuple[int, bool]:
    """Return how many bytes a type of whole numbers has, and whether it has a sign."""
    return int(kind.lstrip("uint")) // 8, kind[0] == "i"


def _scaling(scale: float | None, plus: float) -> Callable[[Any], Any]:
    """Return value * scale + plus. By 0.1 means divided by 10: 215 is 21.5, not 21.500000000000004;
    what is added is rounded likewise, to the 12 digits that people write.
    """
    if scale is None or scale == 1:
        if plus == 0:
            return lambda value: value
        return lambda value: float(f"{value + plus:.12g}") if plus % 1 else value + int(plus)
    inverse = 1 / scale
    whole = round(inverse)
    divides = whole != 0 and abs(inverse - whole) < 1e-9 * abs(whole)
    if plus == 0:
        if divides:
            return lambda value: value / whole
        return lambda value: float(f"{value * scale:.12g}")
    if divides:
        return lambda value: float(f"{value / whole + plus:.12g}")
    return lambda value: float(f"{value * scale + plus:.12g}")


def _meaning(
    name: str | None, scale: float | None, plus: float, enum: Mapping[int, Any] | None
) -> Callable[[int, Reading], Any]:
    if enum is not None:

        def word(value: int, reading: Reading) -> Any:
            if value in enum:
                return enum[value]
            reading.warnings.append(f"`{name}` is {value}, for which there is no word")
            return value

        return word
    scaled = _scaling(scale, plus)
    return lambda value, _reading: scaled(value)


def _read_hex(raw: bytes, _reading: Reading) -> str:
    return raw.hex()


def _read_text(raw: bytes, _reading: Reading) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _read_base64(raw: bytes, _reading: Reading) -> str:
    return b64encode(raw).decode()
