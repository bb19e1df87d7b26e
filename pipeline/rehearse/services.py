"""The services that chains ask (`remote_call`), played in a rehearsal.

In: awaited deliveries, and by sink what its service answers. Out: how each call ended, as the sink
itself would tell it; when the next thing is due. It judges, waits and gives up by the sink's own
rules; only the jitter of waits is left out, so that each run is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import msgspec

from pipeline.integrations.dialect import path_segment
from pipeline.model.delivery import Delivery
from pipeline.model.record import Outgoing, Record
from pipeline.rulebook.book import SinkEntry
from pipeline.sink.calls import Answer, UnansweredError, answered, judge, unanswered
from pipeline.sink.endings import Ended, How, sink_ending
from pipeline.sink.naming import Name
from pipeline.sink.retry import RetryConfig
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Result, Verdict

ANSWERING = "http"
"""The transport that gives answers."""
TRIES_MAX = 1_000
"""Of one call; after that many it just waits until its time is over."""
_AWAITED = b'"awaited":true'
_decode_delivery = msgspec.json.Decoder(Delivery).decode

CallEnd = Literal["replied", "failed", "timeout"]
_ENDS: dict[How, CallEnd] = {
    How.DELIVERED: "replied",
    How.REFUSED: "failed",
    How.GIVEN_UP: "failed",
    How.EXPIRED: "timeout",
}


class ServiceAnswer(NamedTuple):
    """What a service answers to one request, `after_ms`; `is_away`: it cannot be reached."""

    status: int = 200
    body: bytes = b""
    after_ms: int = 0
    is_away: bool = False


@dataclass(slots=True)
class ServiceCall:
    """A call that a chain made. `ended` None: it still waits. `tries` counts the requests."""

    sink: str
    delivery: Delivery
    record: Record
    since_ms: int
    due_ms: int | None  # when it is tried, or when the request under way ends; None: never
    ended: CallEnd | None = None
    tries: int = 0
    failures: int = 0
    error: str = ""
    uncertain: bool = False
    under_way: ServiceAnswer | None = None


class Services:
    """All services of one rehearsal. `answers` are given one after the other, by sink; the last is
    repeated. Of a sink that is not there nothing comes. `calls` are in the order made.
    """

    def __init__(self, sinks: Mapping[str, SinkEntry]) -> None:
        self.answers: dict[str, Sequence[ServiceAnswer]] = {}
        self.calls: list[ServiceCall] = []
        self._sinks = sinks
        self._given: dict[str, int] = {}  # by sink: how many answers it gave
        self._settings = SinkSettings()

    def ask(self, sink: str, record: Record, now_ms: int) -> None:
        """Take a record of a sink's topic; one whose answer nobody awaits is none of ours."""
        if record.value is None or _AWAITED not in record.value:
            return
        delivery = _decode_delivery(record.value)
        if delivery.awaited:
            due_ms = now_ms if sink in self.answers else None
            self.calls.append(ServiceCall(sink, delivery, record, now_ms, due_ms))

    def due_ms(self) -> int | None:
        """Return when `work` has something to do next; None: never."""
        due = [call.due_ms for call in self._heads() if call.due_ms is not None]
        return min(due, default=None)

    def work(self, now_ms: int) -> list[Outgoing]:
        """Do all that is due; return the news of the calls that ended by an answer.

        A call whose time is over gives no news: the chain has gone on by then.
        """
        for call in self.calls:
            until_ms = call.delivery.expires_at_ms
            if call.ended is None and until_ms is not None and until_ms <= now_ms:
                call.ended = "timeout"
        news: list[Outgoing] = []
        while due := [c for c in self._heads() if c.due_ms is not None and c.due_ms <= now_ms]:
            for call in due:
                news += self._go_on(call, now_ms)
        return news

    def _heads(self) -> list[ServiceCall]:
        """Return the open calls that are first of their device: a sink keeps a device's order."""
        heads: dict[tuple[str, str], ServiceCall] = {}
        for call in self.calls:
            if call.ended is None:
                heads.setdefault((call.sink, call.delivery.device), call)
        return list(heads.values())

    def _go_on(self, call: ServiceCall, now_ms: int) -> list[Outgoing]:
        answer = call.under_way
        if answer is None:
            answer = self._next(call.sink)
            call.tries += 1
            if answer.after_ms:
                call.under_way = answer
                call.due_ms = now_ms + min(answer.after_ms, self._timeout_ms(call.sink))
                return []
        call.under_way = None
        result = self._result(call.sink, answer, now_ms)
        how = How.DELIVERED if result.verdict is Verdict.DELIVERED else How.REFUSED
        if result.verdict is Verdict.POSTPONED:
            if not self._postpone(call, result, now_ms):
                return []
            how = How.GIVEN_UP
        call.ended = _ENDS[how]
        ended = Ended(how, result, call.failures, call.error, call.uncertain)
        return sink_ending(call.record, call.delivery, ended, now_ms)

    def _postpone(self, call: ServiceCall, result: Result, now_ms: int) -> bool:
        """Let the call wait; return whether it is to be given up instead."""
        retry = self._retry(call.sink)
        call.failures += 1
        call.error = result.message
        call.uncertain = call.uncertain or result.uncertain
        pause_s = max(retry.delay_s(call.failures, 0.0), result.pause_s or 0.0)
        is_over = result.stop or call.tries >= TRIES_MAX
        call.due_ms = None if is_over else now_ms + max(1, round(pause_s * 1_000))
        waited_s = (now_ms - call.since_ms) / 1_000
        return retry.give_up_after is not None and waited_s >= retry.give_up_after

    def _next(self, sink: str) -> ServiceAnswer:
        answers = self.answers[sink]
        given = self._given.get(sink, 0)
        self._given[sink] = given + 1
        return answers[min(given, len(answers) - 1)]

    def _result(self, sink: str, answer: ServiceAnswer, now_ms: int) -> Result:
        """Return what the sink would make of an answer."""
        if answer.is_away:
            return unanswered(UnansweredError("cannot connect", code="connect", uncertain=False))
        timeout_ms = self._timeout_ms(sink)
        if answer.after_ms > timeout_ms:
            message = f"no answer within {timeout_ms / 1_000:g} s"
            return unanswered(UnansweredError(message, code="timeout", uncertain=True))
        came = Answer(answer.status, body=answer.body[: self._settings.answer_bytes_max])
        result = judge(
            came,
            now_ms=now_ms,
            pause_s_max=self._settings.retry_after_s_max,
            gone_stops=Name(self._config(sink).url, path_segment).fixed,
        )
        if result.verdict is Verdict.DELIVERED:
            return msgspec.structs.replace(result, answer=answered(came))
        return result

    def _timeout_ms(self, sink: str) -> int:
        timeout_s: float = self._config(sink).timeout
        return round(timeout_s * 1_000)

    def _retry(self, sink: str) -> RetryConfig:
        retry: RetryConfig = self._config(sink).retry
        return retry

    def _config(self, sink: str) -> Any:
        return self._sinks[sink].config
