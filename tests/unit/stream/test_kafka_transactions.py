"""When transactions begin."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pipeline.metrics import Registry
from pipeline.stream import kafka_transactions
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_transactions import Transactions, Work

WORK = Work(0, 1, "", 0, (), ())


class Noting:
    """A producer that notes when its transactions begin and end."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        self.ended: list[float] = []

    def begin_transaction(self) -> None:
        self.begun.append(time.monotonic())

    def produce(self, *_: Any, **__: Any) -> None: ...

    def send_offsets_to_transaction(self, *_: Any) -> None: ...

    def commit_transaction(self, _timeout_s: float) -> None:
        self.ended.append(time.monotonic())

    def purge(self, **_: Any) -> None: ...


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> Noting:
    made = Noting()
    monkeypatch.setattr(kafka_transactions, "start_producer", lambda *_: made)
    return made


def transactions() -> Transactions:
    opened = Transactions(KafkaSettings(), KafkaEngineSettings(), Registry(), "count", "count.0")
    opened.open()
    return opened


def test_a_transaction_waits_until_the_coordinator_has_ended_the_one_before(
    producer: Noting,
) -> None:
    """Begun at once it would be refused, and tried again only 20 ms later."""
    opened = transactions()
    for _ in range(3):
        opened.commit([WORK], "in", "", None)
    opened.close()
    gaps = [begun - ended for begun, ended in zip(producer.begun[1:], producer.ended, strict=False)]
    assert min(gaps) >= 0.001


def test_a_batch_that_took_its_time_waits_no_more(
    producer: Noting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is handled while the coordinator ends the one before costs nothing."""
    slept: list[float] = []
    opened = transactions()
    opened.commit([WORK], "in", "", None)
    time.sleep(0.01)
    monkeypatch.setattr(kafka_transactions.time, "sleep", slept.append)
    opened.commit([WORK], "in", "", None)
    opened.close()
    assert slept == [0.0]
    assert len(producer.ended) == 2
