"""Downlinks as applications send them to The Things Stack v3.

In: `POST …/applications/{app}/devices/{dev}/down/push|replace` and `GET …/down` below `/api/v3/as`,
and the webhooks' variant `…/applications/{app}/webhooks/{hook}/devices/{dev}/down/…`, where a hook
is one of our integrations. Names in snake_case or camelCase. Out: `{}` (the webhooks' variant:
nothing), the queue, or an error with `code`, `message` and `details` as that system writes them
(`api/ttn/lorawan/v3/error.proto`, `pkg/errors/http.go` of TheThingsNetwork/lorawan-stack). The
answer's header `x-funicular-downlinks` has the ids, which that system never tells.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
import orjson
from msgspec import Meta

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Queued
from pipeline.model.downlink import (
    CORRELATION_ID_LENGTH_MAX,
    CORRELATION_IDS_MAX,
    PRIORITIES,
    DownlinkRequest,
    Priority,
    State,
)
from pipeline.model.http import Response

from .applications import Asked, Place, error_of
from .json_body import json_object
from .problem import JSON

DOWNLINKS_MAX = 1_000
"""In one request, while there the limit is 100,000: a device's queue takes 100 by default."""
PREFIX = "/api/v3/as/applications/"
IDS_HEADER = "x-funicular-downlinks"
_TYPE = "type.googleapis.com/ttn.lorawan.v3.ErrorDetails"
_HERE = "pkg/applicationserver"

# gRPC's code → HTTP's status, as `pkg/errors/http.go` has it.
_STATUSES = {3: 400, 16: 401, 7: 403, 5: 404, 6: 409, 8: 429, 13: 500, 12: 501, 14: 503, 4: 504}
_CODES = {status: code for code, status in _STATUSES.items()} | {408: 4, 413: 3, 415: 3, 422: 3}
_NAMES = {
    # Ours → (namespace, name, gRPC code) of the error that means the same there.
    "no_payload": (_HERE, "no_payload", 3),
    "no_f_port": (_HERE, "no_f_port", 3),
    "device_unknown": (_HERE, "device_not_found", 5),
    "queue_full": ("pkg/networkserver", "downlink_queue_capacity", 8),
    "payload_length": ("pkg/networkserver", "application_downlink_too_long", 3),
    "webhook_not_found": (f"{_HERE}/io/web", "webhook_not_found", 5),
    "unauthorized": ("pkg/auth/rights", "no_authentication", 16),
    "forbidden": ("pkg/auth/rights", "no_application_rights", 7),
    "no_keys": ("pkg/auth/rights", "no_application_rights", 7),
    "not_found": ("pkg/web", "route_not_found", 5),
    "body_too_large": ("pkg/web", "request_body_too_large", 3),
    "json": (f"{_HERE}/io/web", "decode_body", 3),
    "json_comma": (f"{_HERE}/io/web", "decode_body", 3),
    "validation": ("pkg/errors", "validation", 3),
    "busy": ("funicular", "busy", 14),
    "timeout": ("funicular", "timeout", 4),
    "idempotency_key_reused": ("funicular", "idempotency_key_reused", 6),
    "method": ("funicular", "method", 12),
}

_Correlations = Annotated[
    list[Annotated[str, Meta(max_length=CORRELATION_ID_LENGTH_MAX)]],
    Meta(max_length=CORRELATION_IDS_MAX),
]


class _Downlink(msgspec.Struct):
    """One item. Members that are not known are passed over, as there; those that are known there
    and cannot be done here are refused.
    """

    f_port: Annotated[int, Meta(ge=0, le=255)] | None = None
    frm_payload: bytes | None = None
    decoded_payload: dict[str, Any] | None = None
    confirmed: bool | None = None
    priority: str | int | None = None
    correlation_ids: _Correlations | None = None
    class_b_c: Any = None
    confirmed_retry: Any = None


class TtsV3Speech:
    """See the module, and `applications.Speech`."""

    dialect = "tts_v3"
    prefix = "/api/v3/"

    def place(self, path: str) -> Place | None:
        """Return application, device and hook of an address."""
        if not path.startswith(PREFIX):
            return None
        parts = [unquote(part) for part in path[len(PREFIX) :].split("/")]
        hook = ""
        if len(parts) > 2 and parts[1] == "webhooks":
            hook, parts = parts[2], [parts[0], *parts[3:]]
        if len(parts) not in (4, 5) or parts[1] != "devices" or parts[3] != "down":
            return None
        operation = parts[4] if len(parts) == 5 else ""
        if operation not in ("push", "replace", "") or not all(parts[:4]):
            return None
        if hook and not operation:
            return None
        return Place(
            parts[0],
            parts[2],
            hook,
            show=not operation,
            process_must_be=bool(hook),
            replace=operation == "replace",
        )

    def allowed(self, place: Place) -> tuple[str, ...]:
        """Return GET for the queue, POST for changing it."""
        return ("GET",) if place.show else ("POST",)

    def key(self, query: Mapping[str, str]) -> str:  # noqa: ARG002 - the port's shape
        """Return nothing: the key stands in `Authorization: Bearer`."""
        return ""

    def read(self, place: Place, body: bytes, source: str) -> Asked:
        """Return the downlinks of the body."""
        items = _snake(json_object(body)).get("downlinks")
        if items is None:
            items = []
        if not isinstance(items, list):
            raise _invalid("downlinks", "it must be a list")
        if len(items) > DOWNLINKS_MAX:
            raise _invalid("downlinks", f"at most {DOWNLINKS_MAX} in one request")
        requests = tuple(_request(place_, item, source) for place_, item in enumerate(items))
        return Asked(requests, place.replace, place.device_id)

    def done(self, place: Place, ids: list[str]) -> Response:
        """Return `{}`, as there, and in a header what became of it."""
        headers = {IDS_HEADER: ",".join(ids)} if ids else {}
        if place.process_must_be:
            return Response(200, b"", headers)
        return Response(200, b"{}", {**JSON, **headers})

    def listed(self, downlinks: list[dict[str, Any]], held: list[Queued]) -> Response:
        """Return `{"downlinks": […]}`; `{}` where there are none, as zero values are left out."""
        waiting = [one for one in downlinks if one["state"] in _LISTED]
        ours = {one["id"] for one in waiting}
        items = [_held(item) for item in held if item.ours not in ours]
        items += [_item(one) for one in waiting]
        return Response(200, orjson.dumps({"downlinks": items} if items else {}), JSON)

    def refused(self, response: Response) -> Response:
        """Return the error with its code, message and details."""
        said = dict(error_of(response))
        ours, message = said.pop("code", "error"), str(said.pop("message", ""))
        default = ("funicular", str(ours), _CODES.get(response.status, 13))
        namespace, name, code = _NAMES.get(ours, default)
        details: dict[str, Any] = {
            "@type": _TYPE,
            "namespace": namespace,
            "name": name,
            "message_format": message,
            "code": code,
        }
        attributes = {key: value for key, value in said.items() if value is not None}
        if attributes:
            details["attributes"] = attributes
        body = {
            "code": code,
            "message": f"error:{namespace}:{name} ({message})",
            "details": [details],
        }
        kept = {k: v for k, v in response.headers.items() if k.lower() in _HEADERS_KEPT}
        status = 405 if response.status == 405 else _STATUSES[code]
        return Response(status, orjson.dumps(body), {**JSON, **kept})


_LISTED = frozenset({State.QUEUED, State.ANSWERING, State.SENDING})
_HEADERS_KEPT = frozenset({"allow", "retry-after", "www-authenticate", "connection"})


def _request(place: int, item: Any, source: str) -> DownlinkRequest:
    where = f"downlinks[{place}]"
    if not isinstance(item, dict):
        raise _invalid(where, "it must be an object")
    try:
        down = msgspec.convert(item, _Downlink)
    except msgspec.ValidationError as error:
        said, _, field = str(error).partition(" - at `$")
        raise _invalid(f"{where}{field.rstrip('`')}", said) from None
    for name in ("class_b_c", "confirmed_retry"):
        if getattr(down, name):
            raise _invalid(f"{where}.{name}", "Funicular does not carry it; leave it away")
    if down.f_port == 0:
        raise MessageError("no FPort", code="no_f_port", index=place)
    if down.frm_payload is None and down.decoded_payload is None:
        raise MessageError("no payload", code="no_payload", index=place)
    if down.frm_payload is not None and down.f_port is None:
        raise MessageError("no FPort", code="no_f_port", index=place)
    return DownlinkRequest(
        payload=down.frm_payload,
        fields=down.decoded_payload if down.frm_payload is None else None,
        f_port=down.f_port,
        confirmed=bool(down.confirmed),
        queue="last",
        priority=_priority(where, down.priority),
        source=source,
        correlation_ids=tuple(down.correlation_ids or ()),
    )


def _priority(where: str, given: str | int | None) -> Priority | None:
    """Return a priority by its name or number; there, none is the lowest."""
    if isinstance(given, int):
        name = str(PRIORITIES[given]) if 0 <= given < len(PRIORITIES) else ""
    else:
        name = (given or PRIORITIES[0]).lower()
    for known in PRIORITIES:
        if name == known:
            return known
    listed = ", ".join(known.upper() for known in PRIORITIES)
    raise _invalid(f"{where}.priority", f"{given!r} is none of {listed}")


def _invalid(field: str, why: str) -> MessageError:
    return MessageError(f"invalid `{field}`: {why}", code="validation", field=field)


def _item(downlink: dict[str, Any]) -> dict[str, Any]:
    """Return one of ours, as the owner told it, in that system's form."""
    item: dict[str, Any] = {}
    if downlink.get("f_port") is not None:
        item["f_port"] = downlink["f_port"]
    if downlink.get("payload"):
        item["frm_payload"] = downlink["payload"]
    elif downlink.get("fields") is not None:
        item["decoded_payload"] = downlink["fields"]
    if downlink.get("confirmed"):
        item["confirmed"] = True
    item["priority"] = (downlink.get("priority") or "normal").upper()
    item["correlation_ids"] = [f"funicular:{downlink['id']}", *downlink.get("correlation_ids", ())]
    return item


def _held(held: Queued) -> dict[str, Any]:
    """Return one that the network server holds."""
    item: dict[str, Any] = {}
    if held.f_port is not None:
        item["f_port"] = held.f_port
    if held.payload:
        item["frm_payload"] = b64encode(held.payload).decode()
    if held.confirmed:
        item["confirmed"] = True
    item["priority"] = str(held.detail.get("priority", "normal")).upper()
    for name in ("f_cnt", "correlation_ids"):
        if held.detail.get(name):
            item[name] = held.detail[name]
    return item


_FREE = frozenset({"decoded_payload"})  # an application's own names


def _snake(value: Any) -> Any:
    """Return a JSON value with snake_case names; its depth is bounded by the reader's limit."""
    if isinstance(value, dict):
        renamed = ((_snake_name(name), inner) for name, inner in value.items())
        return {name: inner if name in _FREE else _snake(inner) for name, inner in renamed}
    return [_snake(inner) for inner in value] if isinstance(value, list) else value


def _snake_name(name: str) -> str:
    return re.sub(r"(?<=.)([A-Z])", r"_\1", name).lower()
