"""Deliveries as lines of JSON, as files and objects keep them."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.model.delivery import Delivery
from pipeline.sink.formats.shaped import encode


class _Line(msgspec.Struct):
    id: str  # first: by it a file knows its own lines
    device: str
    time: str
    body: Any


def line_of(delivery: Delivery, time: str, body: Any) -> bytes:
    """Return a line without its end: `{"id", "device", "time", "body"}`; `time` is RFC 3339.

    MessageError (`too_deep`): the body is nested too deeply.
    """
    return encode(_Line(delivery.id, delivery.device, time, body))
