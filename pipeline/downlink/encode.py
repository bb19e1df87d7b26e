"""The encode step: what a rule or an application asked for → bytes, by the integration's converter.

One call of the script engine for all downlinks of a batch.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipeline.errors import MessageError, ScriptError
from pipeline.model.event import RequestedDownlink
from pipeline.ports import ScriptCall, ScriptPort
from pipeline.rulebook.book import Converter, Integration, Rulebook
from pipeline.rulebook.choosing import choose, device_of

CONTENT_TYPES = ("JSON", "TEXT", "BINARY")


class Encoded(msgspec.Struct, frozen=True):
    """A downlink's bytes and port; `payload` None: no encoder, `fields` go as they are. Of one that
    was asked for by its bytes, `fields` are what the converter's `decodeDownlink` reads in them.
    """

    payload: bytes | None
    f_port: int | None
    fields: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()


def encode(
    requests: Sequence[RequestedDownlink], books: Mapping[str, Rulebook], scripts: ScriptPort
) -> list[Encoded | MessageError]:
    """Return each request's bytes, or why it has none, in order."""
    results: list[Encoded | MessageError | None] = []
    calls: list[ScriptCall] = []
    places: list[int] = []
    for place, request in enumerate(requests):
        prepared = _prepare(request, books)
        if isinstance(prepared, ScriptCall):
            calls.append(prepared)
            places.append(place)
            results.append(None)
        else:
            results.append(prepared)
    if calls:
        for place, call, value in zip(places, calls, scripts.call(calls), strict=True):
            results[place] = _result(requests[place], call, value)
    return [result for result in results if result is not None]


def _prepare(
    work: RequestedDownlink, books: Mapping[str, Rulebook]
) -> ScriptCall | Encoded | MessageError:
    request = work.request
    if request.payload is None and request.fields is None:
        return MessageError("the request has neither a payload nor fields", code="no_payload")
    book = books.get(work.tenant)
    integration = book.integrations.get(work.integration) if book else None
    if request.payload is not None:
        return _decoding(work, book, integration) or Encoded(
            request.payload, request.f_port, request.fields
        )
    if book is None or integration is None:
        return MessageError(
            f"there is no integration `{work.integration}`; a device must have sent an uplink,"
            " or the request must name its integration",
            code="no_integration",
        )
    converter = _converter(work, book, integration)
    if converter is None or converter.encoder is None:
        return Encoded(None, request.f_port, request.fields)
    contract = converter.contract or integration.dialect.contract
    argument: dict[str, Any]
    if contract == "thingsboard":
        argument = {
            "msg": request.fields,
            "metadata": _flat(work),
            "msgType": "ATTRIBUTES_UPDATED",
            "integrationMetadata": dict(integration.metadata),
        }
    else:
        argument = {
            "data": request.fields,
            "fPort": request.f_port,
            "variables": dict(integration.metadata),
        }
    return ScriptCall(
        tenant=work.tenant,
        script=converter.encoder,
        operation="encode_downlink",
        argument=argument,
        contract="thingsboard" if contract == "thingsboard" else "lorawan",
    )


def _converter(
    work: RequestedDownlink, book: Rulebook, integration: Integration
) -> Converter | None:
    """Return the device's converter: the one that had its last uplink; as long as it has sent none,
    the one that is chosen by what is known of it.
    """
    link = work.link
    if link is not None and link.converter in book.converters:
        return book.converters[link.converter]
    dev_eui = link.dev_eui if link is not None else ""
    name = choose(book, integration, device_of(work.device, dev_eui, work.metadata))
    return book.converters.get(name or "")


def _decoding(
    work: RequestedDownlink, book: Rulebook | None, integration: Integration | None
) -> ScriptCall | None:
    """Return the call that says what the bytes of a downlink mean, for those who look at it."""
    if book is None or integration is None or work.request.fields is not None:
        return None
    converter = _converter(work, book, integration)
    if converter is None or converter.downlink_decoder is None:
        return None
    return ScriptCall(
        tenant=work.tenant,
        script=converter.downlink_decoder,
        operation="decode_downlink",
        argument={
            "bytes": b64encode(work.request.payload or b"").decode(),
            "fPort": work.request.f_port or 0,
            "variables": dict(integration.metadata),
        },
    )


def _decoded(work: RequestedDownlink, value: Any) -> Encoded:
    """Return a downlink that goes as its bytes say, whether or not they could be read."""
    payload, f_port = work.request.payload, work.request.f_port
    if isinstance(value, ScriptError):
        return Encoded(payload, f_port, None, (f"decodeDownlink: {value}",))
    data = value.get("data") if isinstance(value, dict) else None
    return Encoded(payload, f_port, data if isinstance(data, dict) else None)


def _flat(work: RequestedDownlink) -> dict[str, Any]:
    """ThingsBoard hands an encoder a flat map of what is known about the device."""
    known = {"deviceName": work.device, "deviceType": work.device_type, **work.metadata}
    if work.link is not None and work.link.dev_eui:
        known["devEui"] = work.link.dev_eui
    return known


def _result(work: RequestedDownlink, call: ScriptCall, value: Any) -> Encoded | MessageError:
    if call.operation == "decode_downlink":
        return _decoded(work, value)
    if isinstance(value, ScriptError):
        return value
    try:
        if call.contract == "thingsboard":
            return _thingsboard(work, value)
        f_port = work.request.f_port if work.request.f_port is not None else value.get("fPort")
        return Encoded(
            bytes(value["bytes"]), f_port, work.request.fields, tuple(value.get("warnings", ()))
        )
    except (MessageError, ValueError, TypeError, KeyError, AttributeError) as fault:
        text = f"{call.script.path}: the encoder's result cannot be used: {fault}"
        return ScriptError(text, code="script_result", script=call.script.path)


def _thingsboard(work: RequestedDownlink, value: Any) -> Encoded:
    """Read `{contentType, data, metadata}`: ThingsBoard PE's downlink converter output."""
    content_type = value.get("contentType")
    if content_type not in CONTENT_TYPES:
        raise MessageError(f"contentType is {content_type!r}, not one of JSON, TEXT, BINARY")
    data = value.get("data")
    if not isinstance(data, str):
        raise MessageError("data is not a string")
    metadata = value.get("metadata") or {}
    f_port = work.request.f_port
    if f_port is None and "fPort" in metadata:
        f_port = int(metadata["fPort"])
    if content_type == "BINARY":
        try:
            return Encoded(b64decode(data, validate=True), f_port, work.request.fields)
        except binascii.Error as fault:
            raise MessageError(f"data is not base64: {fault}") from None
    return Encoded(data.encode(), f_port, work.request.fields)
