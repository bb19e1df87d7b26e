"""What leaves by a sink."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.model.downlink import Downlink
from pipeline.model.uplink import Link


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """`delivery.<tenant>.<destination>`: a message for a sink (`body`), or a downlink for a
    network server.

    `id` is the same however often it is tried: the receiver knows a repeat by it.
    """

    id: str
    tenant: str
    device: str
    destination: str
    time_ms: int
    body: Any = None
    downlink: Downlink | None = None
    link: Link | None = None
