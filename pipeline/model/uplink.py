"""What a dialect makes of a request: messages of devices, in one shape for all network servers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.model.downlink import State

# What a network server can tell of a device. The first five enter rule chains as messages of that
# type;
# `report` moves a downlink on. The Things Stack's `uplink_normalized` is an `uplink` with `fields`.
MessageType = Literal["uplink", "join", "location", "service_data", "status"]


class Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a device can be reached: what its last uplink said of the way back.

    Kept in the device's state by route and handed with each downlink request. `urls` and `key`
    are what a
    network server put into the uplink itself (TTN v2's `downlink_url`, The Things Stack's
    `X-Downlink-*`);
    they hold secrets and are never logged. `converter` is the one that decoded it, where that is
    not its integration's.
    """

    application_id: str = ""
    device_id: str = ""
    dev_eui: str = ""
    urls: dict[str, str] = {}
    key: str = ""
    converter: str = ""


class Report(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody says of a downlink: the network server, our door, our sink.

    `downlink_id` is the id that Funicular gave; empty where the reporter cannot know it (Sigfox):
    then it is about the device's last one that was sent. `reference` is what the network server
    calls the downlink instead (ChirpStack's queue item), which the hand-over told us. `state` is
    where the downlink goes, if that move is legal. `cleared`: about no downlink; the network
    server has emptied its queue of the device.
    """

    state: State
    downlink_id: str = ""
    reference: str = ""
    reason: str = ""
    detail: dict[str, Any] = {}
    cleared: bool = False


class Uplink(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of one device, as its network server told it.

    `device` is None where only a converter can name it (generic HTTP).
    `payload` are the device's bytes; `fields` what the network server decoded already; either may
    be None.
    `time_ms` is the network server's time in epoch milliseconds, None where it says none.
    `repeat_key` is equal for two requests that carry the same message; empty: the dialect has no
    key. `repeat_also` is a second one, where the same message can come in two ways that have
    nothing but one of the two in common.
    `answerable`: the request can carry a downlink back. `reports` come with or without a message
    (`type` None).
    `metadata` is flat enough to read in rules: radio, gateways, times; its keys are the
    dialect's, documented there.
    """

    device: str | None
    type: MessageType | None = "uplink"
    time_ms: int | None = None
    payload: bytes | None = None
    fields: dict[str, Any] | None = None
    f_port: int | None = None
    f_cnt: int | None = None
    dev_eui: str = ""
    confirmed: bool = False
    metadata: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    link: Link | None = None
    reports: tuple[Report, ...] = ()
    repeat_key: str = ""
    repeat_also: str = ""
    answerable: bool = False
