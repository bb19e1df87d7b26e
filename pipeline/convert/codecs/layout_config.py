"""What a user writes of `codec: layout`: messages, told apart by port and by a value inside, and
their fields in order.

    codec: layout
    uplink:
      - f_port: 1
        fields:
          - {name: temperature, type: int16, scale: 0.1, missing: -32768}
          - {type: uint8, bits: [{name: open, at: 0}, {name: level, at: 1, size: 3}]}
          - {name: mode, type: uint8, enum: {0: "off", 1: heat}}
          - {skip: 2}
          - {name: samples, repeat: rest, fields: [{name: t, type: uint8}]}
    downlink:
      - f_port: 10
        fields: [{type: uint8, value: 1}, {name: target, type: int16, scale: 0.1}]
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.part import Part

Endianness = Literal["big", "little"]
Port = Annotated[int, Field(ge=0, le=255)]
_TYPE = re.compile(r"(u?int)(8|16|24|32|40|48|56|64)|float(16|32|64)|bool|hex|text|base64")
_NAMED = re.compile(r"[^\s.\[\]]{1,100}")
FIELDS_DEPTH_MAX = 4
"""Levels of repeated groups."""


def _checked_name(name: str | None) -> str | None:
    if name is not None and not _NAMED.fullmatch(name):
        raise ValueError("a name has 1 to 100 characters, without spaces, dots and brackets")
    return name


class Bits(Part):
    """Some bits of a whole number, counted from the lowest, which is 0."""

    name: str
    at: Annotated[int, Field(ge=0, le=63)]
    size: Annotated[int, Field(ge=1, le=64, description="how many; of one bit, true or false")] = 1
    scale: float | None = None
    plus: float = 0
    enum: dict[int, Any] | None = None
    default: Any = None

    _name = field_validator("name")(_checked_name)


class Where(Part):
    """A value inside of the payload that tells the message."""

    offset: Annotated[int, Field(ge=0, le=65_535)] = 0
    type: str = "uint8"
    equals: int

    @field_validator("type")
    @classmethod
    def _whole(cls, value: str) -> str:
        if not re.fullmatch(r"u?int(8|16|24|32|40|48|56|64)", value):
            raise ValueError("must be a type of whole numbers, like `uint8`")
        return value


class FieldConfig(Part):
    """One field: a value, some bytes to skip, bits of a number, or a repeated group."""

    name: str | None = None
    type: Annotated[
        str | None,
        Field(description="int8 … int64, uint8 … uint64, float16, float32, float64, bool, hex,"
              " text, base64"),
    ] = None  # fmt: skip
    endianness: Endianness | None = None
    offset: Annotated[
        int | None,
        Field(ge=-65_535, le=65_535, description="where it stands; negative: from the end"),
    ] = None
    length: Annotated[
        int | Literal["rest"] | None, Field(description="bytes of hex, text and base64")
    ] = None
    scale: Annotated[float | None, Field(description="the number is multiplied with it")] = None
    plus: Annotated[float, Field(description="then this is added")] = 0
    enum: Annotated[dict[int, Any] | None, Field(description="words for numbers")] = None
    missing: Annotated[
        int | list[int] | None, Field(description="the number that says: there is no value")
    ] = None
    bits: list[Bits] | None = None
    skip: Annotated[int | None, Field(ge=1, le=65_535, description="bytes to pass over")] = None
    repeat: Annotated[
        int | str | None,
        Field(description="how often: a number, `rest`, or the name of a field before it"),
    ] = None
    fields: list[FieldConfig] | None = None
    optional: Annotated[
        bool, Field(description="left out, with all after it, where the payload ends before it")
    ] = False
    value: Annotated[int | None, Field(description="always this, in a downlink")] = None
    default: Annotated[Any, Field(description="of a downlink's field that the rule leaves out")] = (
        None
    )

    _name = field_validator("name")(_checked_name)

    @model_validator(mode="after")
    def _one_kind(self) -> FieldConfig:
        kinds = [
            self.skip is not None,
            self.repeat is not None,
            self.type is not None,
        ]
        if sum(kinds) != 1:
            raise ValueError("needs one of `type`, `skip` and `repeat`")
        if self.repeat is not None and (not self.name or not self.fields):
            raise ValueError("a repeated group needs `name` and `fields`")
        if self.type is not None:
            self._check_type(self.type)
        return self

    def _check_type(self, kind: str) -> None:
        if not _TYPE.fullmatch(kind):
            raise ValueError(
                f"`{kind}` is no type; there are int8 … int64, uint8 … uint64, float16, float32,"
                " float64, bool, hex, text, base64"
            )
        self._check_bits(kind)
        if kind in ("hex", "text", "base64"):
            if self.length is None:
                raise ValueError(f"`{kind}` needs a `length`: a number of bytes, or `rest`")
            if isinstance(self.length, int) and not 1 <= self.length <= 65_535:
                raise ValueError("`length` must be from 1 to 65535")
        elif self.length is not None:
            raise ValueError(f"`length` is for hex, text and base64, not for {kind}")
        if "int" not in kind and (self.enum is not None or self.value is not None):
            raise ValueError("`enum` and `value` are for whole numbers")
        if self.scale == 0:
            raise ValueError("`scale` must not be 0")

    def _check_bits(self, kind: str) -> None:
        if self.bits is None:
            if self.name is None and self.value is None:
                raise ValueError("needs a `name`; to pass over bytes, write `skip: 1`")
            return
        if "int" not in kind or self.name is not None:
            raise ValueError("`bits` are of a whole number that has no name of its own")
        width = int(re.sub(r"\D", "", kind))
        for each in self.bits:
            if each.at + each.size > width:
                raise ValueError(f"the bits of `{each.name}` are not within {kind}")


class MessageConfig(Part):
    """One kind of message. The first one that fits a payload is taken."""

    f_port: Annotated[
        Port | list[Port] | None, Field(description="the ports it comes on; any, if left out")
    ] = None
    where: Annotated[Where | None, Field(description="a value that it has at a place")] = None
    fields: Annotated[list[FieldConfig], Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _bounded(self) -> MessageConfig:
        _check_depth(self.fields, 1)
        return self

    @property
    def ports(self) -> frozenset[int] | None:
        """The ports, None: any."""
        if self.f_port is None:
            return None
        return frozenset([self.f_port] if isinstance(self.f_port, int) else self.f_port)


def _check_depth(fields: list[FieldConfig], depth: int) -> None:
    if depth > FIELDS_DEPTH_MAX:
        raise ValueError(f"groups are nested deeper than {FIELDS_DEPTH_MAX} levels")
    names: set[str] = set()
    for field in fields:
        if field.repeat is not None and isinstance(field.repeat, str):
            if field.repeat != "rest" and field.repeat not in names:
                raise ValueError(
                    f"`repeat: {field.repeat}` names no field before it; write a number or `rest`"
                )
        elif field.repeat is not None and not 1 <= field.repeat <= 1000:
            raise ValueError("`repeat` must be from 1 to 1000")
        names.update(each.name for each in field.bits or ())
        if field.name:
            names.add(field.name)
        if field.fields:
            _check_depth(field.fields, depth + 1)
