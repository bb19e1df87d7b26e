"""The asyncio edges on a real broker: what `KafkaLog` and its readers promise."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from pipeline.errors import ClosedError, MessageError, RetryableError, UsageError
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Reader
from pipeline.stream.kafka_log import KafkaLog
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.partitioner import partition_of
from tests.kafka.brokers import Brokers

WAIT_S = 40


def settings_of(brokers: Brokers, prefix: str, **more: float) -> KafkaSettings:
    found = KafkaSettings(bootstrap=brokers.bootstrap, prefix=prefix, metadata_max_age_s=1)
    return replace(found, **more)


@asynccontextmanager
async def opened(settings: KafkaSettings, *topics: str) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(settings)
    try:
        await log.start(topics)
        yield log
    finally:
        await log.close()


def record(key: str, value: str, topic: str = "in", **headers: str) -> Outgoing:
    return Outgoing(topic, key, value.encode(), headers)


def stored(
    brokers: Brokers, topic: str, partitions: int, isolation: str = "read_committed"
) -> list:
    """Return all that is in a topic, by an ordinary client: (partition, key, value, headers)."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers.bootstrap,
            "group.id": "looks",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
    found, ends = [], set()
    while len(ends) < partitions:
        message = consumer.poll(WAIT_S)
        assert message is not None, f"{topic} cannot be read"
        if message.error() is None:
            found.append(message)
        else:
            assert message.error().code() == KafkaError._PARTITION_EOF
            ends.add(message.partition())
    consumer.close()
    return [
        (each.partition(), each.key(), each.value(), dict(each.headers() or ())) for each in found
    ]


class Taker:
    """Takes what a reader gives, and commits all of it when told to; a `ports.Holder`."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.records: list[Record] = []
        self.open: dict[int, int] = {}
        self.released = 0
        self.held: list[frozenset[int]] = []
        self.came = asyncio.Event()
        reader.watch(self)
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for batch in self.reader.batches(100):
            self.records += batch
            for each in batch:
                self.open[each.partition] = each.offset
            self.came.set()

    async def release(self) -> None:
        self.released += 1
        await self.commit()

    def hold(self, partitions: Collection[int]) -> None:
        self.held.append(frozenset(partitions))
        self.open = {at: last for at, last in self.open.items() if at in partitions}
        self.came.set()

    async def commit(self) -> None:
        done, self.open = self.open, {}
        if done:
            await self.reader.commit(done)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.records) < count:
                self.came.clear()
                await self.came.wait()

    async def stop(self) -> None:
        await self.reader.close()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def values(self) -> list[str]:
        return [(each.value or b"").decode() for each in self.records]


async def until(happened: Callable[[], Any]) -> None:
    """Return when it did; the other side is a broker, which tells nobody."""
    async with asyncio.timeout(WAIT_S):
        while not happened():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.05)


async def take(reader: Reader, count: int) -> list[Record]:
    found: list[Record] = []
    batches: AsyncIterator[Sequence[Record]] = reader.batches(100)
    async with asyncio.timeout(WAIT_S), aclosing(batches):  # type: ignore[type-var]
        async for batch in batches:
            assert 0 < len(batch) <= 100
            found += batch
            if len(found) >= count:
                return found
    return found


async def test_appends_are_there_in_order_on_the_right_partition(
    kafka: Brokers, prefix: str
) -> None:
    """Many appends at once all arrive, each key's in order, on the partition of Kafka's rule, with
    key and headers as given.
    """
    kafka.create({prefix + "in": 6})
    async with opened(settings_of(kafka, prefix), "in") as log:

        async def write(key: str) -> None:
            for number in range(20):
                parts = [record(key, f"{number}.{part}", trace=f"ü{number}") for part in "ab"]
                await log.append(parts)

        await asyncio.gather(*(write(f"acme/dev{number}") for number in range(50)))
        await log.append([record("", "no key")])
        await log.append([])
        assert log.unready() is None
    found = stored(kafka, prefix + "in", 6)
    assert len(found) == 50 * 20 * 2 + 1
    for device in range(50):
        key = f"acme/dev{device}"
        mine = [each for each in found if each[1] == key.encode()]
        assert {each[0] for each in mine} == {partition_of(key, 6)}
        assert [each[2].decode() for each in mine] == [f"{n}.{p}" for n in range(20) for p in "ab"]
        assert mine[2][3] == {"trace": "ü1".encode()}
    assert [each[1] for each in found if each[2] == b"no key"] == [None]


async def test_a_record_for_a_given_partition_goes_there(kafka: Brokers, prefix: str) -> None:
    """`Outgoing.partition` goes before the partitioner."""
    kafka.create({prefix + "in": 4})
    async with opened(settings_of(kafka, prefix), "in") as log:
        await log.append([Outgoing("in", "k", b"v", {}, partition=n) for n in range(4)])
    assert sorted(each[0] for each in stored(kafka, prefix + "in", 4)) == [0, 1, 2, 3]


async def test_a_group_goes_on_past_what_it_committed(kafka: Brokers, prefix: str) -> None:
    """A new group starts at the earliest record; a restart goes on, per partition, past what was
    committed; what was only read comes again. What a commit appends is there.
    """
    kafka.create({prefix + "in": 3, prefix + "events": 1})
    settings = settings_of(kafka, prefix)
    async with opened(settings, "in") as log:
        await log.append([record(f"k{n}", str(n)) for n in range(60)])
        reader = log.read("in", "sink-a")
        found = await take(reader, 60)
        assert {each.topic for each in found} == {"in"}
        assert sorted(int(each.value or b"") for each in found) == list(range(60))
        one = [each.offset for each in found if each.partition == 1]
        await reader.commit({1: one[-1]}, [record("k", "outcome", "events")])
        await reader.commit({1: one[0]})
        assert log.lag()["in", "sink-a"] == 60 - len(one)
    async with opened(settings, "in") as log:
        again = await take(log.read("in", "sink-a"), 60 - len(one))
        assert {each.partition for each in again} == {0, 2}
        assert len(await take(log.read("in", "sink-b"), 60)) == 60
    assert [each[2] for each in stored(kafka, prefix + "events", 1)] == [b"outcome"]


async def test_members_share_partitions_and_lose_nothing(kafka: Brokers, prefix: str) -> None:
    """A second member gets some of the partitions; before that the first one finishes and commits,
    so that no record is given to both; when it goes, the first one gets the rest.
    """
    kafka.create({prefix + "in": 6})
    settings = settings_of(kafka, prefix)
    async with opened(settings, "in") as one, opened(settings, "in") as two:
        await one.append([record(f"k{n}", f"a{n}") for n in range(120)])
        first = Taker(one.read("in", "sink-a"))
        await first.until(120)
        second = Taker(two.read("in", "sink-a"))
        await until(lambda: len(first.held) == 2 and second.held)
        assert first.released == 1
        assert len(first.held[-1]) == 3
        await one.append([record(f"k{n}", f"b{n}") for n in range(120)])
        await until(lambda: len(first.records) + len(second.records) >= 240)
        assert {value[0] for value in second.values()} == {"b"}
        assert sorted(first.values() + second.values()) == sorted(
            f"{letter}{n}" for letter in "ab" for n in range(120)
        )
        # What the second one has not committed comes to the first one again.
        await second.stop()
        await first.until(240)
        await first.stop()
    assert sorted(set(first.values())) == sorted(f"{x}{n}" for x in "ab" for n in range(120))


async def test_a_reply_reader_has_its_partition_from_the_end_on(
    kafka: Brokers, prefix: str
) -> None:
    """With `from_end` and a partition, `opened` returns when all that comes from then on is read,
    of that partition alone; no group is left on the cluster.
    """
    kafka.create({prefix + "reply": 4})
    async with opened(settings_of(kafka, prefix), "reply") as log:
        mine = log.partition_of("reply", "instance-1")
        assert mine == partition_of("instance-1", 4)
        await log.append([Outgoing("reply", "instance-1", b"old", {}, mine)])
        reader = log.read("reply", "ingest-1", from_end=True, partition=mine)
        await reader.opened()
        other = (mine + 1) % 4
        await log.append([Outgoing("reply", "instance-2", b"other", {}, other)])
        await log.append([Outgoing("reply", "instance-1", b"new", {}, mine)])
        found = await take(reader, 1)
        assert [each.value for each in found] == [b"new"]
        await reader.commit({mine: found[0].offset})
        groups = kafka.admin().list_consumer_groups().result(10).valid
        assert not [each for each in groups if each.group_id.startswith(prefix)]


async def test_only_committed_records_are_read(kafka: Brokers, prefix: str) -> None:
    """A transaction's records come when it commits, an aborted one's never; the markers at the end
    of the topic do not look like a reader that stands still.
    """
    kafka.create({prefix + "in": 1})
    settings = settings_of(kafka, prefix, stall_s=0.5)
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "transactional.id": prefix, "log_level": 0}
    )
    producer.init_transactions(20)
    async with opened(settings, "in") as log:
        taker = Taker(log.read("in", "sink-a"))
        for value, commits in ((b"yes", True), (b"no", False)):
            producer.begin_transaction()
            producer.produce(prefix + "in", value, key=b"k")
            producer.flush(10)
            if commits:
                producer.commit_transaction(20)
            else:
                producer.abort_transaction(20)
        await taker.until(1)
        await asyncio.sleep(3)
        assert taker.values() == ["yes"]
        assert len(taker.held) == 1
        await taker.stop()


async def test_a_missing_topic_is_said_at_the_start(kafka: Brokers, prefix: str) -> None:
    """Starting without the topics is refused with their names and what to do."""
    kafka.create({prefix + "in": 1})
    log = KafkaLog(settings_of(kafka, prefix, append_timeout_s=2))
    with pytest.raises(UsageError, match=rf"topics {prefix}gone; .*funicular topics create"):
        await log.start(["in", "gone"])
    with pytest.raises(RetryableError, match="topics create"):
        await log.append([record("k", "v", "gone")])
    with pytest.raises(RetryableError, match="topics create"):
        log.partition_of("gone", "k")
    await log.close()


async def test_a_topic_that_is_made_later_is_read(kafka: Brokers, prefix: str) -> None:
    """A sink whose topic is not there yet waits, and gets the first record."""
    async with opened(settings_of(kafka, prefix)) as log:
        taker = Taker(log.read("later", "sink-a"))
        await asyncio.sleep(1)
        kafka.create({prefix + "later": 2})
        await log.append([record("k", "first", "later")])
        await taker.until(1)
        assert taker.values() == ["first"]
        await taker.stop()


async def test_a_record_that_is_too_large_is_refused_alone(kafka: Brokers, prefix: str) -> None:
    """Over our own limit or over the topic's, one record gets MessageError; those that shared its
    request arrive, once.
    """
    kafka.create({prefix + "in": 1}, max_message_bytes="2000")
    async with opened(settings_of(kafka, prefix, record_bytes_max=5_000), "in") as log:
        with pytest.raises(MessageError, match="record_bytes_max"):
            await log.append([record("k", "x" * 5_000)])
        appends = [log.append([record("k", str(n))]) for n in range(10)]
        appends.insert(5, log.append([record("k", "x" * 3_000)]))
        done = await asyncio.gather(*appends, return_exceptions=True)
        assert [str(each) for each in done if each] == [str(done[5])]
        assert isinstance(done[5], MessageError)
        assert "max.message.bytes" in done[5].message
        await log.append([record("k", "after")])
    values = [each[2].decode() for each in stored(kafka, prefix + "in", 1)]
    assert values == [*map(str, range(10)), "after"]


async def test_a_closed_log_says_so(kafka: Brokers, prefix: str) -> None:
    """Readers end without an error when the log closes; appends and reads then say ClosedError."""
    kafka.create({prefix + "in": 1})
    async with opened(settings_of(kafka, prefix), "in") as log:
        reader = log.read("in", "sink-a")
        reading = asyncio.create_task(take(reader, 1))
        await reader.opened()
        await log.close()
        assert await reading == []
        with pytest.raises(ClosedError):
            await log.append([record("k", "v")])
        with pytest.raises(ClosedError):
            log.read("in", "sink-b")
        with pytest.raises(ClosedError):
            await reader.commit(0)
        assert log.unready() == "the log is closed"


async def test_appends_wait_for_room_and_one_that_goes_away_disturbs_none(
    kafka: Brokers, prefix: str
) -> None:
    """With room for a few records at a time all appends still arrive, each key's in order; some
    that are cancelled leave the others as they are.
    """
    kafka.create({prefix + "in": 2})
    settings = settings_of(kafka, prefix, queue_bytes_max=500, batch_bytes_max=300)
    async with opened(settings, "in") as log:
        appends = [
            asyncio.create_task(log.append([record(f"k{n % 3}", f"{n:03}")])) for n in range(150)
        ]
        await asyncio.sleep(0)
        for gone in appends[::10]:
            gone.cancel()
        done = await asyncio.gather(*appends, return_exceptions=True)
        assert {str(each) for each in done if not isinstance(each, asyncio.CancelledError)} == {
            "None"
        }
        await log.append([record("k0", "999")])
    values = [each[2].decode() for each in stored(kafka, prefix + "in", 2)]
    assert {f"{n:03}" for n in range(150) if n % 10} | {"999"} <= set(values)
    for device in range(3):
        mine = [each for each in values if int(each) % 3 == device]
        assert mine == sorted(mine)
