"""MQTT as dialects see it: what is to be published, and where."""

from __future__ import annotations

import msgspec

from pipeline.errors import MessageError


class Publication(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message that a sink is to publish. `reference`: what the network server will call the
    downlink in its reports, where it takes an id of ours (`model.uplink.Report.reference`).
    """

    topic: str
    payload: bytes = b""
    reference: str = ""


def topic_level(name: str) -> str:
    """Return a name that stands as one level of a topic. Names come from messages: one with a
    separator or a wildcard would lead to another device.

    MessageError `no_link`: it has one, or is empty.
    """
    if not name or any(sign in name for sign in "/+#\0"):
        raise MessageError(
            f"{name[:100]!r} cannot be a level of an MQTT topic: the downlink has no way",
            code="no_link",
        )
    return name
