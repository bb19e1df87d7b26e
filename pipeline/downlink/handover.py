"""What goes to a network server at any time: the next downlink of an asynchronous link, and the
wish to empty its own queue.

In: a device's queue. Out: deliveries on `delivery.<tenant>.downlink-<integration>`.
"""

from __future__ import annotations

from pipeline import topics
from pipeline.downlink.outputs import Outputs
from pipeline.downlink.queue import DeviceQueue
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import State
from pipeline.model.record import derive_id, device_key
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Integration


def send_next(out: Outputs, queue: DeviceQueue, integration: Integration, now_ms: int) -> None:
    """Hand the next one over, one at a time an integration, so that order holds."""
    if queue.is_sending(integration.name):
        return
    downlink = queue.take(integration.name)
    if downlink is None:
        return
    downlink = queue.move(downlink, State.SENDING)
    delivery = Delivery(
        id=derive_id(downlink.id, "d"),
        tenant=downlink.tenant,
        device=downlink.device,
        destination=topics.downlink_destination(downlink.integration),
        time_ms=now_ms,
        downlink=downlink,
        link=queue.link(integration.name),
    )
    _put(out, delivery, downlink.id, downlink.trace_id)


def clear(  # noqa: PLR0917 - each is a part of the one delivery
    out: Outputs, integration: Integration, device: str, link: Link | None, cause: str, now_ms: int
) -> None:
    """Ask the network server to empty its queue of the device, after all that is on its way."""
    delivery = Delivery(
        id=derive_id(cause, "clear"),
        tenant=integration.tenant,
        device=device,
        destination=topics.downlink_destination(integration.name),
        time_ms=now_ms,
        link=link,
        clear=True,
    )
    _put(out, delivery, cause, cause)


def _put(out: Outputs, delivery: Delivery, cause: str, trace: str) -> None:
    out.put(
        topics.delivery_topic(delivery.tenant, delivery.destination),
        device_key(delivery.tenant, delivery.device),
        delivery,
        event_id=delivery.id,
        cause=cause,
        trace=trace,
        tenant=delivery.tenant,
    )
