"""A test's words for an uplink → the request that a network server would send.

Made from the dialect's own sample, and read back by the dialect: so a test cannot say what the
dialect does not understand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from pipeline.errors import MessageError
from pipeline.model.http import Request
from pipeline.model.uplink import Uplink
from pipeline.rulebook.book import Integration

if TYPE_CHECKING:
    # Its models take half a second to load, which the load of a bench does without.
    from pipeline.rehearse.chain_test_config import DeviceConfig, UplinkConfig

_PORTS = ("f_port", "fPort", "port")
"""What dialects call LoRaWAN's port in JSON."""
_PROBE = "abcdef"
"""A device id that every dialect takes: Sigfox knows hexadecimal ones only."""


class StepError(Exception):
    """A step that cannot be done as it is written; `message` says why, and what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def request_of(
    uplink: UplinkConfig,
    integration: Integration,
    *,
    device: str | None,
    counter: int,
    now_ms: int,
) -> Request:
    """Return the request of a step. `device` is that of the test, for a step that names none.

    StepError: it cannot be made.
    """
    if uplink.is_whole:
        return _whole(uplink)
    device_id = uplink.device_id
    if device_id is None:
        name = uplink.device or device
        if name is None:
            raise StepError("says no device: name it by `device_id`, or in `given`")
        device_id = device_id_of(integration, name, uplink.merge)
    counter = counter if uplink.counter is None else uplink.counter
    payload = uplink.bytes or b""
    sample = _sample(integration, device_id, counter, payload, now_ms)
    request = _merged(sample, uplink.merge)
    if uplink.f_port is not None:
        request = with_port(request, uplink.f_port)
        if _read(integration, request).f_port != uplink.f_port:
            raise StepError(
                f"the dialect {integration.dialect.name} has no f_port in its sample; leave it"
                " out, or write the whole `body`"
            )
    return msgspec.structs.replace(
        request,
        method=uplink.method,
        headers={**request.headers, **_lower(uplink.headers)},
        query={**request.query, **uplink.query},
    )


def heard(integration: Integration, device: DeviceConfig, now_ms: int) -> Uplink:
    """Return what a device's first uplink would say of it: how it can be reached."""
    device_id = device_id_of(integration, device.name, device.merge)
    sample = _sample(integration, device_id, 0, b"", now_ms)
    return _read(integration, _merged(sample, device.merge))


def device_id_of(integration: Integration, name: str, merge: dict[str, Any]) -> str:
    """Return the id by which the network server's sample must call a device of this name.

    StepError: no id gives this name.
    """
    probe = _named(integration, _PROBE, merge)
    if probe is None or probe.lower().count(_PROBE) != 1:
        return name
    at = probe.lower().index(_PROBE)
    before, after = probe[:at], probe[at + len(_PROBE) :]
    fits = name.startswith(before) and name.endswith(after)
    device_id = name[len(before) : len(name) - len(after)]
    if fits and len(name) > len(before) + len(after):
        return device_id
    raise StepError(
        f"`{name}` cannot be a device of {integration.name}: the names of its samples look like"
        f" `{before}hall{after}`; call it so, set what comes before by `merge`, or write the"
        " whole `body`"
    )


def _named(integration: Integration, device_id: str, merge: dict[str, Any]) -> str | None:
    request = _merged(_sample(integration, device_id, 0, b"", 0), merge)
    return _read(integration, request).device


def _read(integration: Integration, request: Request) -> Uplink:
    try:
        return integration.dialect.read(request, integration.options, integration.device_template)[
            0
        ]
    except MessageError as error:
        raise StepError(f"{integration.name} would not take it: {error.message}") from None


def _sample(
    integration: Integration, device_id: str, counter: int, payload: bytes, now_ms: int
) -> Request:
    try:
        return integration.dialect.sample(device_id, counter, payload, now_ms)
    except MessageError as error:
        raise StepError(
            f"the dialect {integration.dialect.name} has no such uplink: {error.message}"
        ) from None


def _whole(uplink: UplinkConfig) -> Request:
    content_type = ""
    body = uplink.body_bytes or b""
    if isinstance(uplink.body, str):
        body, content_type = uplink.body.encode(), "text/plain"
    elif uplink.body is not None:
        body, content_type = orjson.dumps(uplink.body), "application/json"
    elif body:
        content_type = "application/octet-stream"
    headers = {"content-type": content_type} if content_type else {}
    return Request(
        body=body,
        method=uplink.method,
        headers={**headers, **_lower(uplink.headers)},
        query=dict(uplink.query),
    )


def _merged(request: Request, merge: dict[str, Any]) -> Request:
    if not merge:
        return request
    document = _json(request.body)
    if not isinstance(document, dict):
        raise StepError("the dialect's sample is no JSON object, so nothing can be merged into it")
    return msgspec.structs.replace(request, body=orjson.dumps(_merge(document, merge)))


def _merge(onto: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return `onto` with `values`: maps are merged, null takes a key out, all else is replaced."""
    made = dict(onto)
    for key, value in values.items():
        inner = made.get(key)
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict) and isinstance(inner, dict):
            made[key] = _merge(inner, value)
        else:
            made[key] = value
    return made


def with_port(request: Request, f_port: int) -> Request:
    """Return a sample with LoRaWAN's port set, wherever its dialect has one."""
    document = _json(request.body)
    return msgspec.structs.replace(request, body=orjson.dumps(_set_port(document, f_port)))


def _set_port(value: Any, f_port: int) -> Any:
    if isinstance(value, dict):
        return {
            key: f_port if key in _PORTS and isinstance(inner, int) else _set_port(inner, f_port)
            for key, inner in value.items()
        }
    return value


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
