"""Answers in the response, refused."""

from __future__ import annotations

import msgspec

from pipeline import topics
from pipeline.model.event import Query, ReplyWindow, Window
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Batch, DeviceState
from pipeline.stream.faust_windows import without_answers


class Recording:
    """A stage that keeps its batches."""

    name = "downlink"
    state_topic: str | None = topics.DOWNLINK_STATE

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.batches: list[Batch] = []

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        self.batches.append(batch)
        return []


def record(value: bytes | None) -> Record:
    """Return a record that a request waits for."""
    headers = {"reply_to": "{}"}
    return Record(topics.DOWNLINK_REQUESTED, 0, 7, 5, "t/d", value, headers)


def window(*, carries: bool) -> bytes:
    """Return a window for a device's downlink."""
    work = ReplyWindow("i", "t", "d", "sigfox", 5, Window("k", part=2, of=3, carries=carries))
    return msgspec.json.encode(work)


def handled(*values: bytes | None) -> list[Record]:
    """Return what the stage behind it gets."""
    stage = Recording(topics.DOWNLINK_REQUESTED)
    records = [record(value) for value in values]
    without_answers(stage).handle(Batch(4, records), DeviceState(lambda key: {}), 9)
    assert stage.batches[0].partition == 4
    return list(stage.batches[0].records)


def test_a_window_carries_nothing() -> None:
    """The stage answers an open window empty, since it is told that it cannot take data; all
    else of it is as it was.
    """
    (found,) = handled(window(carries=True))

    assert found == record(window(carries=False))


def test_all_else_passes_as_it_is() -> None:
    """Closed windows, other work, and what cannot be read reach the stage unchanged."""
    query = msgspec.json.encode(Query("i", "t", "d", 5, "attributes"))
    values = [window(carries=False), query, b'{"kind":"window"', None]

    assert handled(*values) == [record(value) for value in values]


def test_other_stages_are_left_alone() -> None:
    """Only the stage that answers is changed."""
    stage = Recording(topics.DEVICE_EVENTS)

    assert without_answers(stage) is stage
