"""Another system's Kafka as a source, on a real broker: nothing lost, nothing unknown twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka.admin import NewPartitions

from pipeline.convert.received import Received, read
from pipeline.ingest.transports.kafka import KafkaSource
from pipeline.model.http import SOURCE_KEY
from pipeline.model.record import HTTP_HEADERS, HTTP_QUERY, Record
from pipeline.rehearse.senders.kafka import SENDER
from pipeline.rulebook.book import Rulebook
from tests.kafka.brokers import Brokers
from tests.kafka.ingest_work import integration, numbered, plain, produce
from tests.real.source_work import NOW_MS, HeldLog, Process, running, until

EUI = "0a0b0c0d0e0f0102"


def repeat_keys(log: HeldLog, process: Process) -> list[str]:
    """Return the key by which each record's one uplink is known again in convert."""
    book = Rulebook("acme", Path(), "v1", process.book, {}, {}, {})
    found = []
    for out in log.records:
        record = Record(out.topic, 0, 0, NOW_MS, out.key, out.value, out.headers)
        work = Received(record)
        read(work, {"acme": book})
        (uplink,) = work.uplinks
        found.append(uplink.repeat_key)
    return found


@pytest.mark.parametrize(
    "dialect", ["chirpstack", "chirpstack_v3", "tts_v3", "ttn_v2", "mqtt", "http"]
)
async def test_a_sample_arrives(kafka: Brokers, prefix: str, dialect: str) -> None:
    """What `funicular send` writes to the topic is read as the dialect's own message."""
    topic = prefix + dialect
    kafka.create({topic: 2})
    options = {
        "mqtt": {"topic": "plant/{device_id}/{kind}"},
        "http": {"device_query": "key"},
    }.get(dialect)
    chosen = integration(kafka, dialect, topic, options)
    device = EUI if chosen.device_template == "{dev_eui}" else "dev1"
    log = HeldLog()
    process = Process(log, chosen)
    async with running(process):
        sample = chosen.dialect.sample(device, 7, b"\x01\x02", NOW_MS)
        shown = await SENDER(chosen, device, sample)
        await until(lambda: log.records)
        assert process.status().refused == 0
    (record,) = log.records
    assert shown.startswith(topic.encode())
    assert (record.topic, record.value) == ("uplink.received", sample.body)
    assert record.key.startswith("acme/")
    assert record.key.endswith(device)
    query = orjson.loads(record.headers[HTTP_QUERY])
    assert query["offset"] == "0"
    assert query["topic"] == ("plant/dev1/kind" if dialect == "mqtt" else topic)
    assert all(repeat_keys(log, process))


async def test_what_comes_twice_is_known(
    kafka: Brokers, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that ends between the append and the commit: the records come again, each with the
    key that it had.
    """
    topic = f"{prefix}twice"
    kafka.create({topic: 1})
    produce(kafka, topic, *numbered(0, 5))
    first, second = HeldLog(), HeldLog()
    chosen = plain(kafka, topic, cluster="plant")
    with monkeypatch.context() as harm:

        async def never(*_: Any) -> None:
            await asyncio.get_running_loop().create_future()

        first.open.clear()
        process = Process(first, chosen)
        async with running(process):
            await until(lambda: first.asked)
            harm.setattr(KafkaSource, "_commit", never)
            first.open.set()
            await until(lambda: first.records)
    process = Process(second, chosen)
    async with running(process):
        await until(lambda: len(second.records) >= 5)
    assert second.numbers() == list(range(5))
    keys = repeat_keys(first, process)
    assert keys == repeat_keys(second, process)[: len(keys)]
    assert keys[0] == f"plant/{topic}/0/0#0"
    assert len(set(repeat_keys(second, process))) == 5


async def test_partitions_move_between_workers(kafka: Brokers, prefix: str) -> None:
    """Workers come and go while records are written: each is there, each partition in order, and
    none is stored twice, as who gives a partition away finishes first.
    """
    topic = f"{prefix}move"
    kafka.create({topic: 4})
    logs = [HeldLog(), HeldLog()]
    one, two = (Process(log, plain(kafka, topic), worker=f"w{n}") for n, log in enumerate(logs))
    written = 0

    async def write() -> None:
        nonlocal written
        await asyncio.to_thread(produce, kafka, topic, *numbered(written, 80, keys=40))
        written += 80

    async with running(one):
        await write()
        async with running(two):
            while len(logs[1].records) < 200:
                await write()
        await write()
        await until(lambda: {*logs[0].numbers(), *logs[1].numbers()} == {*range(written)})
    assert len(logs[0].records) + len(logs[1].records) == written
    for log in logs:
        for device in range(40):
            own = [n for n in log.numbers() if n % 40 == device]
            assert own == sorted(own)


async def test_garbage_never_stops_the_source(kafka: Brokers, prefix: str) -> None:
    """Tombstones, records without a key, broken bytes, hostile headers and too long ones are
    counted, passed over or dead letters; the next good record arrives.
    """
    topic = f"{prefix}garbage"
    kafka.create({topic: 1}, max_message_bytes="5000000")
    hostile = [
        ("Authorization", b"Bearer secret"),
        (SOURCE_KEY, b"another's"),
        ("ü" * 200, b"x"),
        ("X-Long", b"x" * 2_000),
        ("X-Bytes", b"\xff\xfe\x00"),
        ("", b"x"),
        ("X-Null", None),
        *[(f"h{number}", b"x") for number in range(100)],
    ]
    good = orjson.dumps({"n": 1})
    bad: list[tuple[Any, ...]] = [
        ("d1", None),
        (None, good),
        (b"\xff\x00" * 2_000, good),
        ("d1", b"\xff\xfe" * 100),
        ("d1", b"[" * 5_000),
        ("d1", b""),
        ("d1", b'{"a":"' + b"x" * 2_000_000 + b'"}'),
    ]
    produce(kafka, topic, *bad, ("d1", good, hostile))
    log = HeldLog()
    process = Process(log, plain(kafka, topic))
    async with running(process):
        await until(
            lambda: log.records and log.records[-1].key == "acme/d1" and good in log.bodies()[-1:]
        )
        await until(lambda: len(log.records) == len(bad))
        status = process.status()
    assert (status.passed_over, status.errors) == (1, 0)
    letters = [record for record in log.records if record.topic == "dead.letter"]
    assert [orjson.loads(each.value or b"")["reason"] for each in letters] == ["body_length"]
    headers = orjson.loads(log.records[-1].headers[HTTP_HEADERS])
    assert headers[SOURCE_KEY] == f"barn/{topic}/0/7"
    assert "authorization" not in headers
    assert len(headers) == 65
    assert orjson.loads(log.records[-1].headers[HTTP_QUERY])["headers_left_out"] == "43"


async def test_where_a_new_group_begins(kafka: Brokers, prefix: str) -> None:
    """`latest` passes over what was there before, but nothing of a partition that came later."""
    topic = f"{prefix}latest"
    kafka.create({topic: 1})
    produce(kafka, topic, *numbered(0, 5))
    log = HeldLog()
    chosen = plain(kafka, topic, start="latest")
    async with running(Process(log, chosen)):
        await asyncio.sleep(3)
        assert not log.records
    produce(kafka, topic, *numbered(5, 5))
    admin = kafka.admin()
    for made in admin.create_partitions([NewPartitions(topic, 2)]).values():
        made.result(30)
    await asyncio.sleep(0.5)
    produce(kafka, topic, ("d0", b'{"n":10}', None, 1))
    async with running(Process(log, chosen)):
        await until(lambda: len(log.records) >= 6)
    assert sorted(log.numbers()) == [5, 6, 7, 8, 9, 10]


async def test_what_was_deleted_is_counted(kafka: Brokers, prefix: str) -> None:
    """Records that the brokers deleted before they were read are told of, and the rest is read."""
    from confluent_kafka import TopicPartition

    topic = f"{prefix}deleted"
    kafka.create({topic: 1})
    produce(kafka, topic, *numbered(0, 3))
    log = HeldLog()
    process = Process(log, plain(kafka, topic))
    async with running(process):
        await until(lambda: len(log.records) == 3)
    produce(kafka, topic, *numbered(3, 7))
    admin = kafka.admin()
    for done in admin.delete_records([TopicPartition(topic, 0, 8)]).values():
        done.result(30)
    process = Process(log, plain(kafka, topic))
    async with running(process):
        await until(lambda: len(log.records) >= 5)
        assert process.status().passed_over == 5
    assert log.numbers() == [0, 1, 2, 8, 9]


async def test_topics_by_a_pattern(kafka: Brokers, prefix: str) -> None:
    """A pattern takes the topics whose whole names match."""
    for name in ("plant.a", "plant.b", "plant.bb", "other"):
        kafka.create({prefix + name: 1})
        produce(kafka, prefix + name, ("d", orjson.dumps({"n": len(name), "t": name})))
    log = HeldLog()
    chosen = plain(kafka, f"{prefix}group", pattern=rf"{prefix}plant\.[ab]")
    async with running(Process(log, chosen)):
        await until(lambda: len(log.records) >= 2)
        await asyncio.sleep(1)
    assert {orjson.loads(body)["t"] for body in log.bodies()} == {"plant.a", "plant.b"}


async def test_what_is_missing_is_said(kafka: Brokers, prefix: str) -> None:
    """A topic that is not there, and brokers that are not, are faults in words."""
    for chosen, words in (
        (plain(kafka, f"{prefix}absent"), f"no topic `{prefix}absent`"),
        (plain(kafka, "t", servers="127.0.0.1:1", connect_timeout=2), "Unable to bootstrap"),
    ):
        process = Process(HeldLog(), chosen)
        await process.sources.refresh()
        await until(lambda each=process: each.status().errors)
        assert words in process.status().last_error
        assert process.status().state == "lost"
        await process.sources.stop()


@pytest.mark.timeout(240)
async def test_nothing_is_lost_with_the_broker(own_kafka: Brokers, prefix: str) -> None:
    """The broker is killed and comes back: the fault is seen, and each record arrives."""
    topic = f"{prefix}killed"
    own_kafka.create({topic: 1})
    log = HeldLog()
    process = Process(log, plain(own_kafka, topic, connect_timeout=5))
    async with running(process):
        produce(own_kafka, topic, *numbered(0, 20))
        await until(lambda: len(log.records) >= 20)
        await asyncio.to_thread(own_kafka.kill, 1)
        await until(lambda: process.status().state == "lost", 90)
        await asyncio.to_thread(own_kafka.restart, 1)
        await asyncio.to_thread(produce, own_kafka, topic, *numbered(20, 20))
        await until(lambda: {*log.numbers()} == {*range(40)}, 90)
        assert process.status().state == "connected"
