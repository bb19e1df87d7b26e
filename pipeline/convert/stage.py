"""The stage convert: what a network server sent → what happened to which device.

In: `uplink.received`, the bytes as they came with CloudEvents headers, from the door or from any
Kafka producer. Out: `device.events` (a DeviceMessage for each set of values, a DownlinkReport for
each piece of news of a downlink); `reply` (an empty part, for a request that waits where there is
no device to wait for); `dead.letter`.
"""

from __future__ import annotations

from collections import Counter

from pipeline.convert.decode import READINGS_MAX, call_of, converter_of
from pipeline.convert.outcome import STAGE, Outcome
from pipeline.convert.received import Received, read
from pipeline.errors import MessageError
from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState, ScriptCall, ScriptPort
from pipeline.rulebook.book import Rulebook, Rulebooks
from pipeline.topics import UPLINK_RECEIVED


class Convert:
    """Turns uplinks into events of devices. See `ports.Stage`."""

    name = STAGE
    topic = UPLINK_RECEIVED
    state_topic: str | None = None

    def __init__(
        self,
        rulebooks: Rulebooks,
        scripts: ScriptPort,
        metrics: Registry,
        *,
        readings_max: int = READINGS_MAX,
        default_integration: str = "",
    ) -> None:
        """`default_integration` (`tenant/integration`) has the records that name none."""
        self._rulebooks = rulebooks
        self._scripts = scripts
        self._metrics = metrics
        self._readings_max = readings_max
        self._default = default_integration

    def handle(
        self,
        batch: Batch,
        state: DeviceState,  # noqa: ARG002 - the port's shape; this stage keeps no state
        now_ms: int,
    ) -> list[Outgoing]:
        """Return events, replies and dead letters, in the order of the records.

        All scripts of the batch are called at once; it blocks on nothing else.
        """
        books = self._rulebooks()
        calls: list[ScriptCall] = []
        works: list[Received] = []
        for record in batch.records:
            work = Received(record)
            try:
                book = read(work, books, self._default)
            except MessageError as fault:
                work.fault = fault
            else:
                _prepare(work, book, calls)
            works.append(work)
        results = self._scripts.call(calls) if calls else []
        out: list[Outgoing] = []
        reasons: Counter[str] = Counter()
        for work in works:
            outcome = Outcome(work, now_ms, self._readings_max)
            outcome.run(results)
            out += outcome.out
            if outcome.reasons:
                reasons.update(outcome.reasons)
        for reason, amount in reasons.items():
            self._metrics.add(
                "funicular_dead_letters_total", amount, stage=self.name, reason=reason
            )
        return out


def _prepare(work: Received, book: Rulebook, calls: list[ScriptCall]) -> None:
    """Add the record's script calls to those of the batch."""
    for index, uplink in enumerate(work.uplinks):
        call = None
        name = converter_of(uplink, work.integration, book)
        work.converters.append(name)
        try:
            call = call_of(uplink, work.integration, book, name, work.record.time_ms)
        except MessageError as fault:
            work.faults[index] = fault
        work.calls.append(call)
        work.places.append(-1 if call is None else len(calls))
        if call is not None:
            calls.append(call)
