"""Feeds the demo's view from the embedded log: new records of its topics, and the metrics."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pipeline import topics
from pipeline.demo.news import News
from pipeline.metrics import Registry
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink
from pipeline.model.event import DeviceEvent
from pipeline.stream.sqlite import SqliteLog

FEED_RECORDS_MAX = 500

_decode_event = msgspec.json.Decoder(DeviceEvent).decode
_decode_downlink = msgspec.json.Decoder(Downlink).decode
_decode_delivery = msgspec.json.Decoder(Delivery).decode


class LogFeed:
    """What the demo's view looks at: new records of the embedded log, and the metrics."""

    def __init__(self, log: SqliteLog, metrics: Registry, tenant: str) -> None:
        self._log = log
        self.metrics = metrics
        self._deliveries = topics.delivery_topic(tenant, "application")
        self._offsets: dict[str, int] = {}

    def poll(self) -> News:
        """Return what is new; at most `FEED_RECORDS_MAX` records of a topic a call."""
        return News(
            events=[_decode_event(value) for value in self._new(topics.DEVICE_EVENTS)],
            downlinks=[_decode_downlink(value) for value in self._new(topics.DOWNLINK_STATUS)],
            deliveries=[_decode_delivery(value) for value in self._new(self._deliveries)],
        )

    def _new(self, topic: str) -> Iterator[bytes]:
        records = self._log.scan(topic, self._offsets.get(topic, -1), FEED_RECORDS_MAX)
        if records:
            self._offsets[topic] = records[-1].offset
        return (record.value for record in records if record.value is not None)
