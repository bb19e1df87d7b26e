"""What leaves by a sink."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.model.downlink import Downlink
from pipeline.model.uplink import Link


class Origin(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a sink's body came from, for the formats and names that say it: the message's `type`
    and what the network server told beside telemetry and metadata.
    """

    type: str = ""
    integration: str = ""
    device_type: str = ""
    application_id: str = ""
    device_id: str = ""
    dev_eui: str = ""
    f_port: int | None = None
    f_cnt: int | None = None
    confirmed: bool = False
    payload: bytes | None = None


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """`delivery.<tenant>.<destination>`: a message for a sink (`body`), a downlink for a network
    server, or, for one, that it is to empty the device's queue (`clear`).

    `id` is the same however often it is tried: the receiver knows a repeat by it. `awaited`: a
    chain waits for the answer (`model.event.CallEnded`). It is not sent after `expires_at_ms`.
    `origin` is there with a `body` alone.
    """

    id: str
    tenant: str
    device: str
    destination: str
    time_ms: int
    body: Any = None
    downlink: Downlink | None = None
    link: Link | None = None
    awaited: bool = False
    expires_at_ms: int | None = None
    clear: bool = False
    origin: Origin | None = None
