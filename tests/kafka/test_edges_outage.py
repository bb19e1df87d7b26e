"""The asyncio edges while brokers die: nothing that was acknowledged is lost, and all recovers."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from pipeline.errors import RetryableError
from pipeline.model.record import Outgoing
from pipeline.stream.kafka_log import KafkaLog
from tests.kafka.brokers import Brokers
from tests.kafka.test_edges_log import Taker, opened, record, settings_of, stored, until


async def write(log: KafkaLog, count: int, start: int = 0) -> list[str]:
    """Append one record after the other until so many are acknowledged; return those."""
    acknowledged: list[str] = []
    number = start
    while len(acknowledged) < count:
        value = f"{number}"
        number += 1
        try:
            await log.append([record(f"k{number % 7}", value)])
        except RetryableError:
            await asyncio.sleep(0.05)
        else:
            acknowledged.append(value)
    return acknowledged


async def test_the_only_broker_goes_and_comes_back(own_kafka: Brokers, prefix: str) -> None:
    """While no broker is up, appends fail in time and say so; when it is back, appends, the sink's
    reader and the reply reader go on by themselves, without a loss, and the log says that it is
    ready though nothing was appended: after a crash of the broker, and after an orderly stop.
    """
    if not own_kafka.nodes:
        return
    own_kafka.create({prefix + "in": 3, prefix + "reply": 2})
    settings = settings_of(
        own_kafka,
        prefix,
        append_timeout_s=1.5,
        stall_s=3.0,
        request_timeout_s=3.0,
        session_timeout_s=3.0,
        heartbeat_s=1.0,
    )
    acknowledged: list[str] = []
    async with opened(settings, "in", "reply") as log:
        sink = Taker(log.read("in", "sink-a"))
        replies = Taker(log.read("reply", "ingest-1", from_end=True, partition=1))
        await replies.reader.opened()
        for number, end in enumerate((own_kafka.kill, lambda node: own_kafka.nodes[node].stop())):
            acknowledged += await write(log, 20, start=1_000 * number)
            await until(partial(_all_came, sink, acknowledged))
            await sink.commit()
            await asyncio.to_thread(end, 1)
            await refused(log)
            await asyncio.sleep(5)
            await asyncio.to_thread(own_kafka.restart, 1)
            back_s = asyncio.get_running_loop().time()
            # The door appends nothing while this says no, so it has to change by itself.
            await until(lambda: log.unready() is None)
            acknowledged += await write(log, 20, start=1_000 * number + 500)
            assert log.unready() is None
            await until(partial(_all_came, sink, acknowledged))
            await log.append([Outgoing("reply", "x", b"answer", {}, partition=1)])
            await replies.until(number + 1)
            assert asyncio.get_running_loop().time() - back_s < 30
        await sink.commit()
        await until(lambda: log.lag()["in", "sink-a"] == 0)
        await sink.stop()
        await replies.stop()
    values = [each[2].decode() for each in stored(own_kafka, prefix + "in", 3)]
    assert set(acknowledged) <= set(values)
    assert len(values) == len(set(values))


def _all_came(sink: Taker, acknowledged: list[str]) -> bool:
    return set(sink.values()) >= set(acknowledged)


async def refused(log: KafkaLog) -> None:
    """Appends fail in their time, and the log is not ready."""
    clock = asyncio.get_running_loop().time
    began_s = clock()
    with pytest.raises(RetryableError, match=r"did not acknowledge|No broker"):
        await log.append([record("k", f"late, or lost {began_s}")])
    assert clock() - began_s < 4
    assert log.unready()


async def test_a_partitions_leader_is_killed(three_brokers: Brokers, prefix: str) -> None:
    """With three brokers one may be killed at any time: what was acknowledged is there, in order
    and once, and the sink's group goes on.
    """
    if not three_brokers.nodes:
        return
    three_brokers.create({prefix + "in": 3})
    settings = settings_of(three_brokers, prefix, stall_s=5.0, request_timeout_s=5.0)
    async with opened(settings, "in") as log:
        sink = Taker(log.read("in", "sink-a"))
        writing = asyncio.create_task(write(log, 3_000))
        await sink.until(200)
        await asyncio.to_thread(three_brokers.kill, 1)
        killed = len(sink.records)
        acknowledged = await writing
        await until(lambda: set(sink.values()) >= set(acknowledged))
        await sink.stop()
        await asyncio.to_thread(three_brokers.restart, 1)
    assert killed < len(sink.records)
    values = [each[2].decode() for each in stored(three_brokers, prefix + "in", 3)]
    assert set(acknowledged) <= set(values)
    assert len(values) == len(set(values))
