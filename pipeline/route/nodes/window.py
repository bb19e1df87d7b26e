"""`window`: messages in, a message with summaries of a span of time out by `then` at its end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any, ClassVar

from pydantic import Field, model_validator

from pipeline.model.event import DeviceMessage
from pipeline.part import Part
from pipeline.route.fields import Target
from pipeline.route.memory import expect, recall, remember
from pipeline.route.message import time_text
from pipeline.route.moments import Span, arrived, as_of
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import MISSING
from pipeline.route.summary import Summarized, begin, join, result, value_for
from pipeline.route.visit import Visit

PANES_MAX = 200
_TIMER = "end"
_LAG_STEP_MS = 1_000  # what a worker is behind by less than this is no lag


class WindowConfig(Part):
    """Which span, and what is summed up."""

    length: Span
    every: Span | None = Field(
        default=None,
        description="How often a window ends; shorter than `length`, windows overlap (slide).",
    )
    lateness: Span = Field(
        default=10_000, description="How long a window waits for messages that come late."
    )
    values: dict[str, Summarized] = Field(
        min_length=1,
        max_length=32,
        description="By name: `count`, `sum`, `min`, `max`, `mean`, `first`, `last` or `distinct` "
        "(how many different values) of a place.",
    )

    @model_validator(mode="after")
    def _fits(self) -> WindowConfig:
        step = self.step
        if self.length % step:
            raise ValueError("`length` must be so many times `every`")
        if step < _LAG_STEP_MS:
            raise ValueError("windows last at least a second")
        if (self.length + self.lateness) // step > PANES_MAX:
            raise ValueError(f"`length` and `lateness` together: at most {PANES_MAX} times `every`")
        return self

    @property
    def step(self) -> int:
        """The time from one window's end to the next one's."""
        return self.every or self.length

    @cached_property
    def shape(self) -> str:
        """What tells kept values of this config from those of another."""
        values = sorted((name, one.function, str(one.place)) for name, one in self.values.items())
        text = repr((self.length, self.step, values))
        return blake2b(text.encode(), digest_size=6).hexdigest()


@dataclass(slots=True)
class _Kept:
    """What is kept of a device, as it changes in one visit.

    A pane is a piece of `step` of all windows that it is in: its messages, and its summaries.
    """

    panes: dict[int, tuple[int, dict[str, Any]]] = field(default_factory=dict)
    latest_ms: int = 0  # the latest message's time
    closed_ms: int = 0  # the end of the last window that was closed
    lag_ms: int = 0  # how far the worker was behind when the last message came
    received_ms: int = 0
    due_ms: int = 0  # of the timer that is set


class Window(Onward):
    """Sums up the messages of a device in windows of time: one message for each window, at its end.

    Windows begin at full multiples of their length in UTC (`15m`: at :00, :15, …), and take
    messages by their time. Where `every` is shorter than `length`, they overlap. The new message
    has the summaries as its telemetry, the window's end as its time, and `metadata.window` with
    `start`, `end` and `messages`; it leaves by `then`. A window without messages makes none.

    A window closes when a message comes that is later than its end and `lateness`, or when that
    time has passed; a message that comes after its end makes it wait for `lateness` anew. Each
    message leaves by `otherwise` when it comes; one that is too late for its window is not counted
    and leaves by `late`, where that is named. A change of this node's config begins anew.

    - name: each quarter
      window:
        length: 15m
        values:
          mean: {mean: telemetry.temperature}
          warmest: {max: telemetry.temperature}
          readings: {count: telemetry.temperature}
      otherwise: stop
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "window"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise", "late")

    window: WindowConfig
    otherwise: Target | None = Field(default=None, description="Each message when it comes.")
    late: Target | None = Field(default=None, description="Messages that came too late.")

    def apply(self, visit: Visit) -> Outcome:
        """Return the windows that end by `then`, and the message. MessageError (code `number`): a
        value is no number.
        """
        config, message = self.window, visit.message
        kept = self._kept(visit)
        time_ms = as_of(visit)
        kept.latest_ms = max(kept.latest_ms, time_ms)
        over_ms = kept.latest_ms - config.lateness
        ended = [("then", made) for made in self._close(visit, kept, over_ms)]
        pane = time_ms // config.step
        if pane * config.step + config.length <= max(kept.closed_ms, over_ms):
            self._keep(visit, kept)
            return [*ended, ("late" if self.late else "otherwise", message)]
        kept.panes[pane] = self._with(kept.panes.get(pane, (0, {})), message, time_ms)
        received_ms = arrived(visit)
        kept.received_ms = max(kept.received_ms, received_ms)
        lag_ms = visit.now_ms - received_ms
        kept.lag_ms = lag_ms - lag_ms % _LAG_STEP_MS
        self._keep(visit, kept)
        return [*ended, ("otherwise", message)]

    def apply_timer(self, visit: Visit, data: Any) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return the windows whose time is over by `then`."""
        kept = self._kept(visit)
        expect(kept.panes, self.verb)
        kept.due_ms = 0
        # A worker that is behind may still have messages of this window before it, so the timer
        # waited as long as the worker was behind.
        over_ms = max(visit.now_ms - kept.lag_ms - self.window.lateness, self._next_end(kept))
        ended = [("then", made) for made in self._close(visit, kept, over_ms)]
        self._keep(visit, kept)
        return ended

    def _with(
        self, pane: tuple[int, dict[str, Any]], message: DeviceMessage, time_ms: int
    ) -> tuple[int, dict[str, Any]]:
        messages, before = pane
        after = dict(before)
        for name, summary in self.window.values.items():
            value = value_for(summary, message)
            if value is not MISSING:
                one = begin(summary.function, value, time_ms)
                after[name] = join(summary.function, after[name], one) if name in after else one
        return messages + 1, after

    def _next_end(self, kept: _Kept) -> int:
        """Return the end of the first window that is not closed and has a message."""
        step = self.window.step
        first_end = (min(kept.panes) + 1) * step
        return max(first_end, kept.closed_ms + step) if kept.closed_ms else first_end

    def _close(self, visit: Visit, kept: _Kept, over_ms: int) -> Iterator[DeviceMessage]:
        """Yield a message for each window that ends by `over_ms`; what no other needs is gone."""
        step, length = self.window.step, self.window.length
        while kept.panes and (end_ms := self._next_end(kept)) <= over_ms:
            inside = [pane for pane in kept.panes if end_ms - length <= pane * step < end_ms]
            yield self._summed_up(visit, [kept.panes[pane] for pane in sorted(inside)], end_ms)
            kept.closed_ms = end_ms
            kept.panes = {
                pane: held for pane, held in kept.panes.items() if pane * step + length > end_ms
            }

    def _summed_up(
        self, visit: Visit, panes: list[tuple[int, dict[str, Any]]], end_ms: int
    ) -> DeviceMessage:
        telemetry = {}
        for name, summary in self.window.values.items():
            there = [held[name] for _, held in panes if name in held]
            if there:
                whole = there[0]
                for one in there[1:]:
                    whole = join(summary.function, whole, one)
                telemetry[name] = result(summary.function, whole)
        window = {
            "start": time_text(end_ms - self.window.length),
            "end": time_text(end_ms),
            "messages": sum(messages for messages, _ in panes),
        }
        return visit.successor(
            str(end_ms),
            time_ms=end_ms,
            received_ms=max(visit.now_ms, end_ms),
            telemetry=telemetry,
            metadata={**visit.message.metadata, "window": window},
            attributes={},
            payload=None,
            f_cnt=None,
        )

    def _kept(self, visit: Visit) -> _Kept:
        kept = recall(visit, self.verb, self.window.shape)
        if not kept:
            return _Kept()
        panes = {int(pane): (messages, held) for pane, (messages, held) in kept["panes"].items()}
        return _Kept(panes, *kept["times"])

    def _keep(self, visit: Visit, kept: _Kept) -> None:
        """Set the timer of the next end, and remember."""
        if kept.panes:
            waits_ms = self.window.lateness + kept.lag_ms
            due_ms = max(self._next_end(kept), kept.received_ms) + waits_ms
            if due_ms != kept.due_ms or due_ms <= visit.now_ms:
                kept.due_ms = max(due_ms, visit.now_ms + 1)
                visit.wake(_TIMER, kept.due_ms)
        elif kept.due_ms:
            visit.cancel_wake(_TIMER)
            kept.due_ms = 0
        times = [kept.latest_ms, kept.closed_ms, kept.lag_ms, kept.received_ms, kept.due_ms]
        panes = {str(pane): list(held) for pane, held in kept.panes.items()}
        remember(visit, self.verb, {"panes": panes, "times": times}, self.window.shape)


NODE = Window
