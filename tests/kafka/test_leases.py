"""What one worker alone may do, on a real broker: one owner, records with their cursor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from pipeline.errors import LeaseLostError, RetryableError
from pipeline.model.record import Outgoing
from pipeline.stream import kafka_cursors, kafka_transactions
from pipeline.stream.kafka_leases import KafkaLeases
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.topics import SOURCE_CURSOR, UPLINK_RECEIVED
from tests.kafka.brokers import Brokers
from tests.kafka.program_work import committed

NAME = "acme/barn"
WITHIN_S = 30.0


def settings_of(brokers: Brokers, prefix: str) -> KafkaSettings:
    brokers.create({prefix + SOURCE_CURSOR: 3}, cleanup_policy="compact")
    brokers.create({prefix + UPLINK_RECEIVED: 2})
    return KafkaSettings(bootstrap=brokers.bootstrap, prefix=prefix)


@asynccontextmanager
async def workers(kafka: KafkaSettings, *names: str) -> AsyncIterator[list[KafkaLeases]]:
    async with AsyncExitStack() as stack:
        made = [KafkaLeases(kafka, name) for name in names]
        for each in made:
            stack.push_async_callback(each.close)
        yield made


class Holder:
    """Holds one lease for as long as it lasts; `lease` is it, None while it waits."""

    def __init__(self, leases: KafkaLeases, name: str = NAME) -> None:
        self.lease: Any = None
        self.times = 0
        self._task = asyncio.ensure_future(self._hold(leases, name))

    async def _hold(self, leases: KafkaLeases, name: str) -> None:
        while True:
            async with leases.hold(name) as lease:
                self.lease = lease
                self.times += 1
                try:
                    await lease.lost()
                finally:
                    self.lease = None

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})


async def until(true: Callable[[], Any], seconds: float = WITHIN_S) -> float:
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - it is about other threads and a broker
            await asyncio.sleep(0.02)
    return time.monotonic() - began


def record(text: str) -> Outgoing:
    return Outgoing(UPLINK_RECEIVED, "acme/d", text.encode(), {"a": "b"})


def values(kafka: KafkaSettings) -> list[bytes]:
    return [value for _, value in committed(kafka.bootstrap, kafka.topic(UPLINK_RECEIVED))]


async def test_one_has_it_and_the_next_goes_on_from_its_cursor(kafka: Brokers, prefix: str) -> None:
    """A second worker waits and sees who has the lease; when that one leaves, it has it within
    seconds, and the cursor that was committed with the last records.
    """
    settings = settings_of(kafka, prefix)
    async with workers(settings, "w1", "w2") as (one, two):
        first = Holder(one)
        await until(lambda: first.lease)
        assert await first.lease.cursor() is None
        await first.lease.append([record("1"), record("2")], {"at": 2})
        await first.lease.append([], {"at": 3})
        second = Holder(two)
        # The group may move the partition to the newcomer; then the roles are the other way round.
        await until(lambda: bool(first.lease) != bool(second.lease))
        await until(lambda: (two if first.lease else one).owner(NAME) in {"w1", "w2"})
        waiting, having = (second, first) if first.lease else (first, second)
        assert (two if waiting is second else one).owner(NAME) == (
            "w1" if having is first else "w2"
        )
        old = having.lease
        await having.end()
        await (one if having is first else two).close()
        took_s = await until(lambda: waiting.lease)
        assert took_s < 5
        assert not old.valid
        assert await waiting.lease.cursor() == {"at": 3}
        await waiting.end()
    assert values(settings) == [b"1", b"2"]


async def test_who_lost_it_can_append_nothing(kafka: Brokers, prefix: str) -> None:
    """Even where it has not heard of its loss yet: the next owner's first look refuses it."""
    settings = settings_of(kafka, prefix)
    async with workers(settings, "w1") as (one,):
        holder = Holder(one)
        await until(lambda: holder.lease)
        lease = holder.lease
        await lease.cursor()
        await lease.append([record("1")], 1)
        place = kafka_cursors.Place(settings.topic(SOURCE_CURSOR), lease.partition, NAME)
        successor = kafka_cursors.KafkaLease(settings, one._settings, place, lambda: True)
        assert await successor.cursor() == 1
        with pytest.raises(LeaseLostError):
            await lease.append([record("2")], 2)
        assert not lease.valid
        await successor.append([record("3")], 3)
        await successor.close()
        await holder.end()
    assert values(settings) == [b"1", b"3"]


async def test_an_unknown_outcome_doubles_nothing(
    kafka: Brokers, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that was made though its answer got lost is found when the same is appended again;
    one that was not made is made then.
    """
    settings = settings_of(kafka, prefix)
    harm = {"after": 1, "before": 2}

    class Late(Producer):  # type: ignore[misc]
        calls = 0

        def commit_transaction(self, *arguments: Any) -> None:
            Late.calls += 1
            if Late.calls == harm["before"]:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            super().commit_transaction(*arguments)
            if Late.calls == harm["after"]:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr(kafka_transactions, "Producer", Late)
    async with workers(settings, "w1") as (one,):
        holder = Holder(one)
        await until(lambda: holder.lease)
        for number in (1, 2):
            with pytest.raises(RetryableError, match="does not commit"):
                await holder.lease.append([record(str(number))], number)
            await holder.lease.append([record(str(number))], number)
        assert await holder.lease.cursor() == 2
        await holder.end()
    assert values(settings) == [b"1", b"2"]


async def test_what_stays_is_not_interrupted(kafka: Brokers, prefix: str) -> None:
    """When a worker joins, some leases move to it; the others go on at their worker."""
    settings = settings_of(kafka, prefix)
    names = [f"acme/i{number}" for number in range(12)]
    async with workers(settings, "w1", "w2") as (one, two):
        ours = [Holder(one, name) for name in names]
        await until(lambda: all(holder.lease for holder in ours))
        theirs = [Holder(two, name) for name in names]
        await until(lambda: any(holder.lease for holder in theirs))
        await asyncio.sleep(1)
        for mine, other in zip(ours, theirs, strict=True):
            assert bool(mine.lease) != bool(other.lease)
            assert mine.times == 1, "a lease that stays is not given anew"
        assert any(holder.lease for holder in ours)
        for holder in (*ours, *theirs):
            await holder.end()


async def test_a_worker_that_stood_still_has_nothing(kafka: Brokers, prefix: str) -> None:
    """Where its own clock says that it did not run for a while, a lease is invalid before anybody
    has told it so; it is asked for anew.
    """
    settings = settings_of(kafka, prefix)
    ahead_s = 0.0
    one = KafkaLeases(settings, "w1", clock=lambda: time.monotonic() + ahead_s)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(one.close)
        holder = Holder(one)
        await until(lambda: holder.lease)
        lease = holder.lease
        ahead_s = 60.0
        with pytest.raises(LeaseLostError):
            await lease.append([record("1")], 1)
        await until(lambda: holder.times == 2)
        await holder.lease.append([record("2")], 2)
        await holder.end()
    assert values(settings) == [b"2"]


async def test_a_missing_topic_is_said(kafka: Brokers, prefix: str) -> None:
    """Without the topic nobody has a lease, and the reason says what to do."""
    settings = KafkaSettings(bootstrap=kafka.bootstrap, prefix=prefix)
    async with workers(settings, "w1") as (one,):
        holder = Holder(one)
        await until(lambda: one.trouble)
        assert "funicular topics create" in one.trouble
        assert holder.lease is None
        kafka.create({prefix + SOURCE_CURSOR: 1}, cleanup_policy="compact")
        await until(lambda: holder.lease)
        assert one.trouble == ""
        await holder.end()
