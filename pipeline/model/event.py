"""`device.events`: all that happens to a device, one struct a kind, told apart by the field `kind`.

Bytes are base64 in JSON. Times are epoch milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.model.downlink import DownlinkRequest
from pipeline.model.uplink import Link, Report

Scope = Literal["client", "shared", "server"]


class Window(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request waits for this device's answer: part `part` of `of` (from 1). `key` is the repeat
    key or event id.

    `carries` False: the request cannot take data (Sigfox with `ack` false); it is answered empty
    and uses nothing up.
    """

    key: str
    part: int = 1
    of: int = 1
    carries: bool = True


class DeviceMessage(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="message"
):
    """A device said something; it enters the rule chains. Made by convert.

    `telemetry` is one set of values at `time_ms`; a message with several times becomes several
    events.
    `window` is on the last event that one request made for this device, where the request waits.
    `attributes` are of client scope: what the device says of itself.
    Of type `attributes_updated` (made by route): `changed` are the keys, `attributes` their new and
    `previous` their old values; a key without one was not there, or is gone.
    """

    id: str
    type: str
    tenant: str
    device: str
    integration: str
    time_ms: int
    received_ms: int
    device_type: str = ""
    device_kind: Literal["device", "asset"] = "device"
    customer: str = ""
    group: str = ""
    dev_eui: str = ""
    f_port: int | None = None
    f_cnt: int | None = None
    confirmed: bool = False
    payload: bytes | None = None
    telemetry: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()
    link: Link | None = None
    window: Window | None = None
    changed: tuple[str, ...] = ()
    previous: dict[str, Any] = {}


class AttributesChange(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="attributes_change"
):
    """Set and delete attributes of one scope: by an application through the API."""

    id: str
    tenant: str
    device: str
    scope: Scope
    time_ms: int
    set: dict[str, Any] = {}
    delete: tuple[str, ...] = ()
    by: str = ""


class Query(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="query"):
    """Ask the owner of a device for what it knows; the answer goes to the record's `reply_to`."""

    id: str
    tenant: str
    device: str
    time_ms: int
    what: Literal["attributes", "downlinks", "downlink", "device"]
    scope: Scope | None = None
    downlink_id: str = ""


class DownlinkCommand(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="downlink"
):
    """An application asks for a downlink."""

    id: str
    tenant: str
    device: str
    time_ms: int
    request: DownlinkRequest
    integration: str = ""


class Cancel(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="cancel"):
    """Take back one waiting downlink, or all of the device's (empty id)."""

    id: str
    tenant: str
    device: str
    time_ms: int
    downlink_id: str = ""
    by: str = ""


class DownlinkReport(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="report"
):
    """News of a downlink: from convert (the network server's), ingest (answered or not), sink
    (outcome).
    """

    id: str
    tenant: str
    device: str
    time_ms: int
    report: Report


class Forget(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="forget"):
    """Forget the device: state, queue and timers of route and downlink."""

    id: str
    tenant: str
    device: str
    time_ms: int
    by: str = ""


DeviceEvent = (
    DeviceMessage | AttributesChange | Query | DownlinkCommand | Cancel | DownlinkReport | Forget
)


class RequestedDownlink(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="request"
):
    """`downlink.requested`: route asks downlink for one, with all that it knows of the device's
    link.
    """

    id: str
    tenant: str
    device: str
    integration: str
    time_ms: int
    request: DownlinkRequest
    device_type: str = ""
    link: Link | None = None
    metadata: dict[str, Any] = {}


class ReplyWindow(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="window"):
    """`downlink.requested`: a request waits for this device's answer; route writes it after all
    else.

    The record's `reply_to` says who waits. `repeated`: the network server sent this request before.
    """

    id: str
    tenant: str
    device: str
    integration: str
    time_ms: int
    window: Window
    repeated: bool = False


DownlinkWork = RequestedDownlink | ReplyWindow | DownlinkReport | Query | Cancel | Forget
