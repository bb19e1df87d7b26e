"""SenML (RFC 8428), JSON and CBOR: packs of records ⇄ telemetry with times.

Base values are resolved as section 4.6 says. Values of one time are one set; a record's unit is
handed on as the attribute `<name>_unit` where the user asks for units.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import orjson
from pydantic import Field

from pipeline.convert.codecs.cbor import read_cbor, write_cbor
from pipeline.convert.codecs.codec import FIELDS_MAX, CodecConfig, Encoded, Given, bad
from pipeline.errors import MessageError
from pipeline.integrations.document import parse

_VERSION_MAX = 10  # the RFC's own
_ABSOLUTE = 2**28  # times from here on are absolute, those below count from now (section 4.5.3)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-:./_]*")
# CBOR's labels, section 6.
_LABELS = {
    -1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip
_NUMBERS = {name: label for label, name in _LABELS.items()}


class SenMl(CodecConfig):
    """Sensor Measurement Lists.

    codec: senml
    device: base_name
    """

    form: Annotated[
        Literal["json", "cbor"], Field(description="of downlinks; uplinks may have either")
    ] = "json"
    device: Annotated[
        Literal["request", "base_name"],
        Field(description="who names the device: the request, or the base name `bn`"),
    ] = "request"
    names: Annotated[
        Literal["local", "full"],
        Field(description="what values are called: by their `n`, or with the base name before it"),
    ] = "local"
    units: Annotated[bool, Field(description="hand on units as attributes")] = False
    f_port: Annotated[
        int | None, Field(ge=1, le=223, description="of downlinks whose rule names none")
    ] = None

    contract: ClassVar = "thingsboard"

    def build(self) -> _SenMl:
        """See `CodecConfig`."""
        return _SenMl(self)


class _Record:
    """One resolved record."""

    __slots__ = ("base", "local", "name", "time_ms", "unit", "values")

    def __init__(self, base: str, local: str, unit: str, time_ms: int | None) -> None:
        self.base = base
        self.local = local
        self.name = base + local
        self.unit = unit
        self.time_ms = time_ms
        self.values: dict[str, Any] = {}


class _SenMl:
    def __init__(self, config: SenMl) -> None:
        self._config = config

    def decode(self, given: Given) -> Any:
        """See `Codec`. One object a device, or one alone."""
        devices: dict[str, dict[str, Any]] = {}
        for record in _resolve(_pack(given.payload), given.time_ms):
            name = ""
            if self._config.device == "base_name":
                name = record.base.rstrip(":/-_.")
                if not name:
                    raise bad("a record has no base name `bn` to name its device by", field="bn")
            device = devices.setdefault(name, {"times": {}, "attributes": {}})
            key = record.name if self._config.names == "full" else record.local
            key = key or record.base.rstrip(":/-_.").rpartition("/")[2].rpartition(":")[2]
            values = device["times"].setdefault(record.time_ms, {})
            values.update({f"{key}{suffix}": value for suffix, value in record.values.items()})
            if self._config.units and record.unit:
                device["attributes"][f"{key}_unit"] = record.unit
        shaped = [self._shaped(name, device) for name, device in devices.items()]
        return shaped[0] if len(shaped) == 1 else shaped

    @staticmethod
    def _shaped(name: str, device: dict[str, Any]) -> dict[str, Any]:
        sets = [
            values if time_ms is None else {"ts": time_ms, "values": values}
            for time_ms, values in sorted(device["times"].items(), key=lambda each: each[0] or 0)
        ]
        shaped: dict[str, Any] = {"telemetry": sets[0] if len(sets) == 1 else sets}
        if name:
            shaped["deviceName"] = name
        if device["attributes"]:
            shaped["attributes"] = device["attributes"]
        return shaped

    def encode(self, fields: Mapping[str, Any], f_port: int | None) -> Encoded:
        """See `Codec`. Each field is a record; a list or an object is no value of SenML."""
        records = []
        for name, value in fields.items():
            if not _NAME.fullmatch(name):
                raise bad(f"`{name}` is no name of SenML", field=name)
            if isinstance(value, bool):
                records.append({"n": name, "vb": value})
            elif isinstance(value, int | float) and math.isfinite(value):
                records.append({"n": name, "v": value})
            elif isinstance(value, str):
                records.append({"n": name, "vs": value})
            else:
                raise bad(f"`{name}` must be a number, text, true or false", field=name)
        if not records:
            raise bad("there is no value to send")
        port = self._config.f_port if f_port is None else f_port
        if self._config.form == "cbor":
            labelled = [{_NUMBERS[key]: item for key, item in each.items()} for each in records]
            return Encoded(write_cbor(labelled), port)
        return Encoded(orjson.dumps(records), port)


def _pack(payload: bytes) -> list[dict[Any, Any]]:
    """Return the records of a payload with the names that JSON gives their fields."""
    if payload.lstrip()[:1] == b"[":
        try:
            pack = parse(payload)
        except MessageError as fault:
            raise bad(f"the payload is no SenML: {fault.message}") from None
    else:
        pack = read_cbor(payload)
    if not isinstance(pack, list) or not pack:
        raise bad("the payload is no SenML: it must be a list of records")
    if len(pack) > FIELDS_MAX:
        raise bad(f"the payload has {len(pack)} records; at most {FIELDS_MAX} are allowed")
    records = []
    for index, record in enumerate(pack):
        if not isinstance(record, dict):
            raise bad(f"record {index} is no object", field=f"[{index}]")
        records.append({_LABELS.get(key, key): value for key, value in record.items()})
    return records


def _resolve(pack: list[dict[Any, Any]], now_ms: int | None) -> list[_Record]:
    base: dict[str, Any] = {"bn": "", "bt": 0, "bu": "", "bv": None, "bs": None}
    resolved = []
    for index, record in enumerate(pack):
        _check_known(record, index)
        for key in ("bn", "bu"):
            if key in record:
                base[key] = _text(record, key, index)
        for key in ("bt", "bv", "bs"):
            if key in record:
                base[key] = _number(record, key, index)
        made = _Record(
            base["bn"],
            _text(record, "n", index),
            _text(record, "u", index) or base["bu"],
            _time_ms(base["bt"] + (_number(record, "t", index) or 0), now_ms, index),
        )
        _read_values(made, record, base, index)
        if made.values:
            if not _NAME.fullmatch(made.name):
                raise bad(f"record {index} has no name, or {made.name!r} is none", field="n")
            resolved.append(made)
    if not resolved:
        raise bad("the payload has no record with a value")
    return resolved


def _check_known(record: dict[Any, Any], index: int) -> None:
    for key in record:
        if isinstance(key, str) and key.endswith("_"):
            raise bad(f"record {index} must not be read without knowing `{key}`", field=key)
    version = _number(record, "bver", index)
    if version is not None and version > _VERSION_MAX:
        raise bad(f"record {index} is of version {version}, which is newer than known")


def _read_values(made: _Record, record: dict[str, Any], base: dict[str, Any], index: int) -> None:
    if "v" in record or (base["bv"] is not None and not record.keys() & {"vs", "vb", "vd", "s"}
                         and record.keys() & {"n", "t", "u"}):  # fmt: skip
        made.values[""] = (base["bv"] or 0) + (_number(record, "v", index) or 0)
    for key in ("vs", "vd"):
        if key in record:
            made.values[""] = _text(record, key, index)
    if "vb" in record:
        if not isinstance(record["vb"], bool):
            raise bad(f"record {index}: `vb` must be true or false", field="vb")
        made.values[""] = record["vb"]
    if "s" in record:
        made.values["_sum"] = (base["bs"] or 0) + (_number(record, "s", index) or 0)


def _time_ms(seconds: float, now_ms: int | None, index: int) -> int | None:
    if seconds == 0:
        return None  # now: the message's own time
    if seconds >= _ABSOLUTE:
        if seconds > 1e11:
            raise bad(f"record {index}: {seconds} is no time in seconds", field="t")
        return round(seconds * 1000)
    return None if now_ms is None else now_ms + round(seconds * 1000)


def _number(record: dict[Any, Any], key: str, index: int) -> Any:
    value = record.get(key)
    if value is None and key not in record:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise bad(f"record {index}: `{key}` must be a number", field=key)
    return value


def _text(record: dict[Any, Any], key: str, index: int) -> str:
    value = record.get(key, "")
    if isinstance(value, bytes):
        return value.hex()
    if not isinstance(value, str):
        raise bad(f"record {index}: `{key}` must be text", field=key)
    return value


CODEC = SenMl
