"""What a destination has read and not yet committed: one lane a device, oldest first.

Pure bookkeeping, so that order can be tested without a network: records go in, what may be
delivered next comes out, and the offset below which all is done.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable

from pipeline.model.delivery import Delivery
from pipeline.model.record import Record


class Lane:
    """The deliveries of one device, as a chain from `head` to `tail`.

    `ticket` tells which entry of a heap is the lane's valid one; the others are passed over.
    """

    __slots__ = ("busy", "head", "key", "ready_s", "tail", "ticket")

    def __init__(self, key: str) -> None:
        self.key = key
        self.head: Entry | None = None
        self.tail: Entry | None = None
        self.busy = False
        self.ready_s = 0.0
        self.ticket = 0


class Entry:
    """One delivery between its read and its commit. `number` counts as they arrive."""

    __slots__ = (
        "attempts", "delivery", "done", "error", "expires_at_ms", "following", "gone", "in_flight",
        "lane", "number", "record", "since_s", "uncertain", "watched",
    )  # fmt: skip

    def __init__(
        self, record: Record, delivery: Delivery, lane: Lane, number: int, since_s: float
    ) -> None:
        self.record = record
        self.delivery = delivery
        self.lane = lane
        self.number = number
        self.since_s = since_s
        self.following: Entry | None = None
        self.attempts = 0
        self.error = ""
        self.uncertain = False
        self.done = False
        self.in_flight = False
        self.gone = False  # its partition went to another worker, which delivers it again
        self.watched = False
        of_downlink = delivery.downlink.expires_at_ms if delivery.downlink else None
        self.expires_at_ms = delivery.expires_at_ms or of_downlink


class _Place:
    """The place of one record in the window. `entry` None: it was done at once."""

    __slots__ = ("entry", "offset", "value_bytes")

    def __init__(self, record: Record, entry: Entry | None) -> None:
        self.offset = record.offset
        self.value_bytes = len(record.value or b"")
        self.entry = entry


class Lanes:
    """All lanes of one destination, and the windows of records that are not committed: one a
    partition.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._windows: dict[int, deque[_Place]] = {}
        self._count = 0
        self._number = 0
        self._ready: list[tuple[int, int, int, Entry]] = []  # attempts, number, ticket
        self._later: list[tuple[float, int, int, Lane]] = []  # ready_s, number, ticket
        self._expiring: list[tuple[int, int, Entry]] = []  # expires_at_ms, number
        self.value_bytes = 0

    def __len__(self) -> int:
        """Return how many records are in the windows."""
        return self._count

    def admit(self, record: Record, delivery: Delivery, now_s: float) -> None:
        """Put a delivery at the end of its device's lane."""
        lane = self._lanes.get(delivery.device)
        if lane is None:
            lane = self._lanes[delivery.device] = Lane(delivery.device)
        self._number += 1
        entry = Entry(record, delivery, lane, self._number, now_s)
        if lane.tail is None:
            lane.head = lane.tail = entry
            self._list(lane, entry, now_s)
        else:
            lane.tail.following = lane.tail = entry
        self._watch(entry)
        self._place(record, entry)

    def skip(self, record: Record) -> None:
        """Keep the place of a record that is done at once."""
        self._place(record, None)

    def _place(self, record: Record, entry: Entry | None) -> None:
        place = _Place(record, entry)
        self.value_bytes += place.value_bytes
        self._count += 1
        window = self._windows.get(record.partition)
        if window is None:
            window = self._windows[record.partition] = deque()
        window.append(place)

    def take(self, entries_max: int, now_s: float) -> list[Entry]:
        """Return what to deliver next, in order of arrival; their lanes are busy till `release`.

        Lanes whose first entry was tried more often come later, so that one message that always
        fails does not stand before all others.
        """
        self._wake_lanes(now_s)
        taken: list[Entry] = []
        while self._ready and len(taken) < entries_max:
            _, _, ticket, first = heapq.heappop(self._ready)
            lane = first.lane
            if ticket != lane.ticket:
                continue
            entry = _next_open(first)
            if entry is None:
                self._forget_if_empty(lane)
                continue
            entry.in_flight = True
            taken.append(entry)
            after = _next_open(entry.following)
            if after is not None:
                heapq.heappush(self._ready, (after.attempts, after.number, ticket, after))
        for entry in taken:
            entry.lane.busy = True
            entry.lane.ticket += 1
        taken.sort(key=lambda entry: entry.number)
        return taken

    def _wake_lanes(self, now_s: float) -> None:
        while self._later and self._later[0][0] <= now_s:
            _, _, ticket, lane = heapq.heappop(self._later)
            if ticket == lane.ticket and lane.head is not None:
                self._list(lane, lane.head, now_s)

    def finish(self, entry: Entry) -> None:
        """Mark as done: delivered, refused, given up or expired."""
        entry.done = True
        entry.in_flight = False

    def postpone(self, entry: Entry, ready_s: float) -> None:
        """Keep its place; its lane waits until `ready_s`."""
        entry.attempts += 1
        entry.in_flight = False
        entry.lane.ready_s = max(entry.lane.ready_s, ready_s)
        self._watch(entry)

    def release(self, entries: Iterable[Entry], now_s: float) -> None:
        """Free the lanes of what `take` gave, once each entry was finished or postponed."""
        for lane in {id(entry.lane): entry.lane for entry in entries}.values():
            lane.busy = False
            if not self._forget_if_empty(lane) and lane.head is not None:
                self._list(lane, lane.head, now_s)

    def expire(self, now_ms: int) -> list[Entry]:
        """Return, and mark as done, what ran out of time and is not in flight."""
        expired: list[Entry] = []
        while self._expiring and self._expiring[0][0] <= now_ms:
            _, _, entry = heapq.heappop(self._expiring)
            entry.watched = False
            if not entry.done and not entry.in_flight:
                self.finish(entry)
                expired.append(entry)
        return expired

    def settled(self) -> dict[int, int]:
        """Return, by partition, the offset up to which all is now done, and forget those; empty:
        none moved.
        """
        offsets: dict[int, int] = {}
        for partition, window in self._windows.items():
            while window and _is_done(window[0]):
                offsets[partition] = self._leave(window.popleft())
        return offsets

    def has_settled(self) -> bool:
        """Return whether `settled` would move."""
        return any(window and _is_done(window[0]) for window in self._windows.values())

    def keep(self, partitions: Collection[int]) -> None:
        """Forget what is not done of all other partitions. What is in flight comes back by
        `release` as ever, and is then marked as `gone`.
        """
        for partition in self._windows.keys() - set(partitions):
            for place in self._windows.pop(partition):
                self._leave(place)
                if place.entry is not None and not place.entry.done:
                    place.entry.gone = True
                    # What is in flight is done when it lands; its lane is busy until then.
                    place.entry.done = not place.entry.in_flight

    def _leave(self, place: _Place) -> int:
        self.value_bytes -= place.value_bytes
        self._count -= 1
        return place.offset

    def has_ready(self, now_s: float) -> bool:
        """Return whether `take` may give something now (a false alarm is possible)."""
        self._wake_lanes(now_s)
        return bool(self._ready)

    def ready_s(self) -> float | None:
        """Return when the next waiting lane may go on; None: none waits."""
        while self._later and self._later[0][2] != self._later[0][3].ticket:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def expires_at_ms(self) -> int | None:
        """Return when the next one runs out of time; None: none will."""
        while self._expiring and self._expiring[0][2].done:
            heapq.heappop(self._expiring)
        return self._expiring[0][0] if self._expiring else None

    def _list(self, lane: Lane, first: Entry, now_s: float) -> None:
        lane.ticket += 1
        if lane.ready_s > now_s:
            heapq.heappush(self._later, (lane.ready_s, first.number, lane.ticket, lane))
        else:
            heapq.heappush(self._ready, (first.attempts, first.number, lane.ticket, first))

    def _forget_if_empty(self, lane: Lane) -> bool:
        lane.head = _next_open(lane.head)
        if lane.head is not None:
            return False
        self._lanes.pop(lane.key, None)
        return True

    def _watch(self, entry: Entry) -> None:
        if entry.expires_at_ms is not None and not entry.watched:
            entry.watched = True
            heapq.heappush(self._expiring, (entry.expires_at_ms, entry.number, entry))


def _is_done(place: _Place) -> bool:
    return place.entry is None or place.entry.done


def _next_open(entry: Entry | None) -> Entry | None:
    while entry is not None and entry.done:
        entry = entry.following
    return entry
