"""ChirpStack v4 in Protocol Buffers: its events → the JSON that it would have sent, and a downlink
→ its command.

`chirpstack.proto`, beside this, says what is read. As in ChirpStack's JSON (pbjson): names in camel
case, times as text, bytes in base64, enums by name; events and `deviceInfo` have all their fields,
what lies in them has those that are not zero. What the schema does not know is passed over.
Needs the library `protobuf` (`pip install 'funicular[protobuf]'`).
"""

from __future__ import annotations

import re
import struct
from base64 import b64encode
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from pipeline.errors import MessageError

MESSAGES = {
    "up": "UplinkEvent",
    "join": "JoinEvent",
    "ack": "AckEvent",
    "txack": "TxAckEvent",
    "log": "LogEvent",
    "status": "StatusEvent",
    "location": "LocationEvent",
    "integration": "IntegrationEvent",
}
"""Which message each event is."""
SCHEMA = Path(__file__).with_name("chirpstack.proto")

_PACKAGE = "funicular.chirpstack"
# These ChirpStack writes whole, zeros too.
_WHOLE = frozenset({*MESSAGES.values(), "DeviceInfo", "UplinkRelayRxInfo"})
# The numbers of FieldDescriptorProto.Type; the other types are a message's or an enum's names.
_SCALARS = {
    "double": 1, "float": 2, "int32": 5, "bool": 8, "string": 9, "bytes": 12, "uint32": 13,
}  # fmt: skip
_LINE = re.compile(
    r"""\s*(?:
        (?P<open>message|enum)\s+(?P<name>\w+)\s*\{
        |(?P<close>\})
        |map<string,\s*(?P<map>[\w.]+)>\s+(?P<map_field>\w+)\s*=\s*(?P<map_number>\d+);
        |(?P<many>repeated\s+)?(?P<type>[\w.]+)\s+(?P<field>\w+)\s*=\s*(?P<number>\d+);
        |(?P<value>\w+)\s*=\s*(?P<value_number>\d+);
        |import\s+"(?P<import>[^"]+)";
        |(?:syntax|package)\s[^;]*;
        |//[^\n]*
    )""",
    re.VERBOSE,
)
_Write = Callable[[Any], Any]


def is_installed() -> bool:
    """Return whether the library is there."""
    try:
        return find_spec("google.protobuf") is not None
    except ModuleNotFoundError:  # not even `google`
        return False


def json_of(kind: str, body: bytes) -> bytes:
    """Return an event of a kind of `MESSAGES` as JSON. MessageError `not_protobuf`: it is none."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - an extra

    classes, writers = _schema()
    name = MESSAGES[kind]
    try:
        message = classes[name].FromString(body)
    except DecodeError:
        raise MessageError(
            f"the body is not ChirpStack's {name} in Protocol Buffers; is the integration's payload"
            " encoding JSON?",
            code="not_protobuf",
        ) from None
    return orjson.dumps(writers[name](message))


def command(item: dict[str, Any], expires_at_ms: int | None) -> bytes:
    """Return a DownlinkCommand of these fields, and of when it is dropped from the queue."""
    classes, _ = _schema()
    made = classes["DownlinkCommand"](**item)
    if expires_at_ms is not None:
        made.expires_at.FromMilliseconds(expires_at_ms)
    return bytes(made.SerializeToString(deterministic=True))


@lru_cache(1)
def _schema() -> tuple[dict[str, Any], dict[str, _Write]]:
    """Return the messages' classes, and what makes JSON values of each, by their names."""
    from google.protobuf.descriptor_pool import DescriptorPool  # noqa: PLC0415 - an extra
    from google.protobuf.message_factory import GetMessageClass  # noqa: PLC0415 - likewise

    file = descriptor_of(SCHEMA.read_text(encoding="utf-8"))
    pool = DescriptorPool()
    for name in file.dependency:
        pool.AddSerializedFile(_well_known(name))
    pool.AddSerializedFile(file.SerializeToString())
    classes = {
        each.name: GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{each.name}"))
        for each in file.message_type
    }
    writers: dict[str, _Write] = {}
    for name, made in classes.items():
        writers[name] = _writer(made.DESCRIPTOR, writers)
    return classes, writers


def _well_known(name: str) -> bytes:
    from importlib import import_module  # noqa: PLC0415 - with the extra

    module = import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
    return bytes(module.DESCRIPTOR.serialized_pb)


# ---- the schema's text ----


def descriptor_of(text: str) -> Any:
    """Return the FileDescriptorProto of a schema that is written like `chirpstack.proto`:
    messages and enums, fields of one line, maps by text, no options. ValueError: it is not.
    """
    from google.protobuf.descriptor_pb2 import FileDescriptorProto  # noqa: PLC0415 - an extra

    file = FileDescriptorProto(name="chirpstack.proto", package=_PACKAGE, syntax="proto3")
    open_: list[Any] = [file]
    for found in _statements(text):
        within = open_[-1]
        if found["open"]:
            open_.append(_opened(within, found["open"], found["name"]))
        elif found["close"]:
            open_.pop()
        elif found["import"]:
            file.dependency.append(found["import"])
        elif found["value"]:
            within.value.add(name=found["value"], number=int(found["value_number"]))
        elif found["map"]:
            _add_map(within, found)
        elif found["field"]:
            _add_field(within, found["field"], found["number"], found["type"], found["many"])
    return file


def _statements(text: str) -> Iterator[re.Match[str]]:
    at, text = 0, text.rstrip()
    while at < len(text):
        found = _LINE.match(text, at)
        if found is None:
            begin = len(text) - len(text[at:].lstrip())
            raise ValueError(f"line {text.count(chr(10), 0, begin) + 1} is not understood")
        yield found
        at = found.end()


def _opened(within: Any, kind: str, name: str) -> Any:
    if kind == "enum":
        return within.enum_type.add(name=name)
    is_file = hasattr(within, "message_type")
    return (within.message_type if is_file else within.nested_type).add(name=name)


def _add_field(within: Any, name: str, number: str, kind: str, many: str | None) -> None:
    field = within.field.add(name=name, number=int(number), label=3 if many else 1)
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type_name = kind  # protobuf finds out whether it is a message or an enum


def _add_map(within: Any, found: re.Match[str]) -> None:
    name = found["map_field"]
    entry = within.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    _add_field(entry, "key", "1", "string", None)
    _add_field(entry, "value", "2", found["map"], None)
    _add_field(within, name, found["map_number"], entry.name, "repeated")


# ---- messages as JSON values ----


def _writer(descriptor: Any, writers: dict[str, _Write]) -> _Write:
    """Return what makes JSON values of a message. Those of other messages are found when it runs,
    in `writers`.
    """
    is_whole = descriptor.name in _WHOLE
    steps = [(field.name, field.json_name, _step(field, writers)) for field in descriptor.fields]
    by_name = {name: (json_name, step) for name, json_name, step in steps}
    always = [
        (field.json_name, _step(field, writers)(getattr(_empty(descriptor), field.name)))
        for field in descriptor.fields
        if is_whole and field.message_type is None
    ]

    def write(message: Any) -> dict[str, Any]:
        made = dict(always)
        for field, value in message.ListFields():
            json_name, step = by_name[field.name]
            made[json_name] = step(value)
        return made

    return write


def _empty(descriptor: Any) -> Any:
    from google.protobuf.message_factory import GetMessageClass  # noqa: PLC0415 - an extra

    return GetMessageClass(descriptor)()


def _step(field: Any, writers: dict[str, _Write]) -> _Write:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return dict
    single = _single(field, writers)
    if field.is_repeated:
        return lambda values: [single(value) for value in values]
    return single


def _single(field: Any, writers: dict[str, _Write]) -> _Write:
    kind = field.message_type
    if kind is not None:
        known = _KNOWN.get(kind.full_name)
        # Which may not be there yet.
        return known or (lambda value: writers[kind.name](value))  # noqa: PLW0108 - see above
    if field.enum_type is not None:
        names = {each.number: each.name for each in field.enum_type.values}
        return lambda value: names.get(value, value)
    if field.type == field.TYPE_BYTES:
        return lambda value: b64encode(value).decode()
    if field.type == field.TYPE_FLOAT:
        return _float
    return lambda value: value


def _float(value: float) -> float:
    """Return a number of 32 bits by as few digits as tell it from its neighbours: 21.6."""
    packed = struct.pack("f", value)
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        if struct.pack("f", short) == packed:
            return short
    return value


def _time(value: Any) -> str:
    """Return a time as ChirpStack writes it. MessageError `field`: there is no such time."""
    try:
        return str(value.ToJsonString()).replace("Z", "+00:00")
    except ValueError:
        raise MessageError("a time is none", code="field", field="time") from None


def _duration(value: Any) -> str:
    try:
        return str(value.ToJsonString())
    except ValueError:
        raise MessageError("a duration is none", code="field", field="rxInfo") from None


def _object(value: Any) -> dict[str, Any]:
    return {name: _value(item) for name, item in value.fields.items()}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _object(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    return None if kind in ("null_value", None) else getattr(value, kind)


_KNOWN: dict[str, _Write] = {
    "google.protobuf.Timestamp": _time,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _object,
}
