"""One uplink → readings: by the converter's script, or from what the network server decoded.

A stage asks `call_of` for every uplink of a batch, has all scripts called at once, and hands each
result to `readings_of`.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import orjson

from pipeline.convert import thingsboard
from pipeline.convert.reading import Reading
from pipeline.errors import MessageError, ScriptError
from pipeline.integrations.document import DEPTH_MAX, check_depth, parse, too_deep
from pipeline.model.uplink import Uplink
from pipeline.ports import ScriptCall
from pipeline.rulebook.book import Integration, Rulebook
from pipeline.rulebook.choosing import choose_of

READINGS_MAX = 5_000
"""Sets of values that one message may have; each becomes an event."""
_LORAWAN_RESULT = frozenset({"data", "warnings", "errors", "normalized"})


def converter_of(uplink: Uplink, integration: Integration, book: Rulebook) -> str | None:
    """Return the name of the converter that has an uplink; None: there is none, or it needs none.

    None needs what is no uplink, and f_port 0 (LoRaWAN's MAC commands).
    """
    if uplink.type != "uplink" or uplink.f_port == 0:
        return None
    return choose_of(book, integration, uplink.device, uplink.dev_eui, uplink.metadata)


def call_of(
    uplink: Uplink, integration: Integration, book: Rulebook, name: str | None, received_ms: int
) -> ScriptCall | None:
    """Return the call that decodes an uplink by the converter `name`; None: there is nothing to
    call or to decode, as where the network server handed it over without bytes.

    MessageError (`no_converter`): the rules have lost it.
    """
    if name is None:
        return None
    converter = book.converters.get(name)
    if converter is None:
        raise MessageError(f"there is no converter `{name}`", code="no_converter")
    if converter.decoder is None:
        return None
    contract = converter.contract or integration.dialect.contract
    argument: dict[str, Any]
    if contract == "thingsboard":
        if uplink.payload is None and uplink.fields is not None:
            return None
        argument = {
            "payload": b64encode(uplink.payload or b"").decode(),
            "metadata": _flat(uplink, integration),
        }
        if converter.decoder.language == "codec":  # which reads times that count from this one
            argument["recvTime"] = received_ms if uplink.time_ms is None else uplink.time_ms
    elif not uplink.payload:
        return None
    else:
        time_ms = received_ms if uplink.time_ms is None else uplink.time_ms
        argument = {
            "bytes": b64encode(uplink.payload).decode(),
            "fPort": uplink.f_port or 0,
            "recvTime": time_ms,
            "variables": dict(integration.metadata),
        }
    return ScriptCall(
        tenant=integration.tenant,
        script=converter.decoder,
        operation="decode_uplink",
        argument=argument,
        contract="thingsboard" if contract == "thingsboard" else "lorawan",
    )


def readings_of(
    uplink: Uplink,
    integration: Integration,
    call: ScriptCall | None,
    result: Any,
    received_ms: int,
    *,
    readings_max: int = READINGS_MAX,
) -> list[Reading]:
    """Return an uplink's readings, given its call (None: none was made) and the call's result.

    Usually one; none where a converter of the ThingsBoard contract returned an empty array: it
    wants nothing to happen. MessageError: the script failed, its result cannot be used, or the
    device has no name.
    """
    time_ms = received_ms if uplink.time_ms is None else uplink.time_ms
    if call is None:
        return _undecoded(uplink, integration, time_ms, readings_max)
    if isinstance(result, ScriptError):
        raise result
    try:
        result = _json(result)
        if call.contract == "lorawan" or _is_lorawan(result):
            return [_lorawan(uplink, result)]
        return thingsboard.read(
            result, device=uplink.device, time_ms=time_ms, readings_max=readings_max
        )
    except MessageError as fault:
        path = call.script.path
        raise ScriptError(
            f"{path}: the result cannot be used: {fault.message}",
            code="script_result" if fault.code == "field" else fault.code,
            **{**fault.detail, "script": path},
        ) from None


def _undecoded(
    uplink: Uplink, integration: Integration, time_ms: int, readings_max: int
) -> list[Reading]:
    """Return what the network server or the device said in JSON, without a script."""
    device = uplink.device
    fields = uplink.fields
    if integration.dialect.contract != "thingsboard" and device is not None:
        return [Reading(device, fields or {})]
    document: Any = _array(uplink.payload) if fields is None else fields
    first = document[0] if type(document) is list and document else document
    if thingsboard.has_shape(first):
        return thingsboard.read(document, device=device, time_ms=time_ms, readings_max=readings_max)
    if device is None:
        raise MessageError(
            "the request does not name its device: set `device_header`, `device_query` or"
            " `device_field` in the integration's options, or give it a converter that returns"
            " deviceName",
            code="device_missing",
        )
    sets = thingsboard.timed_sets(document, "body", time_ms) or [(time_ms, {})]
    if len(sets) > readings_max:
        raise thingsboard.too_many(readings_max)
    return [Reading(device, values, time_ms=ts) for ts, values in sets]


def _array(payload: bytes | None) -> Any:
    """Return a payload that is a JSON array, None for any other."""
    if not payload or payload.lstrip()[:1] != b"[":
        return None
    try:
        return parse(payload)
    except MessageError:
        return None  # bytes that happen to start like one; they go on as they are


def _is_lorawan(result: Any) -> bool:
    """Return whether a script of the ThingsBoard contract answered as `decodeUplink` does."""
    return type(result) is dict and "data" in result and result.keys() <= _LORAWAN_RESULT


def _lorawan(uplink: Uplink, result: Any) -> Reading:
    if uplink.device is None:
        raise MessageError(
            "neither the request nor the converter's result names the device",
            code="device_missing",
        )
    data = result.get("data") if type(result) is dict else None
    errors = result.get("errors") if type(result) is dict else None
    if errors:
        listed = errors if type(errors) is list else [errors]
        raise MessageError(", ".join(map(str, listed)), code="script_errors")
    if type(data) is not dict:
        raise MessageError("`data` must be an object", code="field", field="data")
    warnings = result.get("warnings") or ()
    if isinstance(warnings, str):
        warnings = (warnings,)
    normalized = result.get("normalized")
    return Reading(
        uplink.device,
        data,
        warnings=tuple(map(str, warnings)),
        metadata={} if normalized is None else _normalized(normalized),
    )


def _normalized(normalized: Any) -> dict[str, Any]:
    """Return measurements under the names that The Things Stack's own have."""
    said: dict[str, Any] = {"normalized_payload": normalized["data"]}
    if normalized["warnings"]:
        said["normalized_payload_warnings"] = normalized["warnings"]
    return said


def _json(value: Any) -> Any:
    """Return a script's result if it is JSON that every reader down the line can take.

    Whole numbers past 64 bits become doubles: JavaScript prints 1e20 without an exponent.
    MessageError (`field`): it is not JSON, or is nested too deep.
    """
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError as fault:
        reason = str(fault)
        if "ecursion" in reason:
            raise too_deep("it") from None
        if "64-bit" not in reason:
            raise MessageError(f"it is not JSON: {reason}", code="field", field="") from None
        value = _doubles(value, DEPTH_MAX)
        return _json(value)
    check_depth(value, text)
    return value


def _doubles(value: Any, depth: int) -> Any:
    if depth < 0:
        raise too_deep("it")
    if type(value) is dict:
        return {key: _doubles(inner, depth - 1) for key, inner in value.items()}
    if type(value) is list:
        return [_doubles(inner, depth - 1) for inner in value]
    if type(value) is int and value.bit_length() > 63:
        try:
            return float(value)
        except OverflowError:
            raise MessageError("a number is past what a double holds", code="field") from None
    return value


def _flat(uplink: Uplink, integration: Integration) -> dict[str, Any]:
    """Return ThingsBoard's metadata: flat, with the integration's own over the request's."""
    flat: dict[str, Any] = {}
    for name, value in uplink.metadata.items():
        if name == "query":
            flat.update(value)
        elif name == "headers":
            flat.update({f"Header:{header}": text for header, text in value.items()})
        elif not isinstance(value, dict | list):
            flat[name] = value
    known = {
        "deviceName": uplink.device,
        "devEui": uplink.dev_eui or None,
        "fPort": uplink.f_port,
        "fCnt": uplink.f_cnt,
    }
    flat.update({name: value for name, value in known.items() if value is not None})
    flat.update(integration.metadata)
    flat["integrationName"] = integration.name
    return flat
