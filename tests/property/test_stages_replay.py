"""Whatever happens to devices: replaying what was recorded gives the same state and outputs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import topics
from pipeline.downlink.stage import DownlinkStage
from pipeline.metrics import Registry
from pipeline.model.downlink import Downlink, State, may_move
from pipeline.model.event import (
    AttributesChange,
    Cancel,
    DeviceMessage,
    DownlinkReport,
    Forget,
    Query,
    Window,
)
from pipeline.model.record import (
    EVENT_ID,
    REPEAT_KEY,
    REPLY_TO,
    TRACE_ID,
    Outgoing,
    device_key,
    headers_of,
)
from pipeline.model.reply import Reply, ReplyTo
from pipeline.model.uplink import Report
from pipeline.ports import ScriptCall
from pipeline.route.stage import Route
from pipeline.stream.memory import MemoryEngine
from pipeline.wiring import load_rules

ROOT = Path(__file__).parents[2]
BOOKS = load_rules([ROOT / "rules"], None, {})
DEVICES = ("meter-1", "meter-2")


class Encoder:
    """Encodes everything to the same eight bytes."""

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        return [{"bytes": [1] * 8, "fPort": None, "warnings": []} for _ in calls]

    def close(self) -> None:
        """Nothing to end."""


_times = st.integers(0, 30)
_happenings = st.one_of(
    st.tuples(st.just("uplink"), st.sampled_from(DEVICES), st.integers(40, 80), _times),
    st.tuples(st.just("asks"), st.sampled_from(DEVICES), st.integers(40, 80), _times),
    st.tuples(st.just("repeats"), st.sampled_from(DEVICES), st.integers(0, 30), _times),
    st.tuples(st.just("attributes"), st.sampled_from(DEVICES), st.integers(40, 80), _times),
    st.tuples(st.just("answered"), st.sampled_from(DEVICES), st.integers(0, 5), _times),
    st.tuples(st.just("not_answered"), st.sampled_from(DEVICES), st.integers(0, 5), _times),
    st.tuples(st.just("cancel"), st.sampled_from(DEVICES), st.just(0), _times),
    st.tuples(st.just("forget"), st.sampled_from(DEVICES), st.just(0), _times),
    st.tuples(st.just("query"), st.sampled_from(DEVICES), st.just(0), _times),
)


class World:
    """An engine, the record of what went in, and what the door would see."""

    def __init__(self) -> None:
        self.engine = MemoryEngine(
            [
                Route(lambda: BOOKS, Registry()),
                DownlinkStage(lambda: BOOKS, Encoder(), Registry()),
            ],
            now_ms=1_000_000,
        )
        self.asked: list[tuple[str, str]] = []

    def happen(self, n: int, happening: tuple[str, str, int, int]) -> None:
        kind, device, value, seconds = happening
        now_ms = self.engine.now_ms + seconds * 1_000
        self.engine.advance(now_ms)
        event, more = self._event(kind, device, value, n, now_ms)
        if event is None:
            return
        headers = headers_of(
            event_id=event.id, trace=more.pop(TRACE_ID, event.id), cause="", tenant="demo", rules=""
        )
        key = device_key("demo", device)
        value_json = msgspec.json.encode(event)
        self.engine.append([Outgoing(topics.DEVICE_EVENTS, key, value_json, headers | more)])

    def _event(
        self, kind: str, device: str, value: int, n: int, now_ms: int
    ) -> tuple[Any, dict[str, str]]:
        common = {"id": f"e{n}", "tenant": "demo", "device": device, "time_ms": now_ms}
        match kind:
            case "uplink":
                return self._message(common, value, None), {REPEAT_KEY: f"k{n}"}
            case "asks":
                return self._ask(common, device, value, f"k{n}")
            case "repeats":
                before = [key for where, key in self.asked if where == device]
                if not before:
                    return None, {}
                return self._ask(common, device, 50, before[value % len(before)])
            case "attributes":
                return AttributesChange(**common, scope="shared", set={"target": value}), {}
            case "answered" | "not_answered":
                state = State.SENT if kind == "answered" else State.QUEUED
                given = [r.downlink_id for r in self.replies() if r.downlink_id]
                if not given:
                    return None, {}
                report = Report(state, given[-1 - value % len(given)], "" if value else "x")
                return DownlinkReport(**common, report=report), {}
            case "cancel":
                return Cancel(**common), {}
            case "query":
                return Query(**common, what="downlinks"), self._reply_to(f"r{n}")
        return Forget(**common), {}

    def _ask(
        self, common: dict[str, Any], device: str, value: int, key: str
    ) -> tuple[Any, dict[str, str]]:
        self.asked.append((device, key))
        more = self._reply_to(common["id"]) | {REPEAT_KEY: key}
        return self._message(common, value, Window(key)), more

    def _reply_to(self, request: str) -> dict[str, str]:
        reply_to = ReplyTo("door", request, self.engine.now_ms + 40_000)
        return {REPLY_TO: msgspec.json.encode(reply_to).decode()}

    @staticmethod
    def _message(common: dict[str, Any], value: int, window: Window | None) -> DeviceMessage:
        return DeviceMessage(
            **common,
            type="uplink",
            integration="sigfox-meters",
            received_ms=common["time_ms"],
            device_type="meter",
            telemetry={"temperature": value, "flow": 3, "volume": 10},
            window=window,
        )

    def replies(self) -> list[Reply]:
        found = self.engine.records(topics.REPLY)
        return [msgspec.json.decode(r.value or b"", type=Reply) for r in found]

    def told(self) -> dict[str, list[tuple[str, bytes | None]]]:
        """Return what every topic but the input holds, without times of the commit."""
        return {
            topic: [(r.headers[EVENT_ID], r.value) for r in self.engine.records(topic)]
            for topic in self.engine.topics()
            if topic != topics.DEVICE_EVENTS
        }


@settings(max_examples=60, deadline=None)
@given(st.lists(_happenings, max_size=30))
def test_stages_keep_their_promises(happenings: list[tuple[str, str, int, int]]) -> None:
    """One answer a request; legal lives only; one downlink for two different requests only where
    it was flagged; every id of an output once; and nothing that happens stops a stage.
    """
    world = World()
    for n, happening in enumerate(happenings):
        world.happen(n, happening)
        world.engine.run_until_idle()
    world.engine.advance(world.engine.now_ms + 120_000)

    waited = [
        n
        for n, record in enumerate(world.engine.records(topics.DEVICE_EVENTS))
        if REPLY_TO in record.headers
    ]
    assert len(world.replies()) == len(waited)
    lives: dict[str, list[Downlink]] = {}
    for record in world.engine.records(topics.DOWNLINK_STATUS):
        downlink = msgspec.json.decode(record.value or b"", type=Downlink)
        lives.setdefault(downlink.id, []).append(downlink)
    for life in lives.values():
        states = [downlink.state for downlink in life]
        for before, after in itertools.pairwise(states):
            assert may_move(before, after), states
    carried: dict[str, set[str]] = {}
    keys = {r.headers[EVENT_ID]: r.headers.get(REPEAT_KEY, "")
            for r in world.engine.records(topics.DEVICE_EVENTS)}  # fmt: skip
    for reply in world.replies():
        if reply.downlink_id:
            carried.setdefault(reply.downlink_id, set()).add(keys[reply.request])
    for downlink_id, requests in carried.items():
        flagged = any(d.possibly_delivered for d in lives[downlink_id])
        assert len(requests) == 1 or flagged
    ids = [event_id for topic in world.told().values() for event_id, _ in topic]
    assert len(ids) == len(set(ids))


@settings(max_examples=40, deadline=None)
@given(st.lists(_happenings, max_size=25))
def test_batches_do_not_matter(happenings: list[tuple[str, str, int, int]]) -> None:
    """The same records, handled one by one or all at once, give the same state and outputs."""
    one_by_one, replayed = World(), World()
    for n, (kind, device, value, _) in enumerate(happenings):
        one_by_one.happen(n, (kind, device, value, 0))
        one_by_one.engine.run_until_idle()
    for record in one_by_one.engine.records(topics.DEVICE_EVENTS):
        replayed.engine.append([Outgoing(record.topic, record.key, record.value, record.headers)])
    replayed.engine.run_until_idle()

    assert replayed.told() == one_by_one.told()
    for stage in ("route", "downlink"):
        assert replayed.engine.state(stage) == one_by_one.engine.state(stage)
        assert replayed.engine.timers(stage) == one_by_one.engine.timers(stage)
