"""A payload by its layout, both ways: fields one after the other, or at an offset.

What a user writes stands in `layout_config`. It is compiled once, to a function a field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from pipeline.convert.codecs.codec import CodecConfig, Encoded, Given, bad
from pipeline.convert.codecs.layout_config import Endianness, MessageConfig
from pipeline.convert.codecs.layout_reading import Reading, reader, whole_number
from pipeline.convert.codecs.layout_writing import required, write


class Layout(CodecConfig):
    """A binary payload, field by field. See `layout_config`."""

    endianness: Endianness = "big"
    uplink: Annotated[list[MessageConfig], Field(default_factory=list, max_length=200)]
    downlink: Annotated[list[MessageConfig], Field(default_factory=list, max_length=200)]

    contract: ClassVar = "lorawan"

    @model_validator(mode="after")
    def _has_any(self) -> Layout:
        if not self.uplink and not self.downlink:
            raise ValueError("needs `uplink` or `downlink`, a list of messages with `fields`")
        return self

    @property
    def decodes(self) -> bool:
        """See `CodecConfig`."""
        return bool(self.uplink)

    @property
    def encodes(self) -> bool:
        """See `CodecConfig`."""
        return bool(self.downlink)

    def build(self) -> _Layout:
        """See `CodecConfig`."""
        return _Layout(self)


class _Layout:
    def __init__(self, config: Layout) -> None:
        self._uplinks = [
            (message, [reader(field, config.endianness) for field in message.fields])
            for message in config.uplink
        ]
        self._downlinks = config.downlink
        self._endianness = config.endianness

    def decode(self, given: Given) -> dict[str, Any]:
        """See `Codec`. Bytes after the last field are passed over with a warning."""
        payload = given.payload
        for message, readers in self._uplinks:
            ports = message.ports
            if ports is not None and given.f_port not in ports:
                continue
            where = message.where
            if where is not None:
                size, signed = whole_number(where.type)
                found = payload[where.offset : where.offset + size]
                value = int.from_bytes(found, self._endianness, signed=signed)
                if len(found) < size or value != where.equals:
                    continue
            reading = Reading(payload)
            data: dict[str, Any] = {}
            for read in readers:
                read(reading, data)
            if reading.at < len(payload):
                left = len(payload) - reading.at
                reading.warnings.append(f"{left} bytes after the last field were not read")
            return {"data": data, "warnings": reading.warnings}
        raise bad(
            f"no message of the layout fits: port {given.f_port}, {len(payload)} bytes that begin"
            f" with {payload[:4].hex() or 'nothing'}"
        )

    def encode(self, fields: Mapping[str, Any], f_port: int | None) -> Encoded:
        """See `Codec`. The first message whose port and names fit is sent."""
        lacking = ""
        for message in self._downlinks:
            ports = message.ports
            if ports is not None and f_port is not None and f_port not in ports:
                continue
            missing = [name for name in required(message.fields) if name not in fields]
            if missing:
                lacking = lacking or f"`{missing[0]}` is missing"
                continue
            payload = bytearray()
            used: set[str] = set()
            for field in message.fields:
                write(field, fields, payload, used, self._endianness)
            port = f_port if f_port is not None or ports is None else min(ports)
            warnings = tuple(f"`{name}` is not sent" for name in fields if name not in used)
            return Encoded(bytes(payload), port, warnings)
        raise bad(f"no message of the layout fits: {lacking or f'port {f_port}'}")


CODEC = Layout
