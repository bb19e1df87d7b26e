"""Refuses answers in the response to a device's request, on an engine that may repeat them.

In: a stage. Out: the same stage, for which no waiting request can carry data: the request is
answered empty at once, and downlinks keep waiting.
"""

from __future__ import annotations

import msgspec

from pipeline import topics
from pipeline.logs import get_logger
from pipeline.model.event import DownlinkWork, ReplyWindow
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Batch, DeviceState, Stage

_log = get_logger(__name__)
_decode = msgspec.json.Decoder(DownlinkWork).decode
_encode = msgspec.json.Encoder().encode
# Only windows are decoded here; the tag is how msgspec writes it.
_KIND = b'"kind":"window"'


class WithoutAnswers:
    """A stage in front of which windows are closed. Warns once an integration and process."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.name = stage.name
        self.topic = stage.topic
        self.state_topic = stage.state_topic
        self._warned: set[str] = set()

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        """Close the batch's windows, then do what the stage does."""
        records = [self._close(record) for record in batch.records]
        return self._stage.handle(msgspec.structs.replace(batch, records=records), state, now_ms)

    def _close(self, record: Record) -> Record:
        if record.value is None or _KIND not in record.value:
            return record
        try:
            work = _decode(record.value)
        except msgspec.DecodeError:
            return record  # The stage says what is wrong with it.
        if not isinstance(work, ReplyWindow) or not work.window.carries:
            return record
        self._warn(work.integration)
        window = msgspec.structs.replace(work.window, carries=False)
        closed = msgspec.structs.replace(work, window=window)
        return msgspec.structs.replace(record, value=_encode(closed))

    def _warn(self, integration: str) -> None:
        if integration not in self._warned:
            self._warned.add(integration)
            _log.warning(
                "a device asked for its downlink in the response, which this engine refuses, since"
                " it could give one twice; run the Kafka or the embedded engine, or set"
                " FUNICULAR_FAUST_SYNCHRONOUS_DOWNLINKS=true to allow it",
                integration=integration,
            )


def without_answers(stage: Stage) -> Stage:
    """Return the stage with its windows closed; the stage itself where it has none."""
    return WithoutAnswers(stage) if stage.topic == topics.DOWNLINK_REQUESTED else stage
