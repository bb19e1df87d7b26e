"""The Things Stack's `ApplicationUp` (JSON) → one Uplink; the dialect in `tts_v3` says what becomes
what.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import orjson

from pipeline.errors import MessageError
from pipeline.integrations.document import (
    Name,
    Uint8,
    Uint32,
    bad_field,
    convert,
    digest,
    parse_object,
    time_of,
)
from pipeline.integrations.lorawan import best_reception
from pipeline.model.downlink import State
from pipeline.model.record import ID_LENGTH_MAX
from pipeline.model.uplink import Link, Report, Uplink

OUR_ID = "funicular:"
"""What a correlation id starts with that says which of our downlinks a message is about."""

_REPORTS = {
    "downlink_queued": State.ACCEPTED,
    "downlink_sent": State.ACCEPTED,
    "downlink_ack": State.ACKNOWLEDGED,
    "downlink_nack": State.NOT_ACKNOWLEDGED,
}
# Objects of names that users chose: they are not translated from camelCase.
_FREE = frozenset(
    {"decoded_payload", "normalized_payload", "attributes", "data", "locations", "details"}
)


class _ApplicationIds(msgspec.Struct):
    application_id: Name | None = None


class Ids(msgspec.Struct):
    """`end_device_ids`."""

    device_id: Name | None = None
    application_ids: _ApplicationIds | None = None
    dev_eui: Name | None = None
    join_eui: Name | None = None
    dev_addr: Name | None = None

    @property
    def application_id(self) -> str:
        """Empty where the message does not say."""
        return (self.application_ids and self.application_ids.application_id) or ""


class _Data(msgspec.Struct):
    """`uplink_message`, `uplink_normalized` and `join_accept`."""

    session_key_id: str | None = None
    f_port: Uint8 | None = None
    f_cnt: Uint32 | None = None
    frm_payload: bytes | None = None
    decoded_payload: dict[str, Any] | None = None
    decoded_payload_warnings: list[str] | None = None
    normalized_payload: Any = None
    normalized_payload_warnings: list[str] | None = None
    rx_metadata: list[dict[str, Any]] | None = None
    settings: dict[str, Any] | None = None
    received_at: str | None = None
    last_a_f_cnt_down: Uint32 | None = None
    confirmed: bool | None = None
    consumed_airtime: str | None = None
    packet_error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    locations: dict[str, Any] | None = None
    version_ids: dict[str, Any] | None = None
    network_ids: dict[str, Any] | None = None
    attributes: dict[str, Any] | None = None
    pending_session: bool | None = None
    invalidated_downlinks: list[_Downlink] | None = None


class _Downlink(msgspec.Struct):
    """One downlink in a report; only what says whose it is, and how it went."""

    correlation_ids: list[str] | None = None
    f_port: Uint8 | None = None
    f_cnt: Uint32 | None = None
    confirmed_retry: dict[str, Any] | None = None


class _Error(msgspec.Struct):
    namespace: str | None = None
    name: str | None = None
    message_format: str | None = None
    attributes: dict[str, Any] | None = None
    code: int | None = None


class _Failed(msgspec.Struct):
    downlink: _Downlink | None = None
    error: _Error | None = None


class _Invalidated(msgspec.Struct):
    downlinks: list[_Downlink] | None = None
    last_f_cnt_down: Uint32 | None = None


class _Location(msgspec.Struct):
    service: str | None = None
    location: dict[str, Any] | None = None
    attributes: dict[str, Any] | None = None


class _ServiceData(msgspec.Struct):
    service: str | None = None
    data: dict[str, Any] | None = None


class _Head(msgspec.Struct):
    end_device_ids: Ids | None = None
    correlation_ids: list[str] | None = None
    received_at: str | None = None
    simulated: bool | None = None


_SHAPES: dict[str, type[Any]] = {
    "uplink_message": _Data,
    "uplink_normalized": _Data,
    "join_accept": _Data,
    "downlink_ack": _Downlink,
    "downlink_nack": _Downlink,
    "downlink_sent": _Downlink,
    "downlink_queued": _Downlink,
    "downlink_failed": _Failed,
    "downlink_queue_invalidated": _Invalidated,
    "location_solved": _Location,
    "service_data": _ServiceData,
}


class Up(msgspec.Struct, frozen=True):
    """A checked ApplicationUp: of `kind`, with that kind's message."""

    kind: str
    message: Any
    ids: Ids
    correlation_ids: list[str]
    received_at: str | None
    simulated: bool
    received_ms: int | None


def parse(body: bytes) -> Up:
    """Return the body's ApplicationUp. MessageError: it is none, or has no device id."""
    document = parse_object(body)
    if _is_camel(document):
        document = _snake(document)
    head = convert(document, _Head, lax=True)
    kinds = [kind for kind in _SHAPES if document.get(kind) is not None]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none"
        raise MessageError(
            f"a message has exactly one of {', '.join(_SHAPES)}; this one has {found}",
            code="field",
            field=kinds[1] if kinds else "uplink_message",
        )
    kind = kinds[0]
    ids = head.end_device_ids
    if ids is None or not ids.device_id:
        raise MessageError(
            "`end_device_ids.device_id` is missing: it names the device",
            code="device_missing",
            field="end_device_ids.device_id",
        )
    try:
        message = convert(document[kind], _SHAPES[kind], lax=True)
    except MessageError as fault:
        field = f"{kind}.{fault.detail.get('field', '')}".rstrip(".")
        raise bad_field(field, fault.message.split("` ", 1)[-1]) from None
    return Up(
        kind=kind,
        message=message,
        ids=ids,
        correlation_ids=head.correlation_ids or [],
        received_at=head.received_at,
        simulated=bool(head.simulated),
        received_ms=time_of(head.received_at, "received_at"),
    )


def uplink_of(up: Up, device: str, link: Link) -> Uplink:
    """Return what the message says, for `device`."""
    if up.kind in ("uplink_message", "uplink_normalized", "join_accept"):
        return _data(up, device, link)
    ids = up.ids
    if up.kind == "location_solved":
        solved: _Location = up.message
        return Uplink(
            device=device,
            type="location",
            time_ms=up.received_ms,
            fields=solved.location or {},
            dev_eui=ids.dev_eui or "",
            metadata={
                **_metadata(up),
                "service": solved.service or "",
                "service_attributes": solved.attributes or {},
            },
            link=link,
            repeat_key=_repeat_key(up, solved.location),
        )
    if up.kind == "service_data":
        data: _ServiceData = up.message
        return Uplink(
            device=device,
            type="service_data",
            time_ms=up.received_ms,
            fields=data.data or {},
            dev_eui=ids.dev_eui or "",
            metadata={**_metadata(up), "service": data.service or ""},
            link=link,
            repeat_key=_repeat_key(up, data.data),
        )
    return Uplink(
        device=device,
        type=None,
        time_ms=up.received_ms,
        dev_eui=ids.dev_eui or "",
        link=link,
        reports=_reports(up),
        repeat_key=_repeat_key(up, None),
    )


def _data(up: Up, device: str, link: Link) -> Uplink:
    data: _Data = up.message
    uplink = up.kind != "join_accept"
    normalized = up.kind == "uplink_normalized"
    fields = data.decoded_payload
    payload = data.frm_payload
    if normalized:
        fields = data.normalized_payload
        if type(fields) is not dict:
            raise bad_field("uplink_normalized.normalized_payload", "must be a JSON object")
        # The uplink_message beside it has the bytes; decoded again they would count twice.
        payload = None
    elif uplink and payload is None and fields is None:
        payload = b""
    time_ms = time_of(data.received_at, f"{up.kind}.received_at")
    return Uplink(
        device=device,
        type="uplink" if uplink else "join",
        time_ms=up.received_ms if time_ms is None else time_ms,
        payload=payload,
        fields=fields if uplink else None,
        f_port=(data.f_port or 0) if uplink else None,
        f_cnt=(data.f_cnt or 0) if uplink else None,
        dev_eui=up.ids.dev_eui or "",
        confirmed=bool(data.confirmed),
        metadata=_data_metadata(up, data),
        attributes=data.attributes or {},
        link=link,
        reports=_invalidated(data.invalidated_downlinks),
        repeat_key=_repeat_key(up, fields if normalized else None),
    )


def _metadata(up: Up) -> dict[str, Any]:
    ids = up.ids
    metadata: dict[str, Any] = {"application_id": ids.application_id, "device_id": ids.device_id}
    if ids.join_eui:
        metadata["join_eui"] = ids.join_eui
    if ids.dev_addr:
        metadata["dev_addr"] = ids.dev_addr
    if up.received_at:
        metadata["received_at"] = up.received_at
    if up.simulated:
        metadata["simulated"] = True
    return metadata


_AS_THEY_ARE = (
    "session_key_id",
    "decoded_payload_warnings",
    "normalized_payload_warnings",
    "last_a_f_cnt_down",
    "consumed_airtime",
    "packet_error_rate",
    "locations",
    "pending_session",
)


def _data_metadata(up: Up, data: _Data) -> dict[str, Any]:
    metadata = _metadata(up)
    for name in _AS_THEY_ARE:
        value = getattr(data, name)
        if value is not None:
            metadata[name] = value
    if up.kind == "uplink_normalized":
        metadata["normalized"] = True
    elif data.normalized_payload is not None:
        metadata["normalized_payload"] = data.normalized_payload
    if data.version_ids:
        metadata.update(data.version_ids)
    if data.network_ids:
        metadata.update(data.network_ids)
    if data.settings is not None:
        metadata["settings"] = data.settings
        metadata.update(_radio(data.settings))
    if data.rx_metadata is not None:
        metadata["rx_metadata"] = data.rx_metadata
        metadata.update(best_reception(data.rx_metadata))
    return metadata


def _radio(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what rules ask of `settings`, flat; the frequency, text there, is a number here."""
    radio: dict[str, Any] = {}
    frequency = settings.get("frequency")
    if isinstance(frequency, int) or (
        isinstance(frequency, str) and frequency.isascii() and frequency.isdigit()
    ):
        radio["frequency"] = int(frequency) if len(str(frequency)) < 20 else 0
    rate = settings.get("data_rate")
    lora = rate.get("lora") if isinstance(rate, dict) else None
    if isinstance(lora, dict):
        for name in ("bandwidth", "spreading_factor", "coding_rate"):
            if name in lora:
                radio[name] = lora[name]
    if "coding_rate" in settings:
        radio["coding_rate"] = settings["coding_rate"]
    return radio


def _reports(up: Up) -> tuple[Report, ...]:
    if up.kind == "downlink_failed":
        failed: _Failed = up.message
        return _failed(failed, up.correlation_ids)
    if up.kind == "downlink_queue_invalidated":
        invalidated: _Invalidated = up.message
        return _invalidated(invalidated.downlinks)
    downlink: _Downlink = up.message
    detail: dict[str, Any] = {"event": up.kind}
    if up.kind == "downlink_sent":
        detail["transmitted"] = True
    if downlink.f_cnt is not None:
        detail["f_cnt"] = downlink.f_cnt
    if downlink.confirmed_retry is not None:
        detail["confirmed_retry"] = downlink.confirmed_retry
    return tuple(
        Report(state=_REPORTS[up.kind], downlink_id=ours, detail=detail)
        for ours in _ours(downlink.correlation_ids, up.correlation_ids)
    )


def _failed(failed: _Failed, correlation_ids: list[str]) -> tuple[Report, ...]:
    nested = failed.downlink.correlation_ids if failed.downlink else None
    error = failed.error or _Error()
    attributes = error.attributes or {}
    message = re.sub(
        r"\{(\w+)\}",
        lambda match: f"`{attributes[match[1]]}`" if match[1] in attributes else match[0],
        error.message_format or "",
    )
    detail: dict[str, Any] = {"event": "downlink_failed", "message": message}
    if error.namespace:
        detail["namespace"] = error.namespace
    if error.code is not None:
        detail["code"] = error.code
    return tuple(
        Report(
            state=State.FAILED,
            downlink_id=ours,
            reason=error.name or message or "failed",
            detail=detail,
        )
        for ours in _ours(nested, correlation_ids)
    )


def _invalidated(downlinks: list[_Downlink] | None) -> tuple[Report, ...]:
    return tuple(
        Report(state=State.FAILED, downlink_id=ours, reason="invalidated")
        for downlink in downlinks or ()
        for ours in _ours(downlink.correlation_ids, None)
    )


def _ours(nested: list[str] | None, outer: list[str] | None) -> list[str]:
    """Return the ids of our downlinks among the correlation ids; others' downlinks have none."""
    found: dict[str, None] = {}
    for correlation_id in (*(nested or ()), *(outer or ())):
        if correlation_id.startswith(OUR_ID):
            ours = correlation_id[len(OUR_ID) :]
            if 0 < len(ours) <= ID_LENGTH_MAX and ours.isprintable():
                found[ours] = None
    return list(found)


def _repeat_key(up: Up, content: Any) -> str:
    """Return the key of one message.

    Of an uplink its session, counter and time, which its storage keeps, too (a join resets the
    counter, and so may a device without sessions). Else the Application Server's own correlation
    id where it is there: unique for what the network server told it, which may be several messages
    of different kinds (and one normalized message a measurement, hence `content`). Else an uplink's
    counter with the session, or with the time. Where nothing tells two messages apart there is no
    key: a message twice is better than a message lost.
    """
    if up.kind == "uplink_message" and (told := _of_uplink(up)):
        return told
    for correlation_id in up.correlation_ids:
        if correlation_id.startswith("as:up:"):
            told = correlation_id[6:]
            break
    else:
        told = _without_correlation(up)
        if not told:
            return ""
    if content is not None:
        told = digest(told, orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
    if up.kind != "uplink_message":
        told = f"{up.kind}:{told}"
    return told if len(told) <= ID_LENGTH_MAX else digest(told)


def _of_uplink(up: Up) -> str:
    data = up.message
    if not isinstance(data, _Data) or not data.session_key_id:
        return ""
    received_ms = time_of(data.received_at, "uplink_message.received_at")
    if received_ms is None:
        return ""
    who = up.ids.dev_eui or f"{up.ids.application_id}:{up.ids.device_id}"
    return digest(f"{who}|{data.session_key_id}|{data.f_cnt or 0}|{received_ms}")


def _without_correlation(up: Up) -> str:
    who = up.ids.dev_eui or f"{up.ids.application_id}:{up.ids.device_id}"
    when = up.received_at or ""
    count = ""
    if isinstance(up.message, _Data):
        when = up.message.session_key_id or up.message.received_at or when
        count = str(up.message.f_cnt or 0)
    return digest(f"{who}|{up.kind}|{when}|{count}") if when else ""


def _is_camel(document: dict[str, Any]) -> bool:
    """Return whether the names of the document, its ids or its message are in camelCase."""
    for key, value in document.items():
        if not key.islower():
            return True
        if type(value) is dict and any(not name.islower() for name in value):
            return True
    return False


def _snake(value: Any) -> Any:
    """Return a JSON value with snake_case names; its depth is bounded by the reader's limit."""
    if type(value) is dict:
        return {
            name: inner if name in _FREE else _snake(inner)
            for name, inner in ((_snake_name(key), inner) for key, inner in value.items())
        }
    if type(value) is list:
        return [_snake(inner) for inner in value]
    return value


@lru_cache(maxsize=1024)
def _snake_name(name: str) -> str:
    return re.sub(r"(?<=.)([A-Z])", r"_\1", name).lower()
