"""The queue of one device: its downlinks with their life, in small parts of the device's state.

A device may have had several integrations; a downlink leaves by the one that it was encoded for.

Parts of a key: `downlink/<id>` one downlink; `!downlink/<id>` one that ended before the last few,
which is loaded when it is asked for; `order` the ids that wait (first leaves first), the
one under way on each asynchronous integration, those in answers, the last that was sent by each
integration, and the ended ones (bounded);
`window/<ms>/<key>` which downlink a request got, kept while the network server may repeat that
request; `link/<integration>` the device's way back; `open/<integration>` a window that
stays open (`windows.py`).
Timers: `expire/<id>`, `answer/<id>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import orjson

from pipeline.downlink.limits import Limits
from pipeline.downlink.windows import OpenWindows
from pipeline.errors import MessageError
from pipeline.model.downlink import PRIORITIES, UNDER_WAY, WAITING, Downlink, State, may_move
from pipeline.model.uplink import Link
from pipeline.ports import ASIDE, DeviceState

_NEAR = "downlink/"
_ASIDE = f"{ASIDE}{_NEAR}"
_RANKS = {name: rank for rank, name in enumerate(PRIORITIES)}
_NORMAL = _RANKS["normal"]
_WINDOW_KEY = len("window/0000000000000/")
_OVERTAKEN: dict[State, frozenset[State]] = {
    # A report that says less than what is known already is old news, not a fault.
    State.SENT: frozenset(
        {State.SENT, State.ACCEPTED, State.ACKNOWLEDGED, State.NOT_ACKNOWLEDGED, State.FAILED}
    ),
    State.ACCEPTED: frozenset({State.ACCEPTED, State.ACKNOWLEDGED, State.NOT_ACKNOWLEDGED}),
    State.QUEUED: frozenset({State.QUEUED, State.SENT, State.ACCEPTED, State.ACKNOWLEDGED}),
}


class _Answering(msgspec.Struct, omit_defaults=True):
    requests: int = 1
    by: str = ""


class DeviceQueue:
    """One device's downlinks. Each move is appended to `moved`, in order, for `downlink.status`."""

    def __init__(
        self, state: DeviceState, key: str, now_ms: int, moved: list[Downlink], limits: Limits
    ) -> None:
        self.limits = limits
        self._state = state
        self._key = key
        self._now_ms = now_ms
        self._moved = moved
        self.windows = OpenWindows(state, key, now_ms)
        order = state.get(key, "order") or {}
        self._waiting: list[str] = list(order.get("waiting", ()))
        self._ended: list[str] = list(order.get("ended", ()))
        self._sending: dict[str, str] = dict(order.get("sending", {}))
        # In how many requests' answers a downlink is, and which later one is to take its place.
        self._answering: dict[str, _Answering] = {
            downlink_id: msgspec.convert(stored, _Answering)
            for downlink_id, stored in order.get("answering", {}).items()
        }
        self._last_sent: dict[str, str] = dict(order.get("last_sent", {}))

    def get(self, downlink_id: str) -> Downlink | None:
        """Return a downlink of this device, None: unknown, or ended too long ago."""
        stored = self._state.get(self._key, f"{_NEAR}{downlink_id}")
        if stored is None and downlink_id in self._ended:
            stored = self._state.get(self._key, f"{_ASIDE}{downlink_id}")
        return None if stored is None else msgspec.convert(stored, Downlink)

    def last_sent(self, integration: str = "") -> Downlink | None:
        """Return the downlink that an integration sent last, or, without its name, that any did:
        what a report without an id is about.
        """
        if integration:
            return self.get(self._last_sent.get(integration, ""))
        sent = [found for found in map(self.get, self._last_sent.values()) if found]
        return max(sent, key=lambda downlink: downlink.changed_ms, default=None)

    @property
    def length(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def referred(self, reference: str) -> Downlink | None:
        """Return the downlink that its network server calls so.

        Where none is known by that name: the last one that was handed over, if nobody has said
        yet what that one is called (a report may overtake the answer that says it).
        """
        for prefix in (_NEAR, _ASIDE):
            for downlink in self._in_order(self._known(prefix)):
                if downlink.detail.get("reference") == reference:
                    return downlink
        sending = [self.get(downlink_id) for downlink_id in self._sending.values()]
        for handed in (*sending, self.last_sent()):
            if handed is not None and "reference" not in handed.detail:
                return handed
        return None

    def waiting(self) -> list[Downlink]:
        """Return what waits, the next one first."""
        return [downlink for downlink in map(self.get, self._waiting) if downlink]

    def all(self) -> list[Downlink]:
        """Return all known downlinks: under way, then waiting, then ended (newest first)."""
        return self._in_order([*self._known(_NEAR), *self._known(_ASIDE)])

    def _known(self, prefix: str) -> Iterator[Downlink]:
        for _, stored in self._state.scan(self._key, prefix):
            yield msgspec.convert(stored, Downlink)

    def _in_order(self, known: Iterable[Downlink]) -> list[Downlink]:
        place = {downlink_id: n for n, downlink_id in enumerate(self._waiting)}
        return sorted(
            known,
            key=lambda d: (
                (0, -d.changed_ms)
                if d.state in UNDER_WAY
                else (1, place.get(d.id, 0))
                if d.state in WAITING
                else (2, -d.changed_ms)
            ),
        )

    def begin(self, downlink: Downlink) -> None:
        """Keep a downlink that was just asked for, and tell of it."""
        self.keep(downlink)
        self._moved.append(downlink)

    def add(self, downlink: Downlink, *, waiting_max: int) -> Downlink:
        """Queue an encoded downlink by its mode and supersede key; return it as it then is.

        Over `waiting_max` the new one fails with `queue_full`: what was promised earlier stays.
        """
        for other in self.waiting():
            if _takes_the_place_of(other, downlink):
                self.move(other, State.SUPERSEDED, by=downlink.id)
        for answering_id, answering in self._answering.items():
            other_answering = self.get(answering_id)
            if other_answering and _takes_the_place_of(other_answering, downlink):
                answering.by = downlink.id  # it counts if the answer does not arrive
        if len(self._waiting) >= waiting_max:
            text = (
                f"{len(self._waiting)} downlinks wait, the limit (`queue_max` of the integration);"
                " cancel some, or ask with `queue: replace`"
            )
            return self.move(downlink, State.FAILED, reason="queue_full", detail={"message": text})
        if downlink.queue == "first":
            self._waiting.insert(0, downlink.id)
        else:
            self._waiting.insert(self._place_of(downlink), downlink.id)
        if downlink.expires_at_ms is not None:
            self._state.set_timer(self._key, f"expire/{downlink.id}", downlink.expires_at_ms)
        return self.move(downlink, State.QUEUED)

    def _place_of(self, downlink: Downlink) -> int:
        """Return where one goes that is no `first`: behind all of its priority and above."""
        rank = _rank(downlink)
        place = len(self._waiting)
        if not any(_rank(other) < rank for other in self.waiting()[-1:]):
            return place
        for other in reversed(self.waiting()):
            if _rank(other) >= rank:
                break
            place = self._waiting.index(other.id)
        return place

    def take(self, integration: str) -> Downlink | None:
        """Return the next one of an integration whose time has not run out; those before it expire.

        What was asked for while the device had another integration is in that one's form.
        """
        for downlink in self.waiting():
            if downlink.integration != integration:
                continue
            if downlink.expires_at_ms is not None and downlink.expires_at_ms <= self._now_ms:
                self.move(downlink, State.EXPIRED)
            else:
                return downlink
        return None

    def put_back(self, downlink: Downlink, *, reason: str, delivered: bool) -> Downlink:
        """Put an answer that was not, or perhaps not, delivered at the head of the queue.

        `delivered`: it may have reached the network server all the same. It stays where it is while
        another request carries it too; else a later one may have taken its place, or its time may
        have run out.
        """
        changed = msgspec.structs.replace(
            downlink, possibly_delivered=downlink.possibly_delivered or delivered
        )
        answering = self._answering.get(downlink.id, _Answering())
        if answering.requests > 1:
            answering.requests -= 1
            self.keep(changed)
            return changed
        if answering.by:
            return self.move(changed, State.SUPERSEDED, reason=reason, by=answering.by)
        if downlink.expires_at_ms is not None and downlink.expires_at_ms <= self._now_ms:
            return self.move(changed, State.EXPIRED, reason=reason)
        self._waiting.insert(0, downlink.id)
        return self.move(changed, State.QUEUED, reason=reason)

    def share(self, downlink: Downlink) -> None:
        """Note that one more request carries a downlink that is in an answer already."""
        answering = self._answering.setdefault(downlink.id, _Answering())
        answering.requests += 1

    def is_sending(self, integration: str) -> bool:
        """Return whether one is under way to the integration's network server."""
        return integration in self._sending

    def is_answering(self, integration: str) -> bool:
        """Return whether one of the integration's is in an answer, or in an open window."""
        answering = (self.get(downlink_id) for downlink_id in self._answering)
        return any(one is not None and one.integration == integration for one in answering)

    def await_report(self, downlink: Downlink, due_ms: int) -> None:
        """Ask to be called when nobody has said by then what became of an answer."""
        self._state.set_timer(self._key, f"answer/{downlink.id}", due_ms)

    def move(self, downlink: Downlink, target: State, **changes: Any) -> Downlink:
        """Move a downlink on and keep it. ValueError: its life does not allow that (our bug)."""
        if not may_move(downlink.state, target):
            raise ValueError(f"a downlink does not go from {downlink.state} to {target}")
        moved = msgspec.structs.replace(downlink, state=target, changed_ms=self._now_ms, **changes)
        self.keep(moved)
        self._moved.append(moved)
        if target not in WAITING and moved.id in self._waiting:
            self._waiting.remove(moved.id)
        if downlink.state is State.ANSWERING:
            self._state.cancel_timer(self._key, f"answer/{moved.id}")
            self._answering.pop(moved.id, None)
        if target is State.ANSWERING:
            self._answering[moved.id] = _Answering()
        if target is State.SENDING:
            self._sending[moved.integration] = moved.id
        elif self._sending.get(moved.integration) == moved.id:
            del self._sending[moved.integration]
        if target in (State.SENT, State.ACCEPTED):
            self._last_sent[moved.integration] = moved.id
        if target not in WAITING and target not in UNDER_WAY and moved.id not in self._ended:
            if moved.expires_at_ms is not None:
                self._state.cancel_timer(self._key, f"expire/{moved.id}")
            self._end(moved.id)
        return moved

    def report(self, downlink: Downlink, target: State, **changes: Any) -> bool:
        """Apply somebody's news; return False where the downlink's life does not allow it.

        Old news (it is that far, or further) changes nothing and is no fault; news that says more
        of where it stands is kept and told: accepted, then also transmitted.
        """
        if downlink.state is target:
            told = msgspec.structs.replace(downlink, **changes)
            if target is State.ACCEPTED and told.detail != downlink.detail:
                self.begin(told)
            return True
        if downlink.state in _OVERTAKEN.get(target, ()):
            return True
        if not may_move(downlink.state, target):
            return False
        self.move(downlink, target, **changes)
        return True

    def keep(self, downlink: Downlink) -> None:
        """Store a downlink as it is, without a move.

        MessageError (code `state`): it holds a value that no engine's state can keep, as a whole
        number past 64 bits, which a device or a network server may well send.
        """
        stored = msgspec.to_builtins(downlink)
        try:
            orjson.dumps(stored)
        except TypeError as error:
            text = f"a value of the downlink cannot be kept: {error}"
            raise MessageError(text, code="state", downlink=downlink.id) from error
        self._state.put(self._key, f"{_NEAR}{downlink.id}", stored)
        if downlink.id in self._ended:
            self._end(downlink.id)  # who had news of it may have more

    def remember_window(self, window_key: str, downlink_id: str) -> None:
        """Remember which downlink a request got."""
        self._state.put(self._key, f"window/{self._now_ms:013d}/{window_key}", downlink_id)

    def window(self, window_key: str, keep_ms: int) -> str | None:
        """Return which downlink a remembered request got; None: it got none, or that is forgotten.
        Forgets those that are too old or too many.
        """
        parts = list(self._state.scan(self._key, "window/"))
        surplus = len(parts) - self.limits.windows_max
        oldest = f"window/{max(0, self._now_ms - keep_ms):013d}"
        found = None
        for number, (part, downlink_id) in enumerate(parts):
            if number < surplus or part < oldest:
                self._state.delete(self._key, part)
            elif part[_WINDOW_KEY:] == window_key:
                found = downlink_id
        return found

    def links(self) -> dict[str, Link]:
        """Return the ways back that are known, by integration."""
        return {
            part.partition("/")[2]: msgspec.convert(stored, Link)
            for part, stored in self._state.scan(self._key, "link/")
        }

    def link(self, integration: str) -> Link | None:
        """Return the device's way back by an integration, as the last request told it."""
        stored = self._state.get(self._key, f"link/{integration}")
        return None if stored is None else msgspec.convert(stored, Link)

    def set_link(self, integration: str, link: Link) -> None:
        """Keep the device's way back, where it is new."""
        stored = msgspec.to_builtins(link)
        if stored != self._state.get(self._key, f"link/{integration}"):
            self._state.put(self._key, f"link/{integration}", stored)

    def forget(self) -> None:
        """Remove all parts and timers of the device."""
        for part, _ in list(self._state.scan(self._key)):
            if part.startswith((_NEAR, _ASIDE)):
                downlink_id = part.removeprefix(ASIDE).removeprefix(_NEAR)
                self._state.cancel_timer(self._key, f"expire/{downlink_id}")
                self._state.cancel_timer(self._key, f"answer/{downlink_id}")
            self._state.delete(self._key, part)

    def close(self) -> None:
        """Write the order back, where it changed. Call it when the record is done."""
        order: dict[str, Any] = {}
        if self._waiting:
            order["waiting"] = self._waiting
        if self._ended:
            order["ended"] = self._ended
        if self._sending:
            order["sending"] = self._sending
        if self._answering:
            order["answering"] = msgspec.to_builtins(self._answering)
        if self._last_sent:
            order["last_sent"] = self._last_sent
        if order != (self._state.get(self._key, "order") or {}):
            self._state.put(self._key, "order", order or None)

    def _end(self, downlink_id: str) -> None:
        """Make it the last of those that ended; what is not among the last any more goes aside."""
        if downlink_id in self._ended:
            self._ended.remove(downlink_id)
            self._state.delete(self._key, f"{_ASIDE}{downlink_id}")
        self._ended.append(downlink_id)
        if len(self._ended) > self.limits.history_near:
            earlier = self._ended[-self.limits.history_near - 1]
            stored = self._state.get(self._key, f"{_NEAR}{earlier}")
            if stored is not None:
                self._state.put(self._key, f"{_ASIDE}{earlier}", stored)
                self._state.delete(self._key, f"{_NEAR}{earlier}")
        while len(self._ended) > self.limits.history_max:
            gone = self._ended.pop(0)
            for prefix in (_NEAR, _ASIDE):  # near: of a log that an earlier program wrote
                self._state.delete(self._key, f"{prefix}{gone}")
            for integration in [name for name, one in self._last_sent.items() if one == gone]:
                del self._last_sent[integration]


def _rank(downlink: Downlink) -> int:
    return _NORMAL if downlink.priority is None else _RANKS[downlink.priority]


def _takes_the_place_of(earlier: Downlink, later: Downlink) -> bool:
    same_key = later.supersede_key and later.supersede_key == earlier.supersede_key
    return bool(later.queue == "replace" or same_key)
