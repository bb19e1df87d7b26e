"""The answer for a request that waits at the door."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.model.uplink import Link


class ReplyTo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who waits: header `reply_to`, as JSON. `deadline_ms` is epoch milliseconds.

    `once`: one answer to the request; `open`: a window, a way to the device that stays open until
    then and takes any number of downlinks, one after the other. `request` is then the window's id,
    which all messages of a connection share.
    """

    instance: str
    request: str
    deadline_ms: int
    partition: int = 0
    mode: Literal["once", "open"] = "once"


_decode_reply_to = msgspec.json.Decoder(ReplyTo).decode


def read_reply_to(text: str | None) -> ReplyTo | None:
    """Read the header; None: nobody waits, or nobody that could be answered, as any producer may
    have written it.
    """
    try:
        return _decode_reply_to(text) if text else None
    except (msgspec.DecodeError, UnicodeError):
        return None


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Part `part` of `of` (from 1) of the answer to `request`.

    To an uplink: the downlink for `device` (`downlink_id`, `payload`, `f_port`, `fields`), or none.
    To a command or a query: `status` and `body`; `links` are the ways to the network servers, by
    integration, where they were asked for: they hold secrets and are never shown.
    """

    request: str
    device: str = ""
    part: int = 1
    of: int = 1
    downlink_id: str = ""
    payload: bytes | None = None
    f_port: int | None = None
    fields: dict[str, Any] | None = None
    status: int = 200
    body: Any = None
    links: dict[str, Link] = {}
