"""CayenneLPP, both ways: `03 67 01 10` ⇄ `{"temperature_3": 27.2}`.

Types and scales: the format's document (docs.mydevices.com) and the wider list of its libraries;
names: The Things Stack's, `<type>_<channel>`. `value_<channel>` is the format's downlink to an
actuator: channel, then hundredths as 16 bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field

from pipeline.convert.codecs.codec import CodecConfig, Encoded, Given, bad


class _Type:
    """One type: its number, and its parts of `size` bytes, in units of 1 / `divisor`."""

    __slots__ = ("divisors", "name", "names", "number", "signed", "size", "whole")

    def __init__(
        self,
        number: int,
        name: str,
        size: int,
        divisors: tuple[int, ...] = (1,),
        *,
        signed: bool = False,
        names: tuple[str, ...] = (),
    ) -> None:
        self.number = number
        self.name = name
        self.size = size
        self.divisors = divisors
        self.signed = signed
        self.names = names
        self.whole = size * len(divisors)

    def read(self, payload: bytes, at: int) -> Any:
        values = []
        for divisor in self.divisors:
            value = int.from_bytes(payload[at : at + self.size], "big", signed=self.signed)
            values.append(value if divisor == 1 else value / divisor)
            at += self.size
        return dict(zip(self.names, values, strict=True)) if self.names else values[0]

    def write(self, key: str, value: Any) -> bytes:
        if self.names:
            if not isinstance(value, Mapping):
                raise bad(f"`{key}` must be an object with {', '.join(self.names)}", field=key)
            values = [value.get(name) for name in self.names]
        else:
            values = [value]
        written = b""
        for each, divisor in zip(values, self.divisors, strict=True):
            written += _number(key, each, divisor, self.size, signed=self.signed)
        return written


def _number(key: str, value: Any, divisor: int, size: int, *, signed: bool) -> bytes:
    if isinstance(value, bool):
        value = int(value)
    if not isinstance(value, int | float) or value != value or abs(value) > 1e12:  # noqa: PLR0124 - NaN
        raise bad(f"`{key}` must be a number", field=key)
    units = round(value * divisor)
    try:
        return units.to_bytes(size, "big", signed=signed)
    except OverflowError:
        low = -(1 << 8 * size - 1) if signed else 0
        high = (1 << 8 * size - signed) - 1
        raise bad(
            f"`{key}` is {value}; it must be from {low / divisor:g} to {high / divisor:g}",
            field=key,
        ) from None


_XYZ = ("x", "y", "z")
_TYPES = (
    _Type(0, "digital_in", 1),
    _Type(1, "digital_out", 1),
    _Type(2, "analog_in", 2, (100,), signed=True),
    _Type(3, "analog_out", 2, (100,), signed=True),
    _Type(100, "generic_sensor", 4),
    _Type(101, "luminosity", 2),
    _Type(102, "presence", 1),
    _Type(103, "temperature", 2, (10,), signed=True),
    _Type(104, "relative_humidity", 1, (2,)),
    _Type(113, "accelerometer", 2, (1000,) * 3, signed=True, names=_XYZ),
    _Type(115, "barometric_pressure", 2, (10,)),
    _Type(116, "voltage", 2, (100,)),
    _Type(117, "current", 2, (1000,)),
    _Type(118, "frequency", 4),
    _Type(120, "percentage", 1),
    _Type(121, "altitude", 2, signed=True),
    _Type(122, "load", 3, (1000,), signed=True),
    _Type(125, "concentration", 2),
    _Type(128, "power", 2),
    _Type(130, "distance", 4, (1000,)),
    _Type(131, "energy", 4, (1000,)),
    _Type(132, "direction", 2),
    _Type(133, "unix_time", 4),
    _Type(134, "gyrometer", 2, (100,) * 3, signed=True, names=_XYZ),
    _Type(135, "colour", 1, (1, 1, 1), names=("r", "g", "b")),
    _Type(136, "gps", 3, (10_000, 10_000, 100), signed=True,
          names=("latitude", "longitude", "altitude")),
    _Type(142, "switch", 1),
)  # fmt: skip
_BY_NUMBER = {each.number: each for each in _TYPES}
_BY_NAME = {each.name: each for each in _TYPES}
_KEY = re.compile(r"([a-z_]+)_(\d{1,3})")


class CayenneLpp(CodecConfig):
    """Cayenne's low-power payload.

    codec: cayenne_lpp
    names: {temperature_3: water}
    """

    names: Annotated[
        dict[str, str],
        Field(default_factory=dict, description="other names for values: `temperature_3: water`"),
    ]
    f_port: Annotated[
        int | None, Field(ge=1, le=223, description="of downlinks whose rule names none")
    ] = None

    contract: ClassVar = "lorawan"

    def build(self) -> _CayenneLpp:
        """See `CodecConfig`."""
        return _CayenneLpp(self.names, self.f_port)


class _CayenneLpp:
    def __init__(self, names: Mapping[str, str], f_port: int | None) -> None:
        self._names = dict(names)
        self._keys = {name: key for key, name in names.items()}
        self._f_port = f_port

    def decode(self, given: Given) -> dict[str, Any]:
        """See `Codec`. A value that comes twice for one channel is the last one's."""
        payload = given.payload
        data: dict[str, Any] = {}
        at, end = 0, len(payload)
        while at < end:
            if at + 2 > end:
                raise bad(f"byte {at} is left over: a value has a channel and a type", offset=at)
            channel, number = payload[at], payload[at + 1]
            kind = _BY_NUMBER.get(number)
            if kind is None:
                raise bad(f"byte {at + 1}: there is no type {number}", offset=at + 1)
            at += 2
            if at + kind.whole > end:
                raise bad(
                    f"byte {at}: {kind.name} has {kind.whole} bytes, here are {end - at}", offset=at
                )
            key = f"{kind.name}_{channel}"
            data[self._names.get(key, key)] = kind.read(payload, at)
            at += kind.whole
        return {"data": data, "warnings": []}

    def encode(self, fields: Mapping[str, Any], f_port: int | None) -> Encoded:
        """See `Codec`. A field that is no value of this format is passed over with a warning."""
        payload = b""
        warnings = []
        for name, value in fields.items():
            key = self._keys.get(name, name)
            found = _KEY.fullmatch(key)
            kind = _BY_NAME.get(found[1]) if found else None
            channel = int(found[2]) if found else 256
            if channel > 255 or (kind is None and found is not None and found[1] != "value"):
                warnings.append(f"`{name}` is no value of CayenneLPP, like `temperature_1`")
            elif kind is None:
                payload += bytes([channel]) + _number(name, value, 100, 2, signed=True)
            else:
                payload += bytes([channel, kind.number]) + kind.write(name, value)
        if not payload:
            raise bad("there is no value of CayenneLPP to send, like `value_1` or `digital_out_1`")
        return Encoded(payload, self._f_port if f_port is None else f_port, tuple(warnings))


CODEC = CayenneLpp
