"""What the downlink stage's tests share: one stage with its state, and works to give it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from pipeline import topics
from pipeline.downlink.limits import Limits
from pipeline.downlink.stage import DownlinkStage
from pipeline.errors import MessageError, ScriptError
from pipeline.metrics import Registry
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink, DownlinkRequest, State
from pipeline.model.event import (
    DownlinkReport,
    ReplyWindow,
    RequestedDownlink,
    Window,
)
from pipeline.model.record import REPLY_TO, Outgoing, Record, device_key, headers_of
from pipeline.model.reply import Reply, ReplyTo
from pipeline.model.uplink import Link, Report
from pipeline.ports import ASIDE, Batch, DeviceState, DueTimer, Script, ScriptCall
from pipeline.rulebook.book import Authentication, Converter, Integration, Rulebook

KEY = device_key("t", "dev")
ANSWER_GRACE_MS = Limits().answer_grace_ms
ENCODER = Script("acme/x.js", "javascript", "encode")


@dataclass(frozen=True)
class FakeDialect:
    """Refuses what the test says; everything else is the shape of a dialect."""

    name: str = "fake"
    synchronous: bool = True
    contract: str = "lorawan"
    has_f_port: bool = True
    takes_fields: bool = False
    repeat_window_s: int = 900
    refuses: str = ""

    def check(self, downlink: Downlink) -> None:
        if self.refuses:
            raise MessageError("this network server cannot carry it", code=self.refuses)


class FakeScripts:
    """Encodes `{"v": n}` to the byte n; a field `bad` makes the script throw."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        self.batches.append(len(calls))
        return [self._one(call) for call in calls]

    def _one(self, call: ScriptCall) -> Any:
        data = call.argument["data"]
        if data.get("bad"):
            return ScriptError("boom", code="script_threw", script=call.script.path, line=3)
        return {"bytes": [data["v"]], "fPort": 7, "warnings": []}

    def close(self) -> None:
        """Nothing to end."""


@dataclass
class Bench:
    """One stage with its state kept between batches, as an engine would."""

    synchronous: bool = True
    unanswered: str = "requeue"
    queue_max: int = 100
    encoder: Script | None = ENCODER
    dialect: FakeDialect = field(default_factory=FakeDialect)
    now_ms: int = 1_000_000
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    timers: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    out: list[Outgoing] = field(default_factory=list)
    offset: int = 0
    limits: Limits = field(default_factory=Limits)
    connection: Any = None

    def __post_init__(self) -> None:
        integration = Integration(
            tenant="t",
            name="link",
            dialect=self.dialect,  # type: ignore[arg-type]
            options=None,
            authentication=Authentication(),
            device_template="{device_id}",
            converter="acme/x",
            synchronous=self.synchronous,
            answer_timeout_s=9,
            unanswered=self.unanswered,  # type: ignore[arg-type]
            queue_max=self.queue_max,
            body_bytes_max=1,
            ordered=True,
            metadata={},
            device_type="",
            connection=self.connection,
        )
        converter = Converter("acme/x", "x.yaml", None, None, self.encoder)
        kinds = {"link": self.synchronous, "moved": not self.synchronous, "twin": self.synchronous}
        integrations = {
            name: replace(integration, name=name, synchronous=synchronous)
            for name, synchronous in kinds.items()
        }
        book = Rulebook("t", Path(), "v1", integrations, {"acme/x": converter}, {}, {})
        self.scripts = FakeScripts()
        self.loaded_aside: list[str] = []
        self.stage = DownlinkStage(lambda: {"t": book}, self.scripts, Registry(), self.limits)

    def run(self, *works: Any, reply_to: ReplyTo | None = None) -> list[Outgoing]:
        records = []
        for work in works:
            self.offset += 1
            headers = headers_of(
                event_id=work.id, trace="trace", cause="cause", tenant="t", rules="v1"
            )
            if reply_to is not None:
                headers[REPLY_TO] = msgspec.json.encode(reply_to).decode()
            value = msgspec.json.encode(work)
            records.append(
                Record(topics.DOWNLINK_REQUESTED, 0, self.offset, 0, KEY, value, headers)
            )
        return self._handle(Batch(0, records))

    def advance(self, to_ms: int) -> list[Outgoing]:
        self.now_ms = to_ms
        due = sorted(
            (due_ms, key, name, data)
            for (key, name), (due_ms, data) in self.timers.items()
            if due_ms <= to_ms
        )
        for _, key, name, _ in due:
            del self.timers[key, name]
        return self._handle(
            Batch(0, [], [DueTimer(key, name, due_ms, data) for due_ms, key, name, data in due])
        )

    def _load(self, key: str) -> dict[str, Any]:
        parts = self.parts.get(key, {})
        return {part: parts[part] for part in parts if not part.startswith(ASIDE)}

    def _load_aside(self, key: str, prefix: str) -> dict[str, Any]:
        self.loaded_aside.append(prefix)
        parts = self.parts.get(key, {})
        return {part: parts[part] for part in parts if part.startswith(prefix)}

    def _handle(self, batch: Batch) -> list[Outgoing]:
        state = DeviceState(self._load, self._load_aside)
        out = self.stage.handle(batch, state, self.now_ms)
        for (key, part), value in state.changes.items():
            parts = self.parts.setdefault(key, {})
            if value is None:
                parts.pop(part, None)
            else:
                parts[part] = msgspec.json.decode(msgspec.json.encode(value))
        for name, timer in state.timer_changes.items():
            self.timers.pop(name, None)
            if timer is not None:
                self.timers[name] = timer
        self.out += out
        return out

    def wait(self, work: Any, *, request: str = "r1", timeout_ms: int = 9_000) -> Reply:
        out = self.run(
            work,
            reply_to=ReplyTo("door", request, self.now_ms + timeout_ms),
        )
        replies = [o for o in out if o.topic == topics.REPLY]
        assert len(replies) == 1, "every window gives exactly one reply"
        assert replies[0].key == "door"
        return msgspec.json.decode(replies[0].value or b"", type=Reply)


def request(n: int, /, work_id: str = "", **asked: Any) -> RequestedDownlink:
    fields = asked.pop("fields", {"v": n})
    integration = asked.pop("integration", "link")
    return RequestedDownlink(
        id=work_id or f"d{n}",
        tenant="t",
        device="dev",
        integration=integration,
        time_ms=1,
        request=DownlinkRequest(fields=fields, **asked),
        link=Link(device_id="dev"),
    )


def window(key: str, **asked: Any) -> ReplyWindow:
    repeated = asked.pop("repeated", False)
    return ReplyWindow(
        id=f"w-{key}",
        tenant="t",
        device="dev",
        integration="link",
        time_ms=1,
        window=Window(key=key, **asked),
        repeated=repeated,
    )


def report(state: State, downlink_id: str = "", **asked: Any) -> DownlinkReport:
    return DownlinkReport(
        id=f"rep-{state}-{downlink_id}",
        tenant="t",
        device="dev",
        time_ms=1,
        report=Report(state=state, downlink_id=downlink_id, **asked),
    )


def states(out: list[Outgoing], downlink_id: str = "") -> list[str]:
    """Return the states that `downlink.status` tells of, in order."""
    told = [
        msgspec.json.decode(o.value or b"", type=Downlink)
        for o in out
        if o.topic == topics.DOWNLINK_STATUS
    ]
    return [str(d.state) for d in told if not downlink_id or d.id == downlink_id]


def status(bench: Bench, downlink_id: str) -> Downlink:
    parts, near = bench.parts[KEY], f"downlink/{downlink_id}"
    return msgspec.convert(parts[near if near in parts else f"!{near}"], Downlink)


def deliveries(out: list[Outgoing]) -> list[Delivery]:
    return [
        msgspec.json.decode(o.value or b"", type=Delivery)
        for o in out
        if o.topic.startswith(topics.DELIVERY_PREFIX)
    ]


def letters(out: list[Outgoing]) -> list[DeadLetter]:
    return [
        msgspec.json.decode(o.value or b"", type=DeadLetter)
        for o in out
        if o.topic == topics.DEAD_LETTER
    ]
