"""`device.events`: all that happens to a device, one struct a kind, told apart by the field `kind`.

Bytes are base64 in JSON. Times are epoch milliseconds.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.model.downlink import DownlinkRequest
from pipeline.model.record import derive_id
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


class Position(msgspec.Struct, frozen=True):
    """A node in a chain, by name: where a message goes on."""

    chain: str
    node: str


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
    Told by another device (made by route): `teller` is its name, `hops` how many have passed it on;
    with `resume` it is that device's message, and goes on at that node instead of entering chains.
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
    teller: str = ""
    hops: int = 0
    resume: Position | None = None


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
    """Ask the owner of a device for what it knows; the answer goes to the record's `reply_to`.

    `downlink_id`: of the downlink, or of the call, that is meant; a call has its downlink's id.
    `network_server`: with the way to the network server, so that its own queue can be asked for;
    `integration` and `link` are filled in by route.
    """

    id: str
    tenant: str
    device: str
    time_ms: int
    what: Literal["attributes", "downlinks", "downlink", "device", "calls", "call"]
    scope: Scope | None = None
    downlink_id: str = ""
    network_server: bool = False
    integration: str = ""
    link: Link | None = None


class Idempotency(msgspec.Struct, frozen=True):
    """An application's key for one request, and a digest of the request: the same key with
    another request is a mistake.
    """

    key: str
    request: str


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
    idempotency: Idempotency | None = None


class DownlinksCommand(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="downlinks"
):
    """An application asks for several downlinks, all or none; `replace`: in the place of all that
    wait, and of what the network server has queued. None at all, with `replace`: empties the queue.

    `integration` is the one to leave by; `fallback` that of a device which was never heard, whose
    `link` the application's address told. `by` says who asks.
    """

    id: str
    tenant: str
    device: str
    time_ms: int
    requests: tuple[DownlinkRequest, ...]
    replace: bool = False
    integration: str = ""
    fallback: str = ""
    link: Link | None = None
    idempotency: Idempotency | None = None
    by: str = ""


class DeviceCall(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="device_call"
):
    """An application calls the device: a downlink, and then the answer to who waits in `reply_to`.

    `until` says what ends it: a later message of the device, or only that the downlink was sent or
    acknowledged. `reply` is an expression of rule chains, true of the message that is the reply;
    empty: the next one is. `number_field`: the downlink's field that gets the call's number, which
    `reply` sees as `metadata.call.number`. `persistent`: the downlink stays, and the call goes on,
    when nobody waits any more.
    """

    id: str
    tenant: str
    device: str
    time_ms: int
    request: DownlinkRequest
    timeout_ms: int
    until: Literal["reply", "sent", "acknowledged"] = "reply"
    reply: str = ""
    number_field: str = ""
    persistent: bool = False
    integration: str = ""
    idempotency: Idempotency | None = None
    by: str = ""


class Cancel(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="cancel"):
    """Take back one waiting downlink, or all of the device's (empty id).

    `network_server`: empty its own queue too, by `integration` and `link` (filled in by route).
    """

    id: str
    tenant: str
    device: str
    time_ms: int
    downlink_id: str = ""
    by: str = ""
    network_server: bool = False
    integration: str = ""
    link: Link | None = None


class DownlinkReport(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="report"
):
    """News of a downlink: from convert (the network server's), ingest (answered or not), sink
    (outcome). `integration` says whose news it is, where the reporter is a network server.
    `outcome`: it is the sink's, which tells it again where it died before it had noted that it
    did; the downlink may be long forgotten then.
    """

    id: str
    tenant: str
    device: str
    time_ms: int
    report: Report
    integration: str = ""
    outcome: bool = False


class Forget(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="forget"):
    """Forget the device: state, queue and timers of route and downlink."""

    id: str
    tenant: str
    device: str
    time_ms: int
    by: str = ""


class RelationChange(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="relation"
):
    """Another device relates to this one from now on, or (`present` False) no longer: made by
    route, so that both sides know. `way` is as this device sees it: `from` the other, or `to` it.
    """

    id: str
    tenant: str
    device: str
    time_ms: int
    relation: str
    way: Literal["to", "from"]
    other: str
    present: bool = True


class CallEnded(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="call_ended"
):
    """What became of a call that somebody waits for: made by the sink, of a chain's call to a
    service (`call` is the delivery's id, `answer` is JSON: what the service answered), or by
    ingest, of an application's call whose downlink could not be made.
    """

    id: str
    tenant: str
    device: str
    time_ms: int
    call: str
    how: Literal["replied", "failed", "timeout"]
    answer: Any = None
    reason: str = ""
    message: str = ""
    detail: dict[str, Any] = {}


class WindowOpened(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="window_opened"
):
    """A way to the device is open before it has said anything: it named itself on a connection, or
    observes its downlinks. Made by ingest; the record's `reply_to` (`open`) says where it leads.
    """

    id: str
    tenant: str
    device: str
    integration: str
    time_ms: int


DeviceEvent = (
    RelationChange
    | WindowOpened
    | CallEnded
    | DeviceCall
    | DeviceMessage
    | AttributesChange
    | Query
    | DownlinkCommand
    | DownlinksCommand
    | Cancel
    | DownlinkReport
    | Forget
)


class RequestedDownlink(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="request"
):
    """`downlink.requested`: route asks downlink for one, with all that it knows of the device's
    link. `answer_parts`: of how many parts the answer to who asks is, where it is taken.
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
    idempotency: Idempotency | None = None
    answer_parts: int = 1


class RequestedDownlinks(
    msgspec.Struct, frozen=True, omit_defaults=True, tag_field="kind", tag="requests"
):
    """`downlink.requested`: several downlinks that are asked for together: see `DownlinksCommand`.

    Each gets the id that is derived from this one's and its place in the list.
    """

    id: str
    tenant: str
    device: str
    integration: str
    time_ms: int
    requests: tuple[DownlinkRequest, ...]
    replace: bool = False
    device_type: str = ""
    link: Link | None = None
    idempotency: Idempotency | None = None
    by: str = ""

    def each(self) -> list[RequestedDownlink]:
        """Return them one by one."""
        return [
            RequestedDownlink(
                id=derive_id(self.id, str(number)),
                tenant=self.tenant,
                device=self.device,
                integration=self.integration,
                time_ms=self.time_ms,
                request=request,
                device_type=self.device_type,
                link=self.link,
            )
            for number, request in enumerate(self.requests)
        ]


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


DownlinkWork = (
    RequestedDownlink | RequestedDownlinks | ReplyWindow | DownlinkReport | Query | Cancel | Forget
)
