"""OPC-UA: what a server's nodes say, as the transport `opcua` brings it; writes are downlinks.

The body is one JSON object a device and notification:
`{"device": "press-1", "names": {"line": "Line1"}, "values": [{"field": "temperature",
"value": 21.5, "type": "Double", "time": 1790000000000, "status": "Good", "node": "ns=2;s=P1"}]}`.
`time` is the source's, in epoch milliseconds, or the server's where the source says none; `status`
is the code's name, and `names` are those of the browse path.

Values become `fields` of one uplink, unless a field comes twice or their times are more than
`together_s` apart: then they become several, in order of time. `payload` is the fields as JSON,
for a converter. `metadata`: each of `names`, `status` (of fields that are not Good), `times` (of
fields whose time is not the uplink's). A Bad value is no field, unless `bad_values` says so.

JSON of the types: whole numbers and doubles as they are (NaN and infinite: null, with the status
`NaN` or `Infinite`), DateTime in RFC 3339, ByteString in base64, Guid, NodeId, LocalizedText and
StatusCode as text, structures as objects by field, arrays as lists (of several dimensions: nested).
"""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any

import msgspec
import orjson
from pydantic import Field

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Asynchronous, DeviceTemplate, Options
from pipeline.integrations.document import Name, convert, digest, parse_object
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request
from pipeline.model.uplink import Link, Uplink

VALUES_MAX = 10_000  # of one body; the transport writes less
DOWNLINK_BYTES_MAX = 256 * 1024  # as of the dialect `http`
GOOD = "Good"
_BAD = "Bad"  # how the names of all codes begin whose value says nothing

_Values = Annotated[list["Value"], msgspec.Meta(min_length=1, max_length=VALUES_MAX)]


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value of one node."""

    field: Name
    value: Any = None
    type: str = ""
    time: int | None = None
    status: str = GOOD
    node: str = ""


class Body(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one notification says of one device."""

    device: Name
    values: _Values
    names: dict[str, str] = {}


class OpcuaOptions(Options):
    """`together_s`: values of a device whose times are so far apart at most are one message.
    `bad_values`: what a server still says of a node with a Bad status is a field, too.
    `payload_field`: the field that a downlink of bytes is written to (a ByteString); without it a
    downlink has fields, or bytes that are a JSON object of them.
    """

    together_s: float = Field(default=1.0, ge=0, le=3_600)
    bad_values: bool = False
    payload_field: str = Field(default="", max_length=255)


class Opcua(Asynchronous):
    """The dialect; see the module."""

    name = "opcua"
    usual_transport = "opcua"
    contract = "thingsboard"
    device_template = "{device_id}"
    device_variables = ("device_id",)
    has_f_port = False
    takes_fields = True
    # After a reconnect the server says again what it said last.
    repeat_window_s = 15 * 60
    options = OpcuaOptions

    def read(self, request: Request, options: OpcuaOptions, device_template: str) -> list[Uplink]:
        """Return the uplinks, in order of time. As the port says."""
        body = convert(parse_object(request.body), Body)
        device = DeviceTemplate.fill(device_template, {"device_id": body.device})
        link = Link(device_id=body.device)
        return [
            _uplink(body, device, link, each, keep_bad=options.bad_values)
            for each in _together(body.values, round(options.together_s * 1_000))
        ]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `payload_length`: nothing to write, or too much."""
        length = len(downlink.payload or b"")
        if downlink.payload is None and downlink.fields is None:
            raise MessageError("the downlink has neither bytes nor fields", code="payload_length")
        if length > DOWNLINK_BYTES_MAX:
            raise MessageError(
                f"the downlink has {length} bytes; {DOWNLINK_BYTES_MAX} are allowed",
                code="payload_length",
                field="payload",
                limit=DOWNLINK_BYTES_MAX,
            )

    def writes(self, downlink: Downlink, options: OpcuaOptions) -> dict[str, Any]:
        """Return what to write, by field. MessageError `fields`: the downlink names none."""
        fields = downlink.fields
        if fields is None and downlink.payload is not None:
            fields = _fields_in(downlink.payload)
            if fields is None and options.payload_field:
                fields = {options.payload_field: b64encode(downlink.payload).decode()}
        if not fields:
            raise MessageError(
                "the downlink names no field to write: give it fields, bytes that are a JSON"
                " object, or the integration the option `payload_field`",
                code="fields",
            )
        return fields

    def send(self, downlink: Downlink, link: Link, options: OpcuaOptions) -> Call:  # noqa: ARG002
        """Raise MessageError `no_link`: nodes are written, nothing is posted."""
        raise MessageError("the dialect `opcua` hands over by OPC-UA alone", code="no_link")

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return two values of a device: `counter` and `payload` (hex)."""
        values = [
            Value("counter", counter, "UInt32", now_ms),
            Value("payload", payload.hex(), "String", now_ms),
        ]
        body = msgspec.json.encode(Body(device_id, values))
        return Request(body=body, headers={"content-type": "application/json"})


def _together(values: list[Value], apart_ms: int) -> list[list[Value]]:
    """Return the values in sets: of each field one, and of about one time."""
    sets: list[list[Value]] = []
    fields: set[str] = set()
    begun = 0
    for value in sorted(values, key=_time):
        time = _time(value)
        if not sets or value.field in fields or time - begun > apart_ms:
            sets.append([])
            fields = set()
            begun = time
        sets[-1].append(value)
        fields.add(value.field)
    return sets


def _time(value: Value) -> int:
    return value.time or 0


def _uplink(body: Body, device: str, link: Link, values: list[Value], *, keep_bad: bool) -> Uplink:
    time_ms = max((value.time for value in values if value.time), default=None)
    fields = {
        value.field: value.value
        for value in values
        if keep_bad or not value.status.startswith(_BAD)
    }
    status = {value.field: value.status for value in values if value.status != GOOD}
    times = {value.field: value.time for value in values if value.time not in (None, time_ms)}
    metadata: dict[str, Any] = dict(body.names)
    if status:
        metadata["status"] = status
    if times:
        metadata["times"] = times
    return Uplink(
        device=device,
        time_ms=time_ms,
        payload=orjson.dumps(fields),
        fields=fields,
        metadata=metadata,
        link=link,
        repeat_key=digest(device, msgspec.json.encode(values)),
    )


def _fields_in(payload: bytes) -> dict[str, Any] | None:
    try:
        return parse_object(payload)
    except MessageError:
        return None  # bytes of another kind


DIALECT = Opcua()
