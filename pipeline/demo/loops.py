"""Watches loops close: a rule asked for a downlink, it reached its device, and the device obeys.

In: device events and downlinks' lives. Out: each closed loop, told in one line. A loop counts as
closed when the device's own uplinks show that it obeys:

| device | shows it by |
|---|---|
| thermostat | its fan runs (or stands still), and the room has become cooler (or warmer) |
| tracker | two uplinks that are as far apart as it was told |
| meter | its flow has stopped (or begun), and the water has become cooler (or warmer) |
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

from pipeline.demo.fleet import KINDS
from pipeline.demo.news import News
from pipeline.model.downlink import Downlink, State
from pipeline.model.event import DeviceMessage

DEVICES_MAX = 20_000  # devices that are watched at once; the one heard of least is forgotten
_LEFT = {State.SENT, State.ACCEPTED, State.ACKNOWLEDGED}
_UNDONE = {State.FAILED, State.EXPIRED, State.SUPERSEDED, State.CANCELLED}


class ClosedLoop(NamedTuple):
    """One closed loop. `kind` is the device's type, `text` its story."""

    kind: str
    device: str
    text: str


class _Watched:
    """One device: its last uplink, and the newest downlink that it has not obeyed yet."""

    __slots__ = ("began", "done", "downlink", "kind", "last", "last_ms")

    def __init__(self, message: DeviceMessage) -> None:
        self.kind = message.device_type
        self.last = message.telemetry
        self.last_ms = message.time_ms
        self.began: dict[str, Any] | None = None
        self.downlink: Downlink | None = None
        self.done = ""


class Loops:
    """Keeps what is under way, and counts what has closed, by kind in `closed`."""

    def __init__(self, minute_s: float) -> None:
        """Watch a fleet whose simulated minute takes `minute_s` real seconds."""
        self._minute_s = minute_s
        self._devices: OrderedDict[str, _Watched] = OrderedDict()
        self.closed: Counter[str] = Counter()

    def watch(self, news: News) -> list[ClosedLoop]:
        """Return the loops that these news close.

        The two topics were read apart, so the times of their records say what came first.
        """
        told: list[tuple[int, int, DeviceMessage | Downlink]] = [
            *(
                (event.received_ms, 0, event)
                for event in news.events
                if isinstance(event, DeviceMessage) and event.type == "uplink"
            ),
            *((downlink.changed_ms, 1, downlink) for downlink in news.downlinks),
        ]
        told.sort(key=lambda entry: entry[:2])
        closed = []
        for _, _, what in told:
            if isinstance(what, Downlink):
                self._moved(what)
            elif (loop := self._said(what)) is not None:
                self.closed[loop.kind] += 1
                closed.append(loop)
        return closed

    def _moved(self, downlink: Downlink) -> None:
        watched = self._devices.get(downlink.device)
        if watched is None:
            return
        current = watched.downlink
        if downlink.state in _UNDONE:
            if current is not None and current.id == downlink.id:
                watched.downlink = watched.began = None
            return
        if current is None or current.id != downlink.id:
            if current is not None and downlink.requested_ms < current.requested_ms:
                return
            if watched.done == downlink.id:
                return
            watched.began = watched.last
        watched.downlink = downlink

    def _said(self, message: DeviceMessage) -> ClosedLoop | None:
        watched = self._devices.get(message.device)
        if watched is None:
            self._devices[message.device] = _Watched(message)
            if len(self._devices) > DEVICES_MAX:
                self._devices.popitem(last=False)
            return None
        self._devices.move_to_end(message.device)
        before_ms, watched.last_ms = watched.last_ms, message.time_ms
        watched.last = message.telemetry
        downlink, began = watched.downlink, watched.began
        if downlink is None or began is None or downlink.state not in _LEFT:
            return None
        gap_s = (message.time_ms - before_ms) / 1_000 if before_ms >= downlink.changed_ms else None
        text = self._story(watched.kind, began, downlink, message.telemetry, gap_s)
        if text is None:
            return None
        watched.done = downlink.id
        watched.downlink = watched.began = None
        return ClosedLoop(watched.kind, message.device, text)

    def _story(
        self,
        kind: str,
        began: dict[str, Any],
        downlink: Downlink,
        now: dict[str, Any],
        gap_s: float | None,
    ) -> str | None:
        """Return what happened, None where the device does not show it yet."""
        asked = downlink.fields or {}
        sent = f"downlink {(downlink.payload or b'').hex()}"
        if kind == "thermostat" and "cooling" in asked:
            return _thermostat(began, asked, now, sent)
        if kind == "meter" and "valve" in asked:
            return _meter(began, asked, now, sent)
        if kind == "tracker" and "interval" in asked and gap_s is not None:
            wanted_s = asked["interval"] * self._minute_s
            if 0.5 * wanted_s <= gap_s <= 1.5 * wanted_s + 0.2:
                why = "moves" if began.get("moving") else "is parked"
                return (
                    f"{why} → interval {asked['interval']} min → {sent}"
                    f" → an uplink each {gap_s:.1f} s"
                )
        return None


def _thermostat(
    began: dict[str, Any], asked: dict[str, Any], now: dict[str, Any], sent: str
) -> str | None:
    was, is_now = began.get("temperature"), now.get("temperature")
    if was is None or is_now is None:
        return None
    if asked["cooling"] and now.get("fan") == "on" and is_now < was:
        return f"too warm {was:g} °C → cooling on → {sent} → {is_now:g} °C, cooling"
    if not asked["cooling"] and now.get("fan") == "off" and is_now > was:
        return f"cool enough {was:g} °C → cooling off → {sent} → {is_now:g} °C, resting"
    return None


def _meter(
    began: dict[str, Any], asked: dict[str, Any], now: dict[str, Any], sent: str
) -> str | None:
    was, is_now = began.get("temperature"), now.get("temperature")
    if was is None or is_now is None:
        return None
    if asked["valve"] == "closed" and now.get("flow") == 0 and is_now < was:
        return f"too warm {was:g} °C → valve closed → {sent} → {is_now:g} °C, no flow"
    if asked["valve"] == "open" and now.get("flow", 0) > 0 and is_now > was:
        return f"cool enough {was:g} °C → valve open → {sent} → {is_now:g} °C, {now['flow']} l/h"
    return None


def all_closed(closed: Iterable[str]) -> bool:
    """Return whether loops of all three kinds have been seen closed."""
    return set(closed) >= set(KINDS)
