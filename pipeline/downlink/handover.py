"""What leaves without waiting for a request: the next downlink of an asynchronous link or of an
open window, and the wish to empty a network server's own queue.

In: a device's queue. Out: deliveries on `delivery.<tenant>.downlink-<integration>`; `reply`.
"""

from __future__ import annotations

from pipeline import topics
from pipeline.downlink.outputs import Outputs
from pipeline.downlink.queue import DeviceQueue
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink, State
from pipeline.model.record import derive_id, device_key
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Integration


def send_next(out: Outputs, queue: DeviceQueue, integration: Integration, now_ms: int) -> None:
    """Hand the next one over, one at a time an integration, so that order holds. Where a device
    can only be answered, it leaves by a window that is open, or waits.
    """
    if integration.synchronous:
        _send_by_window(out, queue, integration, now_ms)
        return
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


def _send_by_window(
    out: Outputs, queue: DeviceQueue, integration: Integration, now_ms: int
) -> None:
    window = queue.windows.leading(integration.name)
    if window is None or queue.is_answering(integration.name):
        return
    downlink = queue.take(integration.name)
    if downlink is None:
        return
    downlink = queue.move(downlink, State.ANSWERING, window_key=window.request)
    due_ms = now_ms + round(integration.answer_timeout_s * 1_000)
    queue.await_report(downlink, due_ms + queue.limits.answer_grace_ms)
    out.reply_by(window, carrying(downlink), downlink, now_ms)


def carrying(downlink: Downlink) -> Reply:
    """Return the answer that carries a downlink."""
    return Reply(
        "",
        device=downlink.device,
        downlink_id=downlink.id,
        payload=downlink.payload,
        f_port=downlink.f_port,
        fields=downlink.fields,
    )


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
