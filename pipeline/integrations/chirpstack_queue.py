"""The device queue of ChirpStack's REST API, v3 and v4: shown and flushed at the same address.

In: a device's link and the integration's options. Out: requests, and what their answers say.
Formats: `GetDeviceQueueItemsResponse` of v4's `api/device.proto`, `ListDeviceQueueItemsResponse` of
v3's `deviceQueue.proto`, in Protocol Buffers' JSON. An item is known as ours by what ChirpStack
called it when it was enqueued: its id (v4), its frame counter (v3).
"""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from pipeline.errors import MessageError
from pipeline.integrations import lorawan
from pipeline.integrations.dialect import Queued
from pipeline.integrations.document import convert, parse_object
from pipeline.integrations.server_options import ServerOptions
from pipeline.model.http import Call, Response
from pipeline.model.uplink import Link


class _Item(msgspec.Struct, rename="camel"):
    """One downlink of either version. What is zero may be left out."""

    id: str | None = None
    confirmed: bool | None = None
    f_port: int | None = None
    f_cnt: int | None = None
    f_cnt_down: int | None = None
    data: bytes | None = None
    is_pending: bool | None = None
    expires_at: str | None = None


class _Queue(msgspec.Struct, rename="camel"):
    result: list[_Item] | None = None
    device_queue_items: list[_Item] | None = None


class QueueApi:
    """What both dialects have of the queue: `dialect.QueueDialect` but for `read_queue`."""

    def ask_queue(self, link: Link, options: ServerOptions) -> Call:
        """Return the request that lists the queue. MessageError `no_link`."""
        return _call(link, options, method="GET")

    def clear_queue(self, link: Link, options: ServerOptions) -> Call:
        """Return the request that flushes the queue. MessageError `no_link`."""
        return _call(link, options, method="DELETE")


def enqueue(link: Link, options: ServerOptions, body: dict[str, Any]) -> Call:
    """Return the request that appends to the queue. MessageError `no_link`."""
    return _call(link, options, method="POST", body=orjson.dumps(body))


def read_v4(response: Response) -> list[Queued]:
    """Return v4's queue, the next one first. MessageError: it is none."""
    queue = convert(parse_object(response.body), _Queue, lax=True)
    return [
        _queued(item, item.id or "", {"pending": bool(item.is_pending), "f_cnt": item.f_cnt_down})
        for item in queue.result or ()
    ]


def read_v3(response: Response) -> list[Queued]:
    """Return v3's queue, the next one first. MessageError: it is none."""
    queue = convert(parse_object(response.body), _Queue, lax=True)
    return [
        _queued(item, f"f_cnt:{item.f_cnt or 0}", {"f_cnt": item.f_cnt or 0})
        for item in queue.device_queue_items or ()
    ]


def eui_of(link: Link) -> str:
    """Return the device's EUI. MessageError `no_link`: it is not known."""
    if not link.device_id:
        raise MessageError("no uplink has told the device's EUI yet", code="no_link")
    return link.device_id


def _call(link: Link, options: ServerOptions, *, method: str, body: bytes = b"") -> Call:
    server, key = options.target()
    return Call(
        url=f"{server}/api/devices/{eui_of(link)}/queue",
        method=method,
        body=body,
        headers={
            "grpc-metadata-authorization": f"Bearer {key}",
            "content-type": "application/json",
            "user-agent": lorawan.USER_AGENT,
        },
    )


def _queued(item: _Item, reference: str, detail: dict[str, Any]) -> Queued:
    if item.expires_at:
        detail["expires_at"] = item.expires_at
    return Queued(
        f_port=item.f_port,
        payload=item.data,
        confirmed=bool(item.confirmed),
        reference=reference,
        detail=detail,
    )
