"""What an application may ask of a device: address and body in, an event for its owner out.

Addresses are `/api/v1/tenants/{tenant}/devices/{device}` and, below it, `/attributes/{scope}`,
`/downlinks`, `/downlinks/{id}`, `/calls` and `/calls/{id}`. Device names may hold `:` and `/`,
percent-encoded or not. `POST …/calls` is read in `calls.py`.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from pipeline.errors import MessageError
from pipeline.model.downlink import (
    CORRELATION_ID_LENGTH_MAX,
    CORRELATION_IDS_MAX,
    DownlinkRequest,
    Priority,
    QueueWord,
    queue_mode,
)
from pipeline.model.event import (
    AttributesChange,
    Cancel,
    DownlinkCommand,
    Forget,
    Query,
    Scope,
)
from pipeline.rulebook.duration import parse_duration

from .idempotency import idempotency_of
from .json_body import json_object
from .keys import Right
from .owner import Command, Origin

PREFIX = "/api/v1/tenants/"
ATTRIBUTE_NAME_LENGTH_MAX = 255
ATTRIBUTES_MAX = 1_000
"""In one change."""
EXPIRES_IN_MAX_MS = 366 * 86_400_000
SCOPES: tuple[str, ...] = get_args(Scope)

Resource = Literal["device", "attributes", "downlinks", "downlink", "calls", "call"]
RIGHTS: Mapping[tuple[Resource, str], Right] = {
    ("device", "GET"): "read",
    ("device", "DELETE"): "admin",
    ("attributes", "GET"): "read",
    ("attributes", "PATCH"): "write",
    ("attributes", "DELETE"): "write",
    ("downlinks", "GET"): "read",
    ("downlinks", "POST"): "write",
    ("downlinks", "DELETE"): "write",
    ("downlink", "GET"): "read",
    ("downlink", "DELETE"): "write",
    ("calls", "GET"): "read",
    ("calls", "POST"): "write",
    ("call", "GET"): "read",
}
"""Every request that there is, and the right that it needs."""


_LISTS: Mapping[str, tuple[Resource, Resource]] = {
    "downlinks": ("downlinks", "downlink"),
    "calls": ("calls", "call"),
}


class Target(NamedTuple):
    """What an address means. `item` is the attributes' scope, or the downlink's or call's id."""

    tenant: str
    device: str
    resource: Resource
    item: str = ""


class DownlinkBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST …/downlinks`: exactly one of `payload` (base64) and `fields`."""

    payload: str | None = None
    fields: dict[str, Any] | None = None
    f_port: Annotated[int, Meta(ge=0, le=255)] | None = None
    confirmed: bool = False
    queue: QueueWord | None = None
    priority: Priority | None = None
    expires_in: str | None = None
    expires_at: str | None = None
    supersede_key: Annotated[str, Meta(max_length=128)] = ""
    integration: Annotated[str, Meta(max_length=128)] = ""
    correlation_ids: Annotated[
        list[Annotated[str, Meta(max_length=CORRELATION_ID_LENGTH_MAX)]],
        Meta(max_length=CORRELATION_IDS_MAX),
    ] = []


Body = TypeVar("Body", bound=DownlinkBody)


def parse_path(path: str) -> Target | None:
    """Return what an address (percent-encoded, without its query) means; None: nothing here.

    The end of the path decides first: a device that is called `a/downlinks` is written
    `a%2Fdownlinks`. An end that is nearly one of ours is none: a `DELETE …/attributes/sharde` must
    not forget a device of that name.
    """
    if not path.startswith(PREFIX):
        return None
    segments = path[len(PREFIX) :].split("/")
    if len(segments) < 3 or segments[1] != "devices":
        return None
    tenant, names = unquote(segments[0]), segments[2:]
    resource: Resource = "device"
    item = ""
    if len(names) >= 3 and names[-2] == "attributes" and names[-1] in SCOPES:
        resource, item, names = "attributes", names[-1], names[:-2]
    elif len(names) >= 3 and names[-2] in _LISTS and names[-1]:
        resource, item, names = _LISTS[names[-2]][1], unquote(names[-1]), names[:-2]
    elif len(names) >= 2 and names[-1] in _LISTS:
        resource, names = _LISTS[names[-1]][0], names[:-1]
    device = unquote("/".join(names))
    if not tenant or not device or not names[-1] or "attributes" in names[-2:]:
        return None
    return Target(tenant, device, resource, item)


def command_of(  # noqa: PLR0917 - the parts of one request
    target: Target,
    method: str,
    query: Mapping[str, str],
    body: bytes,
    origin: Origin,
    idempotency_key: str = "",
) -> Command:
    """Return the event for the device's owner. `method` is one that RIGHTS has for the resource.

    MessageError: what is wrong with the body or the query. For `DELETE …/attributes/{scope}`
    without `keys` the caller asks for the names first and hands them in by `delete_attributes`.
    """
    if target.resource == "device":
        if method == "DELETE":
            return Forget(origin.id, target.tenant, target.device, origin.now_ms, origin.by)
        return _query(target, origin, "device")
    if target.resource == "attributes":
        if method == "GET":
            return _query(target, origin, "attributes")
        if method == "DELETE":
            return delete_attributes(target, _names(query["keys"].split(",")), origin)
        return _change_attributes(target, body, origin)
    if target.resource in ("calls", "call"):
        return _query(target, origin, "call" if target.item else "calls")
    with_network_server = not target.item and _flag(query, "network_server")
    if method == "DELETE":
        return Cancel(
            origin.id,
            target.tenant,
            target.device,
            origin.now_ms,
            target.item,
            origin.by,
            network_server=with_network_server,
        )
    if method == "POST":
        command = _downlink(target, body, origin)
        place = f"{target.tenant}/{target.device}/downlinks"
        again = idempotency_of(idempotency_key, method, place, body)
        return msgspec.structs.replace(command, idempotency=again)
    query_event = _query(target, origin, "downlink" if target.item else "downlinks")
    return msgspec.structs.replace(query_event, network_server=with_network_server)


def _flag(query: Mapping[str, str], name: str) -> bool:
    value = query.get(name, "false").lower()
    if value not in ("", "true", "false", "1", "0"):
        raise MessageError(f"{name} is true or false, not {value[:40]!r}", code="query", field=name)
    return value not in ("false", "0")


def _query(
    target: Target,
    origin: Origin,
    what: Literal["attributes", "downlinks", "downlink", "device", "calls", "call"],
) -> Query:
    attributes = what == "attributes"
    return Query(
        id=origin.id,
        tenant=target.tenant,
        device=target.device,
        time_ms=origin.now_ms,
        what=what,
        scope=_scope(target.item) if attributes else None,
        downlink_id="" if attributes else target.item,
    )


def delete_attributes(target: Target, names: tuple[str, ...], origin: Origin) -> AttributesChange:
    """Return the event that deletes these attributes of the target's scope."""
    return AttributesChange(
        id=origin.id,
        tenant=target.tenant,
        device=target.device,
        scope=_scope(target.item),
        time_ms=origin.now_ms,
        delete=names,
        by=origin.by,
    )


def _change_attributes(target: Target, body: bytes, origin: Origin) -> AttributesChange:
    changes = json_object(body)
    if not changes:
        raise MessageError(
            'name at least one attribute: {"target": 21, "old": null}; null deletes', code="empty"
        )
    names = _names(changes)
    return AttributesChange(
        id=origin.id,
        tenant=target.tenant,
        device=target.device,
        scope=_scope(target.item),
        time_ms=origin.now_ms,
        set={name: changes[name] for name in names if changes[name] is not None},
        delete=tuple(name for name in names if changes[name] is None),
        by=origin.by,
    )


def _scope(name: str) -> Scope:
    scope: Scope = msgspec.convert(name, Scope)
    return scope


def _names(names: Any) -> tuple[str, ...]:
    """Return attribute names that are fit to be kept."""
    kept = tuple(names)
    if len(kept) > ATTRIBUTES_MAX:
        raise MessageError(
            f"at most {ATTRIBUTES_MAX} attributes in one request, not {len(kept)}",
            code="too_many",
        )
    for name in kept:
        if not 0 < len(name) <= ATTRIBUTE_NAME_LENGTH_MAX or not name.isprintable():
            raise MessageError(
                f"{name[:40]!r} is no attribute's name: 1 to {ATTRIBUTE_NAME_LENGTH_MAX}"
                " characters, no control characters",
                code="attribute_name",
                field=name[:40],
            )
    return kept


def _downlink(target: Target, body: bytes, origin: Origin) -> DownlinkCommand:
    asked = read_body(body, DownlinkBody)
    return downlink_command(target, asked, origin)


def read_body(body: bytes, kind: type[Body]) -> Body:
    """Return a body of POST as its struct. MessageError: what is wrong with it."""
    try:
        asked = msgspec.convert(json_object(body), kind)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
        raise MessageError(said, code="downlink", field=place.strip(".`") or None) from None
    if (asked.payload is None) == (asked.fields is None):
        raise MessageError(
            "give either payload (base64) or fields (for the converter's encoder)",
            code="downlink",
            field="payload",
        )
    return asked


def downlink_command(target: Target, asked: DownlinkBody, origin: Origin) -> DownlinkCommand:
    """Return the event that asks for one downlink. MessageError: what is wrong with the body."""
    request = DownlinkRequest(
        payload=None if asked.payload is None else _base64(asked.payload),
        fields=asked.fields,
        correlation_ids=tuple(asked.correlation_ids),
        f_port=asked.f_port,
        confirmed=asked.confirmed,
        queue=queue_mode(asked.queue),
        priority=asked.priority,
        expires_at_ms=_expires_at_ms(asked, origin.now_ms),
        supersede_key=asked.supersede_key,
        source=origin.by,
    )
    return DownlinkCommand(
        id=origin.id,
        tenant=target.tenant,
        device=target.device,
        time_ms=origin.now_ms,
        request=request,
        integration=asked.integration,
    )


def _base64(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MessageError(
            f"payload is not base64: {error}", code="base64", field="payload"
        ) from None


def _expires_at_ms(asked: DownlinkBody, now_ms: int) -> int | None:
    if asked.expires_in is not None and asked.expires_at is not None:
        raise MessageError(
            "give expires_in or expires_at, not both", code="expires", field="expires_at"
        )
    if asked.expires_in is not None:
        return now_ms + _duration_ms(asked.expires_in)
    if asked.expires_at is None:
        return None
    try:
        moment = datetime.fromisoformat(asked.expires_at)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise MessageError(
            "expires_at is a time with its zone, as 2026-01-31T12:00:00Z",
            code="expires",
            field="expires_at",
        )
    expires_at_ms = round(moment.timestamp() * 1_000)
    if not now_ms < expires_at_ms <= now_ms + EXPIRES_IN_MAX_MS:
        raise MessageError(
            "expires_at is in the past, or more than 366 days ahead",
            code="expires",
            field="expires_at",
        )
    return expires_at_ms


def _duration_ms(text: str) -> int:
    try:
        milliseconds = round(parse_duration(text) * 1_000)
    except ValueError as error:
        raise MessageError(f"expires_in {error}", code="expires", field="expires_in") from None
    if not 0 < milliseconds <= EXPIRES_IN_MAX_MS:
        raise MessageError(
            "expires_in is nothing, or more than 366 days", code="expires", field="expires_in"
        )
    return milliseconds
