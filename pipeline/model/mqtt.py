"""MQTT as dialects see it: what is to be published."""

from __future__ import annotations

import msgspec


class Publication(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message that a sink is to publish. `reference`: what the network server will call the
    downlink in its reports, where it takes an id of ours (`model.uplink.Report.reference`).
    """

    topic: str
    payload: bytes = b""
    reference: str = ""
