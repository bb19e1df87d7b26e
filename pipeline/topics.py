"""The one table of topics: who writes, who reads, what the key is, how long it is kept.

Every stage reads exactly one topic. Tests in `tests/house` hold the code to this table.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.model.dead_letter import DEAD_LETTER_TOPIC, DeadLetter
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink
from pipeline.model.event import DeviceEvent, DownlinkWork
from pipeline.model.letters import Handled
from pipeline.model.reply import Reply

UPLINK_RECEIVED = "uplink.received"
DEVICE_EVENTS = "device.events"
DOWNLINK_REQUESTED = "downlink.requested"
DOWNLINK_STATUS = "downlink.status"
DELIVERY_PREFIX = "delivery."
REPLY = "reply"
DEVICE_STATE = "device.state"
DOWNLINK_STATE = "downlink.state"
RULES = "rules"
DEAD_LETTER = DEAD_LETTER_TOPIC
DEAD_LETTER_HANDLED = "dead.letter.handled"
SOURCE_CURSOR = "source.cursor"

DAY_S = 86_400
_DOWNLINK_DESTINATION = "downlink-"


class Topic(msgspec.Struct, frozen=True):
    """One row. `retention_s` is the default; the operator may change it. `compacted` keeps the
    last value a key.
    """

    name: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    key: Literal["tenant/device", "tenant/integration or device hint", "ingest instance",
                 "tenant/device#part", "tenant/path", "tenant/integration", "as it came",
                 "partition-offset of the letter"]  # fmt: skip
    value: str
    retention_s: int = 7 * DAY_S
    compacted: bool = False


TOPICS: tuple[Topic, ...] = (
    Topic(UPLINK_RECEIVED, ("ingest",), ("convert",), "tenant/integration or device hint",
          "the bytes as received; CloudEvents binary headers"),
    Topic(DEVICE_EVENTS, ("convert", "ingest", "route", "sink"), ("route",), "tenant/device",
          "one event: `model.event.DeviceEvent`"),
    Topic(DOWNLINK_REQUESTED, ("route",), ("downlink",), "tenant/device",
          "request, reply window, report, query: `model.event.DownlinkWork`"),
    Topic(DOWNLINK_STATUS, ("downlink",), (), "tenant/device",
          "a downlink's life: `model.downlink.Downlink`", retention_s=30 * DAY_S),
    Topic(DELIVERY_PREFIX, ("route", "downlink"), ("sink",), "tenant/device",
          "what to send: `model.delivery.Delivery`"),
    Topic(REPLY, ("convert", "route", "downlink"), ("ingest",), "ingest instance",
          "the answer for a request that waits: `model.reply.Reply`", retention_s=3_600),
    Topic(DEVICE_STATE, ("route",), (), "tenant/device#part", "attributes, node state",
          compacted=True),
    Topic(DOWNLINK_STATE, ("downlink",), (), "tenant/device#part", "pending downlinks, history",
          compacted=True),
    Topic(RULES, ("publish",), (), "tenant/path", "the files of a rules folder", compacted=True),
    Topic(DEAD_LETTER, ("ingest", "convert", "route", "downlink", "sink"), (), "as it came",
          "the original record and why: `model.dead_letter.DeadLetter`", retention_s=30 * DAY_S),
    Topic(DEAD_LETTER_HANDLED, ("dead-letters",), (), "partition-offset of the letter",
          "what became of a letter: `model.letters.Handled`", retention_s=30 * DAY_S),
    Topic(SOURCE_CURSOR, ("ingest",), ("ingest",), "tenant/integration",
          "how far a source that one worker alone may have has read; who has the partition has it",
          compacted=True),
)  # fmt: skip


MODELS: dict[str, Any] = {
    DEVICE_EVENTS: DeviceEvent,
    DOWNLINK_REQUESTED: DownlinkWork,
    DOWNLINK_STATUS: Downlink,
    DELIVERY_PREFIX: Delivery,
    REPLY: Reply,
    DEAD_LETTER: DeadLetter,
    DEAD_LETTER_HANDLED: Handled,
}
"""What a topic's values are, in JSON. The others hold bytes as they came, files, or a stage's own
state, which may change with any release."""


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema (2020-12) of each topic's value; a delivery topic's under the prefix.

    Where a topic has no model every value is valid, and its description says what there is.
    """
    found: dict[str, dict[str, Any]] = {}
    for topic in TOPICS:
        about = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": topic.name,
            "description": topic.value,
        }
        model = MODELS.get(topic.name)
        found[topic.name] = about if model is None else about | msgspec.json.schema(model)
    return found


def delivery_topic(tenant: str, destination: str) -> str:
    """Return the topic of one destination: a sink's name, or `downlink-<integration>`."""
    return f"{DELIVERY_PREFIX}{tenant}.{destination}"


def downlink_destination(integration: str) -> str:
    """Return the destination by which downlinks reach an integration's network server."""
    return f"{_DOWNLINK_DESTINATION}{integration}"


def integration_of(destination: str) -> str:
    """Return the integration whose network server a destination is; empty: it is a sink."""
    prefix = _DOWNLINK_DESTINATION
    return destination.removeprefix(prefix) if destination.startswith(prefix) else ""


def topic_of(name: str) -> Topic:
    """Return the row of a topic's name; a delivery topic has the row of the prefix. KeyError:
    none.
    """
    for topic in TOPICS:
        if topic.name == name or (topic.name.endswith(".") and name.startswith(topic.name)):
            return topic
    raise KeyError(name)
