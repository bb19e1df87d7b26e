"""A stage with rules written in a test, and its state kept between batches as an engine would."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from ruamel.yaml import YAML

from pipeline import topics
from pipeline.metrics import Registry
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.delivery import Delivery
from pipeline.model.event import DeviceMessage, DownlinkWork, ReplyWindow, RequestedDownlink
from pipeline.model.record import (
    EVENT_ID,
    TENANT,
    TRACE_ID,
    Outgoing,
    Record,
    device_key,
)
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link
from pipeline.ports import Batch, DeviceState, DueTimer, ScriptPort
from pipeline.route.limits import Limits
from pipeline.route.parse import check_chains, parse_chain
from pipeline.route.stage import Route
from pipeline.route.turn import LogLine
from pipeline.rulebook.book import ChainEntry, Integration, Rulebook
from pipeline.rulebook.catalogue import Known, Problem
from tests.made_integration import made_integration

START_MS = 1_763_712_000_000  # 2025-11-21T08:00:00Z
KEY = device_key("t", "dev")
KNOWN = Known(
    sinks=frozenset({"archive", "application"}),
    integrations=frozenset({"lora", "sigfox"}),
    chains=frozenset({"other", "third", "housekeeping", "main"}),
)
LINK = Link(application_id="app", device_id="dev", urls={"downlink": "https://ns/x?key=s3cret"})


@dataclass(frozen=True)
class FakeDialect:
    """As much of a dialect as the stage asks for."""

    repeat_window_s: int = 900


def yaml(text: str) -> Any:
    return YAML(typ="safe").load(text)


def problems_of(text: str, known: Known = KNOWN) -> list[Problem]:
    return list(parse_chain(yaml(text), known)[1])


def integration(name: str, window_s: int = 900) -> Integration:
    return made_integration(
        tenant="t",
        name=name,
        dialect=FakeDialect(window_s),  # type: ignore[arg-type]
        synchronous=True,
        body_bytes_max=1_000_000,
    )


def rulebook(*chains: str, version: str = "v1") -> Rulebook:
    configs = {}
    for text in chains:
        config, problems = parse_chain(yaml(text), KNOWN)
        assert config is not None, problems
        configs[config.chain] = config
    assert all(problem.warns for each in check_chains(configs).values() for problem in each)
    return Rulebook(
        tenant="t",
        folder=Path("rules"),
        version=version,
        integrations={name: integration(name) for name in ("lora", "sigfox")},
        converters={},
        chains={
            name: ChainEntry(name, f"chains/{name}.yaml", config)
            for name, config in configs.items()
        },
        sinks={},
    )


def uplink(number: int = 1, **fields: Any) -> DeviceMessage:
    """An uplink that is 20.5 degrees warm, unless the test says otherwise."""
    plain: dict[str, Any] = {
        "id": f"u{number}.0",
        "type": "uplink",
        "tenant": "t",
        "device": "dev",
        "integration": "lora",
        "time_ms": START_MS + number * 1_000,
        "received_ms": START_MS + number * 1_000,
        "device_type": "thermostat",
        "telemetry": {"temperature": 20.5, "battery": 90},
        "metadata": {"rssi": -80},
        "link": LINK,
    }
    return DeviceMessage(**{**plain, **fields})


def record(event: Any, **headers: str) -> Record:
    """An event as convert or ingest would have written it."""
    event_id = getattr(event, "id", "e")
    return Record(
        topic=topics.DEVICE_EVENTS,
        partition=3,
        offset=7,
        time_ms=getattr(event, "received_ms", START_MS),
        key=device_key(event.tenant, event.device),
        value=msgspec.json.encode(event),
        headers={EVENT_ID: event_id, TRACE_ID: event_id.split(".")[0], TENANT: "t", **headers},
    )


@dataclass
class Bench:
    """`parts` and `timers` are what an engine would have committed."""

    book: Rulebook
    limits: Limits = field(default_factory=Limits)
    now_ms: int = START_MS
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    timers: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    lines: list[LogLine] = field(default_factory=list)
    writes: list[tuple[str, str]] = field(default_factory=list)
    scripts: ScriptPort | None = None

    def __post_init__(self) -> None:
        self.metrics = Registry()
        self.books = {"t": self.book}
        self.stage = Route(
            lambda: self.books,
            self.metrics,
            log=self.lines.extend,
            limits=self.limits,
            scripts=self.scripts,
        )

    def take(self, *records: Record, timers: Iterable[DueTimer] = ()) -> Made:
        state = DeviceState(lambda key: self.parts.get(key, {}))
        batch = Batch(partition=3, records=records, timers=tuple(timers))
        out = self.stage.handle(batch, state, self.now_ms)
        self.writes = list(state.changes)
        for (key, part), value in state.changes.items():
            parts = dict(self.parts.get(key, {}))
            parts.pop(part, None)
            if value is not None:
                parts[part] = msgspec.json.decode(msgspec.json.encode(value))
            self.parts[key] = parts
        for timer, change in state.timer_changes.items():
            self.timers.pop(timer, None)
            if change is not None:
                due_ms, data = change
                self.timers[timer] = (due_ms, msgspec.json.decode(msgspec.json.encode(data)))
        return Made(out)

    def wait(self, milliseconds: int) -> Made:
        """Let time pass; what is due by then is handled in order."""
        self.now_ms += milliseconds
        due = [
            DueTimer(key=key, name=name, due_ms=due_ms, data=data)
            for (key, name), (due_ms, data) in self.timers.items()
            if due_ms <= self.now_ms
        ]
        for timer in due:
            del self.timers[timer.key, timer.name]
        return self.take(timers=sorted(due, key=lambda timer: timer.due_ms))

    def values(self, scope: str, key: str = KEY) -> dict[str, Any]:
        part = self.parts.get(key, {}).get(f"attributes/{scope}")
        return part["values"] if part else {}


class Made(list[Outgoing]):
    """What a batch appended, by topic."""

    def of(self, topic: str) -> list[Outgoing]:
        return [out for out in self if out.topic == topic]

    @property
    def deliveries(self) -> list[Delivery]:
        return [
            msgspec.json.decode(out.value or b"", type=Delivery)
            for out in self
            if out.topic.startswith(topics.DELIVERY_PREFIX)
        ]

    @property
    def bodies(self) -> list[Any]:
        return [delivery.body for delivery in self.deliveries]

    @property
    def work(self) -> list[Any]:
        return [
            msgspec.json.decode(out.value or b"", type=DownlinkWork)
            for out in self.of(topics.DOWNLINK_REQUESTED)
        ]

    @property
    def downlinks(self) -> list[RequestedDownlink]:
        return [work for work in self.work if isinstance(work, RequestedDownlink)]

    @property
    def windows(self) -> list[ReplyWindow]:
        return [work for work in self.work if isinstance(work, ReplyWindow)]

    @property
    def replies(self) -> list[Reply]:
        return [msgspec.json.decode(out.value or b"", type=Reply) for out in self.of(topics.REPLY)]

    @property
    def letters(self) -> list[DeadLetter]:
        return [
            msgspec.json.decode(out.value or b"", type=DeadLetter)
            for out in self.of(topics.DEAD_LETTER)
        ]
