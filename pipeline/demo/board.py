"""What the view shows, kept up to date: rates, newest uplinks, rules, attributes, downlinks, loops.

In: news and metrics. Out: values to draw. Everything is bounded; time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pipeline.demo.loops import ClosedLoop, Loops
from pipeline.demo.news import News
from pipeline.metrics import Registry
from pipeline.model.downlink import Downlink, State
from pipeline.model.event import AttributesChange, DeviceMessage

NEWEST_MAX = 50  # of each list; a terminal shows fewer
RATE_OVER_S = 5.0
STAGES = ("convert", "route", "downlink")
# Of all messages of a chain, these go through nodes that are no news: those at its beginning.
_ROUTINE_SHARE = 0.8


class Changed(NamedTuple):
    """Attributes of a device that changed, with their new values, and who did it."""

    device: str
    values: dict[str, Any]
    by: str


class Fired(NamedTuple):
    """A rule node's outlet, and how often messages left by it; `recently`: in the last seconds."""

    chain: str
    node: str
    outlet: str
    times: int
    recently: int


@dataclass
class Life:
    """A downlink and the states it has been in, the first time each."""

    downlink: Downlink
    states: list[State] = field(default_factory=list)


@dataclass
class Board:
    """Call `update` a few times a second; the rest is read between the calls."""

    metrics: Registry
    loops: Loops
    uplinks: deque[DeviceMessage] = field(default_factory=lambda: deque(maxlen=NEWEST_MAX))
    changed: deque[Changed] = field(default_factory=lambda: deque(maxlen=NEWEST_MAX))
    closed: deque[ClosedLoop] = field(default_factory=lambda: deque(maxlen=NEWEST_MAX))
    lives: OrderedDict[str, Life] = field(default_factory=OrderedDict)
    _samples: deque[tuple[float, dict[str, float], dict[tuple[str, ...], float]]] = field(
        default_factory=deque
    )

    def update(self, news: News, now_s: float) -> tuple[list[Changed], list[ClosedLoop]]:
        """Take the news in; return the attributes that changed and the loops that closed."""
        uplinks = (e for e in news.events if isinstance(e, DeviceMessage) and e.type == "uplink")
        self.uplinks.extend(uplinks)
        changed = _changes(news)
        self.changed.extend(changed)
        for downlink in news.downlinks:
            self._live(downlink)
        closed = self.loops.watch(news)
        self.closed.extend(closed)
        self._sample(now_s)
        return changed, closed

    def totals(self) -> dict[str, float]:
        """Return what has passed each step: door, the stages, deliveries."""
        totals = {"door": sum(self.metrics.values("funicular_requests_total").values())}
        stages = {
            dict(labels)["stage"]: value
            for labels, value in self.metrics.values("funicular_stage_records_total").items()
        }
        totals |= {stage: stages.get(stage, 0.0) for stage in STAGES}
        totals["delivered"] = sum(
            value
            for labels, value in self.metrics.values("funicular_deliveries_total").items()
            if dict(labels).get("result") == "delivered"
        )
        return totals

    def rates(self) -> dict[str, float]:
        """Return messages a second over the last seconds, by step."""
        if len(self._samples) < 2:
            return dict.fromkeys(self.totals(), 0.0)
        began, before, _ = self._samples[0]
        ended, now, _ = self._samples[-1]
        passed = max(ended - began, 0.001)
        return {step: (now[step] - before.get(step, 0)) / passed for step in now}

    def fired(self) -> list[Fired]:
        """Return the rule nodes that decided something, those of the last seconds first."""
        counts = self._nodes()
        before = self._samples[0][2] if self._samples else {}
        most: dict[str, float] = {}
        for (chain, _, _), times in counts.items():
            most[chain] = max(times, most.get(chain, 0))
        fired = [
            Fired(
                chain, node, outlet, int(times), int(times - before.get((chain, node, outlet), 0))
            )
            for (chain, node, outlet), times in counts.items()
            if outlet != "otherwise" and times < _ROUTINE_SHARE * most[chain]
        ]
        return sorted(fired, key=lambda each: (-each.recently, each.chain, each.node, each.outlet))

    def downlink_states(self) -> dict[str, int]:
        """Return how many downlinks have reached each state."""
        series = self.metrics.values("funicular_downlinks_total")
        counts = {dict(labels)["state"]: int(value) for labels, value in series.items()}
        return {state.value: counts[state.value] for state in State if counts.get(state.value)}

    def _live(self, downlink: Downlink) -> None:
        life = self.lives.get(downlink.id)
        if life is None:
            life = self.lives[downlink.id] = Life(downlink)
            if len(self.lives) > NEWEST_MAX:
                self.lives.popitem(last=False)
        life.downlink = downlink
        if downlink.state not in life.states:
            life.states.append(downlink.state)

    def _nodes(self) -> dict[tuple[str, ...], float]:
        series = self.metrics.values("funicular_rule_nodes_total")
        found: dict[tuple[str, ...], float] = {}
        for labels, value in series.items():
            named = dict(labels)
            found[named["chain"], named["node"], named["outlet"]] = value
        return found

    def _sample(self, now_s: float) -> None:
        self._samples.append((now_s, self.totals(), self._nodes()))
        while len(self._samples) > 2 and now_s - self._samples[0][0] > RATE_OVER_S:
            self._samples.popleft()


def _changes(news: News) -> list[Changed]:
    """Return the attributes that changed: by the API, and as rules told the application of it."""
    changes = [
        Changed(event.device, event.set | dict.fromkeys(event.delete), event.by or "the API")
        for event in news.events
        if isinstance(event, AttributesChange)
    ]
    for delivery in news.deliveries:
        values = _told(delivery.body)
        if values:
            changes.append(Changed(delivery.device, values, "a rule"))
    return changes


def _told(body: Any) -> dict[str, Any]:
    """Return the changed attributes in what a rule of the demo sends to the application."""
    if not isinstance(body, dict):
        return {}
    attributes = body.get("attributes")
    if isinstance(attributes, dict) and isinstance(body.get("changed"), list):
        return {name: attributes.get(name) for name in body["changed"]}
    return {"interval": body["interval"]} if "interval" in body else {}


def in_words(values: dict[str, Any], limit: int | None = None) -> str:
    """Return values as `name=value` words, the first `limit` of them."""
    words = [f"{name}={_word(value)}" for name, value in values.items()]
    return " ".join(words[:limit])


def _word(value: Any) -> str:
    if value is None:
        return "gone"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e5 else str(value)


def newest(entries: Sequence[Any], limit: int) -> list[Any]:
    """Return the last `limit` entries, the newest first."""
    return list(entries)[: -limit - 1 : -1]
