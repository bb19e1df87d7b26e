"""Protocol Buffers by a schema, both ways.

    codec: protobuf
    schema: meter.proto
    uplink: [{f_port: 2, message: acme.Reading}, {message: acme.Status}]
    downlink: [{f_port: 10, message: acme.Command}]

`schema` is a file beside the converter's: `.proto` text, or a FileDescriptorSet (`.desc`, `.binpb`;
`protoc --include_imports --descriptor_set_out=meter.desc meter.proto`). The first message whose
port fits and that can be read is taken.

Values are as in Protocol Buffers' JSON, with these differences, which suit telemetry: names are the
schema's own, whole numbers of 64 bits are numbers, fields without presence are always there.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from pipeline.convert.codecs.codec import FIELDS_MAX, CodecConfig, Encoded, Given, bad
from pipeline.convert.codecs.layout_config import Port
from pipeline.convert.codecs.proto_text import compile_text
from pipeline.errors import MessageError
from pipeline.part import Part

DEPTH_MAX = 60
"""Levels of messages in a payload; JSON further on has 64."""
_MISSING = "Protocol Buffers are not installed: pip install 'funicular[protobuf]'"
_Read = Callable[[Any, "_Count"], Any]


class MessageOfPort(Part):
    """A message of the schema, and the ports it comes on."""

    f_port: Annotated[
        Port | list[Port] | None, Field(description="the ports it comes on; any, if left out")
    ] = None
    message: Annotated[str, Field(min_length=1, description="its full name: package.Message")]

    @property
    def ports(self) -> frozenset[int] | None:
        """The ports, None: any."""
        if self.f_port is None:
            return None
        return frozenset([self.f_port] if isinstance(self.f_port, int) else self.f_port)


class Protobuf(CodecConfig):
    """Protocol Buffers. See the module."""

    schema_file: Annotated[
        str, Field(alias="schema", description="`.proto`, `.desc` or `.binpb`, beside this file")
    ]
    uplink: Annotated[list[MessageOfPort], Field(default_factory=list, max_length=255)]
    downlink: Annotated[list[MessageOfPort], Field(default_factory=list, max_length=255)]
    # The schemas of the converter's folder in base64 by name, put here by who reads the folder.
    files: Annotated[SkipJsonSchema[dict[str, str]], Field(default_factory=dict)]

    contract: ClassVar = "lorawan"
    reads_files: ClassVar = True

    @model_validator(mode="after")
    def _has_any(self) -> Protobuf:
        if not self.uplink and not self.downlink:
            raise ValueError("needs `uplink` or `downlink`, a list of messages")
        return self

    @property
    def decodes(self) -> bool:
        """See `CodecConfig`."""
        return bool(self.uplink)

    @property
    def encodes(self) -> bool:
        """See `CodecConfig`."""
        return bool(self.downlink)

    def build(self) -> _Protobuf:
        """See `CodecConfig`. MessageError: the schema cannot be read (`detail["key"]` is where)."""
        try:
            return _Protobuf(self)
        except ImportError:
            raise bad(_MISSING, key="codec") from None


class _Count:
    """How many values there may still be."""

    def __init__(self) -> None:
        self.left = FIELDS_MAX

    def take(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise bad(f"the payload holds more than {FIELDS_MAX} values", limit=FIELDS_MAX)


class _Protobuf:
    def __init__(self, config: Protobuf) -> None:
        from google.protobuf.message import DecodeError  # noqa: PLC0415 - an extra

        self._decode_error = DecodeError
        pool = _pool(config.schema_file, config.files)
        classes = {
            each.message: _class(pool, each.message, key)
            for key in ("uplink", "downlink")
            for each in getattr(config, key)
        }
        readers: dict[str, _Read] = {}
        self._uplinks = [
            (each.ports, each.message, classes[each.message],
             _reader(classes[each.message].DESCRIPTOR, readers))
            for each in config.uplink
        ]  # fmt: skip
        self._downlinks = [
            (each.ports, each.message, classes[each.message]) for each in config.downlink
        ]

    def decode(self, given: Given) -> dict[str, Any]:
        """See `Codec`. Fields that the schema does not know are passed over with a warning."""
        from google.protobuf.unknown_fields import UnknownFieldSet  # noqa: PLC0415 - an extra

        faults = []
        for ports, name, made, read in self._uplinks:
            if ports is not None and given.f_port not in ports:
                continue
            try:
                message = made.FromString(given.payload)
            except self._decode_error as fault:
                faults.append(f"{name}: {str(fault).rstrip('.')}")
                continue
            if not message.IsInitialized():
                missing = ", ".join(message.FindInitializationErrors())
                faults.append(f"{name}: {missing} is missing")
                continue
            fields: Any = UnknownFieldSet(message)
            unknown = sorted({field.field_number for field in fields})
            numbers = ", ".join(map(str, unknown))
            warnings = [f"fields {numbers} are not in {name}"] if unknown else []
            return {"data": read(message, _Count()), "warnings": warnings}
        if not faults:
            raise bad(f"no message of the schema comes on port {given.f_port}")
        raise bad(f"the payload cannot be read: {'; '.join(faults)}")

    def encode(self, fields: Mapping[str, Any], f_port: int | None) -> Encoded:
        """See `Codec`. The first message whose port and fields fit is sent."""
        from google.protobuf.json_format import ParseDict, ParseError  # noqa: PLC0415 - an extra

        faults = []
        for ports, name, made in self._downlinks:
            if ports is not None and f_port is not None and f_port not in ports:
                continue
            try:
                message = ParseDict(dict(fields), made(), max_recursion_depth=DEPTH_MAX)
                if not message.IsInitialized():
                    missing = ", ".join(message.FindInitializationErrors())
                    faults.append(f"{name}: {missing} is missing")
                    continue
                payload = message.SerializeToString(deterministic=True)
            except (ParseError, ValueError, TypeError) as fault:
                faults.append(f"{name}: {fault}")
                continue
            return Encoded(payload, f_port if f_port is not None or ports is None else min(ports))
        raise bad("; ".join(faults) or f"no message of the schema goes on port {f_port}")


def _pool(schema: str, files: Mapping[str, str]) -> Any:
    """Return a pool of the schema's own: two converters may have messages of one name."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet  # noqa: PLC0415 - an extra
    from google.protobuf.descriptor_pool import DescriptorPool  # noqa: PLC0415 - likewise
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - likewise

    if schema not in files:
        listed = ", ".join(sorted(files)) or "none"
        raise bad(f"there is no schema `{schema}` beside it; there are {listed}", key="schema")
    if schema.endswith(".proto"):
        found = compile_text(
            {name: _text(name, raw) for name, raw in files.items() if name.endswith(".proto")},
            schema,
        )
    else:
        try:
            found = FileDescriptorSet.FromString(b64decode(files[schema]))
        except DecodeError:
            raise bad(f"`{schema}` is no FileDescriptorSet", key="schema") from None
    pool = DescriptorPool()
    try:
        for each in found.file:
            pool.AddSerializedFile(each.SerializeToString())
    except TypeError as fault:
        raise bad(f"`{schema}` does not hold together: {fault}", key="schema") from None
    return pool


def _text(name: str, raw: str) -> str:
    try:
        return b64decode(raw).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise bad(f"{name} is not UTF-8 text", key="schema") from None


def _class(pool: Any, name: str, key: str) -> Any:
    from google.protobuf.message_factory import GetMessageClass  # noqa: PLC0415 - an extra

    try:
        return GetMessageClass(pool.FindMessageTypeByName(name))
    except KeyError:
        raise bad(f"the schema has no message `{name}`", key=key) from None


def _reader(descriptor: Any, readers: dict[str, _Read]) -> _Read:
    """Return what makes JSON of a message of one type; compiled once a type."""
    name = descriptor.full_name
    if name in readers:
        return readers[name]
    if name.startswith("google.protobuf."):
        readers[name] = _well_known
        return _well_known
    steps: list[tuple[str, bool, _Read | None]] = []

    def read(message: Any, count: _Count) -> dict[str, Any]:
        made: dict[str, Any] = {}
        count.take(len(steps))
        for key, has_presence, convert in steps:
            if has_presence and not message.HasField(key):
                continue
            value = getattr(message, key)
            made[key] = value if convert is None else convert(value, count)
        return made

    def read_lists(message: Any, count: _Count) -> dict[str, Any]:
        made = read(message, count)
        return {key: value for key, value in made.items() if value is not _EMPTY}

    readers[name] = read_lists if any(map(_is_list, descriptor.fields)) else read
    steps += [
        (field.name, field.has_presence, _converter(field, readers)) for field in descriptor.fields
    ]
    return readers[name]


_EMPTY: Any = object()


def _is_list(field: Any) -> bool:
    return bool(field.is_repeated)


def _converter(field: Any, readers: dict[str, _Read]) -> _Read | None:
    """Return what makes JSON of a field's value; None: it is JSON as it is."""
    if not _is_list(field):
        return _single(field, readers)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        of_value = _single(kind.fields_by_name["value"], readers)

        def map_(values: Any, count: _Count) -> Any:
            count.take(len(values))
            if not values:
                return _EMPTY
            return {
                str(key).lower() if isinstance(key, bool) else str(key): (
                    value if of_value is None else of_value(value, count)
                )
                for key, value in values.items()
            }

        return map_
    of_item = _single(field, readers)

    def list_(values: Any, count: _Count) -> Any:
        count.take(len(values))
        if not values:
            return _EMPTY
        return list(values) if of_item is None else [of_item(value, count) for value in values]

    return list_


def _single(field: Any, readers: dict[str, _Read]) -> _Read | None:
    if field.message_type is not None:
        return _reader(field.message_type, readers)
    if field.enum_type is not None:
        # Of two names of one number, the first.
        names = {each.number: each.name for each in reversed(field.enum_type.values)}
        return lambda value, _count: names.get(value, value)
    if field.cpp_type == field.CPPTYPE_FLOAT:
        return _float
    if field.cpp_type == field.CPPTYPE_DOUBLE:
        return _finite
    if field.type == field.TYPE_BYTES:
        return lambda value, _count: b64encode(value).decode()
    return None


def _finite(value: float, _count: _Count) -> float:
    if not math.isfinite(value):
        raise bad(f"a number is {value}, which JSON has no word for")
    return value


def _float(value: float, _count: _Count) -> float:
    """Return a number of 32 bits as the shortest one that is it: 21.6, not 21.600000381469727."""
    short = float(f"{_finite(value, _count):.7g}")
    return short if abs(short - value) <= abs(value) * 6e-8 else value


def _well_known(message: Any, count: _Count) -> Any:
    """Return a time as text, a wrapper as its value, …: Protocol Buffers' own JSON."""
    from google.protobuf.json_format import MessageToDict, SerializeToJsonError  # noqa: PLC0415

    count.take(1)
    try:
        return MessageToDict(message, preserving_proto_field_name=True)
    except (SerializeToJsonError, MessageError, TypeError, ValueError) as fault:
        raise bad(f"{message.DESCRIPTOR.full_name}: {fault}") from None


CODEC = Protobuf
