"""What the view is fed with: what is new on the log since it last looked, and the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from pipeline.metrics import Registry
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink
from pipeline.model.event import DeviceEvent


class News(msgspec.Struct, frozen=True):
    """New records, decoded, in the order of their topics.

    `events` are of `device.events`, `downlinks` of `downlink.status`, and `deliveries` of the
    delivery topic of the sink `application` (what rules told of changed attributes); a feed that
    does not read that one leaves them out.
    """

    events: Sequence[DeviceEvent] = ()
    downlinks: Sequence[Downlink] = ()
    deliveries: Sequence[Delivery] = ()


class Feed(Protocol):
    """Where news come from. The view asks a few times a second."""

    @property
    def metrics(self) -> Registry:
        """Funicular's own counts."""
        ...

    def poll(self) -> News:
        """Return what is new since the last call; bounded by the feed, never blocking for long."""
        ...
