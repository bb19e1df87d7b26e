"""Sigfox callbacks: UPLINK, BIDIR, DATA_ADVANCED, GEOLOC, STATUS, ERROR, ACKNOWLEDGE, and batches;
a device can only be answered.

Format: support.sigfox.com/docs (bidir, acknowledge, callback-integration). The user writes the
callback's template, with Sigfox's variable names as field names: a JSON object, a form or a query;
numbers and booleans may be quoted. A batch is a JSON array, or lines of `;`-separated values (in
the body, or in the query as `batch`), whose order `batch_fields` says.

What has `data` is an uplink, also with a place and an operator beside it (DATA_ADVANCED). Without
it, `computedLocation` makes a location, `batt` or `temp` a status (`battery_voltage`,
`temperature`), `severity` or `info` service_data of the service `error`.
An ACKNOWLEDGE callback (it has `infoCode` or `downlinkAck`) reports on the device's last downlink.
`metadata`: `seq_number`, `station`, `rssi`, `snr`, `avg_snr`, `lqi`, `duplicate`, `device_type_id`,
`ack`, `long_polling`, `computed_location`, and every other field by the name that the template
gives it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
import orjson
from pydantic import Field

from pipeline.errors import MessageError
from pipeline.integrations.dialect import DeviceTemplate, Options
from pipeline.integrations.document import Uint32, bad_field, convert, digest, parse
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Call, Request, Response
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link, MessageType, Report, Uplink

DOWNLINK_BYTES = 8
UPLINK_BYTES_MAX = 12
_DEVICE = re.compile(r"[0-9A-Fa-f]{1,8}")
_DATA = re.compile(rf"(?:[0-9A-Fa-f]{{2}}){{0,{UPLINK_BYTES_MAX}}}")
_SECONDS_MAX = 253_402_300_799  # the last second of the year 9999

# infoCode → name, and what it says of the downlink (support.sigfox.com/docs/acknowledge).
# ACKED: the station emitted it. NO_ANSWER: our answer did not reach Sigfox; it may ask again.
_INFO: dict[int, tuple[str, State]] = {
    0: ("ACKED", State.ACKNOWLEDGED),
    1: ("NO_ANSWER", State.NOT_ACKNOWLEDGED),
    2: ("INVALID_PAYLOAD", State.FAILED),
    3: ("OVERRUN_ERROR", State.FAILED),
    4: ("NETWORK_ERROR", State.FAILED),
    5: ("PENDING", State.ACCEPTED),
    6: ("NO_DOWNLINK_CONTRACT", State.FAILED),
    7: ("TOO_MANY_REQUESTS", State.FAILED),
    8: ("INVALID_CONFIGURATION", State.FAILED),
}


# Text may say nan or inf where a number is due; no radio does.
_Decibel = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]
_Measured = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]  # volts, degrees Celsius


class SigfoxOptions(Options):
    """`batch_fields`: the variables of a batch line, in order, as its template has them.

    `batch_max`: messages in one request.
    """

    batch_fields: tuple[str, ...] = ("device", "time", "data", "seqNumber", "ack")
    batch_max: int = Field(default=1000, ge=1)


class _Callback(msgspec.Struct):
    """One message; empty values are left out before."""

    device: str | None = None
    time: Annotated[float, msgspec.Meta(ge=0, le=_SECONDS_MAX)] | None = None
    data: str | None = None
    seqNumber: Uint32 | None = None  # noqa: N815 - Sigfox's names
    ack: bool | None = None
    longPolling: bool | None = None  # noqa: N815
    rssi: _Decibel | None = None
    snr: _Decibel | None = None
    avgSnr: _Decibel | None = None  # noqa: N815
    station: str | int | None = None
    duplicate: bool | None = None
    deviceTypeId: str | int | None = None  # noqa: N815
    lqi: str | int | None = None
    computedLocation: dict[str, Any] | None = None  # noqa: N815
    batt: _Measured | None = None
    temp: _Measured | None = None
    severity: str | None = None
    info: str | None = None
    infoCode: Uint32 | None = None  # noqa: N815
    infoMessage: str | None = None  # noqa: N815
    downlinkAck: bool | None = None  # noqa: N815
    downlinkOverusage: bool | None = None  # noqa: N815


_METADATA = {
    "seqNumber": "seq_number",
    "ack": "ack",
    "longPolling": "long_polling",
    "rssi": "rssi",
    "snr": "snr",
    "avgSnr": "avg_snr",
    "station": "station",
    "duplicate": "duplicate",
    "deviceTypeId": "device_type_id",
    "lqi": "lqi",
    "computedLocation": "computed_location",
}
_KNOWN = frozenset(_Callback.__struct_fields__)


class Sigfox:
    """The dialect; see the module."""

    name = "sigfox"
    synchronous = True
    contract = "lorawan"
    device_template = "{device_id}"
    device_variables = ("device_id", "device_type_id")
    has_f_port = False
    takes_fields = False
    # Sigfox repeats a callback 1, 3 and 7 minutes after the first, each with 10 s to answer.
    repeat_window_s = 15 * 60
    # Sigfox gives up after 10 s, its connecting and the way there and back included; a second is
    # more than a round trip to any place on earth with a TLS handshake.
    answer_timeout_s = 9.0
    options = SigfoxOptions

    def read(self, request: Request, options: SigfoxOptions, device_template: str) -> list[Uplink]:
        """Return one Uplink a message; of an ACKNOWLEDGE only the report. As the port says."""
        documents = _documents(request, options)
        if len(documents) == 1:
            return [_uplink(documents[0], device_template)]
        uplinks = []
        for index, document in enumerate(documents):
            try:
                uplinks.append(_uplink(document, device_template))
            except MessageError as fault:
                raise MessageError(
                    f"message {index} of the batch: {fault.message}",
                    code=fault.code,
                    **{**fault.detail, "index": index},
                ) from None
        return uplinks

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `payload_length` (exactly 8 bytes) or `f_port` (Sigfox has none)."""
        _check_length(len(downlink.payload or b""))
        if downlink.f_port is not None:
            raise MessageError(
                "Sigfox has no ports; leave f_port away", code="f_port", field="f_port"
            )

    def send(self, downlink: Downlink, link: Link, options: SigfoxOptions) -> Call:  # noqa: ARG002
        """Raise MessageError `no_link`: a Sigfox device can only be answered."""
        raise MessageError(
            "a Sigfox device can only be answered; the integration must be synchronous",
            code="no_link",
        )

    def answer(
        self, replies: Sequence[Reply], request: Request, options: SigfoxOptions
    ) -> Response:
        """Return 200 with one key a device that gets a downlink, spelled as it was sent; or 204.

        MessageError `payload_length`: a downlink that `check` did not see.
        """
        carrying = [reply for reply in replies if reply.downlink_id or reply.payload is not None]
        if not carrying:
            return Response(status=204)
        spelled = _spellings(request, options)
        answers: dict[str, dict[str, str]] = {}
        for reply in carrying:
            # The parts of an answer count the request's devices in the order of its messages.
            place = reply.part - 1 if reply.of == len(spelled) else 0
            payload = reply.payload or b""
            _check_length(len(payload))
            answers[spelled[place]] = {"downlinkData": payload.hex()}
        return Response(
            status=200,
            body=orjson.dumps(answers),
            headers={"content-type": "application/json"},
        )

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return a BIDIR callback that asks for an answer.

        MessageError: the id is not up to 8 hex digits, or the payload is over 12 bytes.
        """
        if not _DEVICE.fullmatch(device_id):
            raise bad_field("device", "must be up to 8 hexadecimal digits")
        if len(payload) > UPLINK_BYTES_MAX:
            raise bad_field("data", f"has at most {UPLINK_BYTES_MAX} bytes")
        body = {
            "device": device_id,
            "time": str(now_ms // 1000),
            "data": payload.hex(),
            "seqNumber": str(counter % 4096),
            "ack": "true",
            "longPolling": "false",
            "rssi": f"-{110 + counter % 20}.00",
            "snr": "15.25",
            "station": "0B3C",
            "duplicate": "false",
            "deviceTypeId": "5a0b1c2d3e4f5a6b7c8d9e0f",
            "lqi": "GOOD",
        }
        return Request(body=orjson.dumps(body), headers={"content-type": "application/json"})


def _check_length(length: int) -> None:
    if length != DOWNLINK_BYTES:
        raise MessageError(
            f"a Sigfox downlink has exactly {DOWNLINK_BYTES} bytes, not {length}",
            code="payload_length",
            field="payload",
            limit=DOWNLINK_BYTES,
        )


def _documents(request: Request, options: SigfoxOptions) -> list[dict[str, Any]]:
    """Return the request's messages as objects, whatever form they came in; at least one."""
    body = request.body.strip()
    if not body:
        if request.query.get("batch"):
            return _lines(request.query["batch"], options)
        if request.query:
            return [dict(request.query)]
        raise MessageError("the request has neither a body nor a query", code="not_json")
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return [_form(body)]
    if body[:1] not in b"{[" and b";" in body:
        return _lines(_text(body), options)
    value = parse(body)
    documents = value if type(value) is list else [value]
    if not documents:
        raise MessageError("the batch is empty", code="field", field="")
    _check_batch(len(documents), options)
    for document in documents:
        if type(document) is not dict:
            raise MessageError("each message must be a JSON object", code="not_json", field="")
    return documents


def _form(body: bytes) -> dict[str, Any]:
    try:
        return dict(parse_qsl(_text(body), keep_blank_values=True, max_num_fields=100))
    except ValueError:
        raise MessageError("the form has more than 100 fields", code="field", field="") from None


def _lines(text: str, options: SigfoxOptions) -> list[dict[str, Any]]:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise MessageError("the batch is empty", code="field", field="")
    _check_batch(len(lines), options)
    names = options.batch_fields
    documents = []
    for index, line in enumerate(lines):
        values = line.split(";")
        if len(values) != len(names):
            raise MessageError(
                f"line {index} of the batch has {len(values)} values;"
                f" `batch_fields` names {len(names)}: {', '.join(names)}",
                code="field",
                field="batch",
                index=index,
            )
        documents.append(dict(zip(names, (value.strip() for value in values), strict=True)))
    return documents


def _check_batch(length: int, options: SigfoxOptions) -> None:
    if length > options.batch_max:
        raise MessageError(
            f"the batch has {length} messages; `batch_max` allows {options.batch_max}",
            code="batch_length",
            limit=options.batch_max,
        )


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as fault:
        raise MessageError(f"the body is not UTF-8: byte {fault.start}", code="not_utf8") from None


def _callback(document: dict[str, Any]) -> _Callback:
    """Return one checked message, with a device id. Sigfox writes «null» for what it lacks."""
    said = {key: value for key, value in document.items() if value not in ("", None, "null")}
    callback = convert(said, _Callback, lax=True)
    if not callback.device:
        raise MessageError(
            "`device` is missing: it names the device; is `{device}` in the callback's template?",
            code="device_missing",
            field="device",
        )
    if not _DEVICE.fullmatch(callback.device):
        raise bad_field("device", "must be up to 8 hexadecimal digits")
    return callback


def _uplink(document: dict[str, Any], device_template: str) -> Uplink:
    callback = _callback(document)
    device_id = (callback.device or "").upper()
    device = DeviceTemplate.fill(
        device_template,
        {"device_id": device_id, "device_type_id": str(callback.deviceTypeId or "")},
    )
    time_ms = int(callback.time * 1000) if callback.time else None
    if callback.infoCode is not None or callback.downlinkAck is not None:
        return Uplink(
            device=device,
            type=None,
            time_ms=time_ms,
            link=Link(device_id=device_id),
            reports=(_report(callback),),
            repeat_key=_repeat_key(callback, "ack|"),
        )
    payload = None
    if "data" in document:
        data = callback.data or ""
        if not _DATA.fullmatch(data):
            raise bad_field("data", f"must be up to {UPLINK_BYTES_MAX} bytes in hexadecimal")
        payload = bytes.fromhex(data)
    kind, fields = _kind(callback) if payload is None else ("uplink", None)
    metadata = _metadata(callback, document)
    if kind == "service_data":
        metadata["service"] = "error"
    return Uplink(
        device=device,
        type=kind,
        time_ms=time_ms,
        payload=payload,
        fields=fields,
        metadata=metadata,
        link=Link(device_id=device_id),
        repeat_key=_repeat_key(callback, "" if kind == "uplink" else f"{kind}|"),
        answerable=bool(callback.ack or callback.longPolling),
    )


def _kind(callback: _Callback) -> tuple[MessageType, dict[str, Any] | None]:
    """Return what a callback without data is: GEOLOC, STATUS or ERROR, and its fields."""
    if callback.computedLocation is not None:
        return "location", _location(callback.computedLocation)
    if callback.batt is not None or callback.temp is not None:
        said = {"battery_voltage": callback.batt, "temperature": callback.temp}
        return "status", {name: value for name, value in said.items() if value is not None}
    if callback.severity is not None or callback.info is not None:
        return "service_data", {"severity": callback.severity or "", "info": callback.info or ""}
    return "uplink", None


def _metadata(callback: _Callback, document: dict[str, Any]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for name, ours in _METADATA.items():
        value = getattr(callback, name)
        if value is not None:
            metadata[ours] = value
    for name, value in document.items():
        if name not in _KNOWN and name not in metadata:
            metadata[name] = value
    return metadata


def _location(located: dict[str, Any]) -> dict[str, Any]:
    """Return Sigfox's computed location in the words of the other dialects."""
    names = {"lat": "latitude", "lng": "longitude", "radius": "accuracy"}
    return {names.get(name, name): value for name, value in located.items()}


def _report(callback: _Callback) -> Report:
    if callback.infoCode is not None:
        name, state = _INFO.get(callback.infoCode, ("UNKNOWN", State.NOT_ACKNOWLEDGED))
    elif callback.downlinkAck:
        name, state = "ACKED", State.ACKNOWLEDGED
    else:
        name, state = "NOT_ACKED", State.NOT_ACKNOWLEDGED
    detail: dict[str, Any] = {"info": name}
    if callback.infoCode is not None:
        detail["info_code"] = callback.infoCode
    if callback.infoMessage:
        detail["message"] = callback.infoMessage
    if callback.downlinkAck is not None:
        detail["downlink_ack"] = callback.downlinkAck
    if callback.downlinkOverusage is not None:
        detail["downlink_overusage"] = callback.downlinkOverusage
    reason = "" if state in (State.ACKNOWLEDGED, State.ACCEPTED) else name.lower()
    return Report(state=state, reason=reason, detail=detail)


def _repeat_key(callback: _Callback, kind: str) -> str:
    """Return the key of one message: its counter (12 bits) and its time, one of them at least."""
    if callback.seqNumber is None and not callback.time:
        return ""
    who = f"{kind}{(callback.device or '').upper()}"
    return digest(f"{who}|{callback.seqNumber}|{callback.time}|{callback.data or ''}")


def _spellings(request: Request, options: SigfoxOptions) -> list[str]:
    """Return the request's device ids as they were sent, each once, in order."""
    spelled: dict[str, str] = {}
    for document in _documents(request, options):
        device = _callback(document).device or ""
        spelled.setdefault(device.upper(), device)
    return list(spelled.values())


DIALECT = Sigfox()
