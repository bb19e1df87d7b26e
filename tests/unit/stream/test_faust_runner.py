"""One stage in a Faust app: when it writes, when it acks, what it leaves undone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import topics
from pipeline.errors import RetryableError
from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState
from pipeline.stream.faust_runner import FaustRunner
from pipeline.stream.faust_settings import FaustSettings
from pipeline.stream.faust_state import CLOCK, PartitionState
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.partitioner import partition_of
from pipeline.stream.settings import EngineSettings

Handle = Callable[[Batch, DeviceState, int], list[Outgoing]]


class App:
    """What the runner asks of Faust's app. Writes are acknowledged by `acknowledge`."""

    def __init__(self) -> None:
        self.consumer_generation_id = 1
        self.partitions = 4
        self.conf = SimpleNamespace(id="group")
        self.consumer = SimpleNamespace(
            topic_partitions=lambda topic: self.partitions, highwater=lambda place: 10
        )
        self.producer = SimpleNamespace(send=self.send)
        self.sent: list[tuple[Any, ...]] = []
        self.waiting: list[asyncio.Future[Any]] = []
        self.written = asyncio.Event()
        self.automatic = True

    async def send(self, *record: Any) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent.append(record)
        self.waiting.append(done)
        self.written.set()
        if self.automatic:
            done.set_result(SimpleNamespace(offset=40))
        return done

    def acknowledge(self, error: Exception | None = None) -> None:
        for done in self.waiting:
            if error is None:
                done.set_result(SimpleNamespace(offset=40))
            else:
                done.set_exception(error)
        self.waiting.clear()


class Stage:
    """A stage made of a function."""

    name = "stage"
    state_topic: str | None = "stage.state"

    def __init__(self, handle: Handle, topic: str = "in") -> None:
        self.handle = handle
        self.topic = topic


class Told(Registry):
    """Counts, and tells the loop that it did: a turn ends with it."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()
        self.batches = 0.0

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        super().add(name, amount, **labels)
        if name == "funicular_stage_batches_total":
            self.batches += amount
            self.told.set()


class Bench:
    """A runner with all that it needs, and what came of it."""

    def __init__(self, handle: Handle, *, topic: str = "in", table: bool = True) -> None:
        self.app = App()
        self.partitions: dict[int, PartitionState] = {}
        self.kept = SimpleNamespace(
            partitions=self.partitions,
            partition=lambda number: self.partitions.setdefault(number, PartitionState()),
            broken=None,
            offsets={},
        )
        found: Any = SimpleNamespace(kept=self.kept) if table else None
        app: Any = self.app
        self.metrics = Told()
        self.runner = FaustRunner(
            app,
            Stage(handle, topic),
            found,
            settings=FaustSettings(kafka=KafkaSettings(prefix="p."), linger_s=0.001, revoke_s=5),
            limits=EngineSettings(retry_first_s=0.001, retry_max_s=0.01, records_max=3),
            metrics=self.metrics,
            clock=lambda: 100,
        )
        self._offset = 0

    async def until_done(self, batches: int) -> None:
        """Return when so many batches are done."""
        while self.metrics.batches < batches:
            self.metrics.told.clear()
            await self.metrics.told.wait()

    async def until_sent(self, records: int) -> None:
        """Return when so many records were given to the producer."""
        while len(self.app.sent) < records:
            self.app.written.clear()
            await self.app.written.wait()

    @property
    def following(self) -> dict[int, int]:
        """The offsets that may be committed, since this was asked the last time."""
        return {place.partition: offset for place, offset in self.runner.take_done().items()}

    async def offer(
        self,
        key: str,
        value: str = "v",
        *,
        partition: int = 0,
        generation: int = 1,
        offset: int | None = None,
    ) -> None:
        if offset is not None:
            self._offset = offset
        message = SimpleNamespace(
            partition=partition,
            offset=self._offset,
            timestamp=1.5,
            key=key.encode(),
            value=value.encode(),
            headers=[("h", b"x")],
            generation_id=generation,
        )
        self._offset += 1
        event: Any = SimpleNamespace(message=message)
        await self.runner.offer(event)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        self.runner.resume()
        task = asyncio.create_task(self.runner.run())
        try:
            yield task
        finally:
            await self.runner.stop()
            if not task.done():
                await task


def copying(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
    for record in batch.records:
        state.put(record.key, "last", now_ms)
    return [Outgoing("out", each.key, each.value, each.headers) for each in batch.records]


async def test_an_offset_follows_the_changelog_which_follows_the_outputs() -> None:
    """Nothing goes to the changelog before Kafka has the outputs, and no offset is committed, nor
    state taken over, before Kafka has the changelog: what it says was done was done.
    """
    bench = Bench(copying)
    bench.app.automatic = False
    async with bench.running():
        await bench.offer("k")
        await bench.until_sent(1)
        assert bench.app.sent == [("p.out", b"k", b"v", None, None, [("h", b"x")])]
        bench.app.acknowledge()
        await bench.until_sent(3)
        assert bench.following == {}
        assert bench.partitions[0].load("k") == {}
        bench.app.acknowledge()
        await bench.until_done(1)

    assert bench.app.sent[1:] == [
        ("p.stage.state", b"k#last", b"100", 0, None, None),
        ("p.stage.state", CLOCK, b"[100,1]", 0, None, None),
    ]
    assert bench.partitions[0].load("k") == {"last": 100}
    assert bench.kept.offsets == {0: 40}
    assert bench.following == {0: 1}
    assert bench.following == {}


@pytest.mark.parametrize("acknowledged", [0, 1])
async def test_a_write_that_fails_ends_the_worker_without_a_commit(acknowledged: int) -> None:
    """What Kafka did not take, outputs or changelog, is not committed: the batch comes again in
    another worker.
    """
    bench = Bench(copying)
    bench.app.automatic = False
    async with bench.running() as task:
        await bench.offer("k")
        await bench.until_sent(1)
        if acknowledged:
            bench.app.acknowledge()
            await bench.until_sent(3)
        bench.app.acknowledge(OSError("no broker"))
        with pytest.raises(OSError, match="no broker"):
            await task

    assert len(bench.app.sent) == (3 if acknowledged else 1)
    assert bench.following == {}
    assert bench.partitions[0].load("k") == {}


async def test_what_the_changelog_has_is_not_done_again() -> None:
    """Records before the restored offset are passed by, and committed as done."""
    bench = Bench(copying)
    bench.partitions[0] = PartitionState()
    bench.partitions[0].following = 2
    for key in ("a", "b", "c"):
        await bench.offer(key)
    async with bench.running():
        await bench.until_done(1)

    assert [record[1] for record in bench.app.sent if record[0] == "p.out"] == [b"c"]
    assert bench.following == {0: 3}


async def test_records_that_come_twice_are_done_once_and_late_ones_too() -> None:
    """Faust may read again what was read, or first what comes later: each is done once."""
    bench = Bench(copying)
    for offset in (5, 6, 5, 6, 9, 7, 8):
        await bench.offer(str(offset), offset=offset)
    async with bench.running():
        await bench.until_done(2)

    done = [record[1] for record in bench.app.sent if record[0] == "p.out"]
    assert done == [b"5", b"6", b"9", b"7", b"8"]


async def test_a_stage_that_raises_writes_nothing() -> None:
    """A bug reaches whoever runs the stage, before anything is sent."""

    def broken(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        raise ZeroDivisionError

    bench = Bench(broken)
    async with bench.running() as task:
        await bench.offer("k")
        with pytest.raises(ZeroDivisionError):
            await task

    assert (bench.app.sent, bench.following) == ([], {})


async def test_batches_are_bounded_and_in_order() -> None:
    """Events of a partition come in the order of their offsets, no more than a batch may have."""
    batches: list[list[int]] = []

    def watching(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        batches.append([record.offset for record in batch.records])
        return []

    bench = Bench(watching)
    for _ in range(7):
        await bench.offer("k")
    labels = (("group", "group"), ("partition", "0"), ("topic", "in"))
    async with bench.running():
        await bench.until_done(3)
        assert bench.metrics.values("funicular_lag_records") == {labels: 3}

    assert bench.metrics.values("funicular_lag_records") == {labels: 0}
    assert batches == [[0, 1, 2], [3, 4, 5], [6]]
    assert bench.following == {0: 7}
    assert bench.metrics.values("funicular_stage_records_total") == {(("stage", "stage"),): 7}


async def test_events_of_before_a_rebalance_are_left() -> None:
    """They come again from the committed offset; to commit them would lose those between."""
    bench = Bench(copying)
    await bench.offer("old", generation=0)
    await bench.offer("new")
    async with bench.running():
        await bench.until_done(1)

    assert bench.following == {0: 2}
    assert [record[1] for record in bench.app.sent if record[0] == "p.out"] == [b"new"]


async def test_a_partition_that_moved_while_a_stage_worked_gets_nothing_written() -> None:
    """Its new owner handles the batch; two owners would both change its state."""
    bench = Bench(copying)
    moved = threading.Event()

    def moving(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        if batch.records[0].key == "mine":
            bench.app.consumer_generation_id = 2
            moved.set()
        return copying(batch, state, now_ms)

    bench.runner.stage.handle = moving  # type: ignore[method-assign]
    async with bench.running():
        await bench.offer("mine")
        assert await asyncio.to_thread(moved.wait, 10)
        await bench.offer("of the next owner", generation=2)
        await bench.until_done(1)

    assert bench.following == {0: 2}
    assert b"mine" not in [record[1] for record in bench.app.sent]


async def test_a_pause_lets_the_batch_under_way_end() -> None:
    """Partitions are given away when the batch is written; what waited is forgotten."""
    bench = Bench(copying)
    bench.app.automatic = False
    async with bench.running():
        await bench.offer("k")
        await bench.until_sent(1)
        await bench.offer("later")
        pause = asyncio.create_task(bench.runner.pause())
        bench.app.acknowledge()
        await bench.until_sent(3)
        assert not pause.done()
        bench.app.acknowledge()
        await pause
        assert bench.following == {0: 1}
        assert not bench.runner.ready

    assert bench.following == {}


async def test_a_stage_that_waits_to_try_again_holds_up_no_rebalance() -> None:
    """RetryableError repeats the batch until it works, or until the partitions move."""
    tries: list[int] = []
    third = threading.Event()

    def away(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        tries.append(len(batch.records))
        if len(tries) == 3:
            third.set()
        raise RetryableError("the script engine is away")

    bench = Bench(away)
    async with bench.running():
        await bench.offer("k")
        assert await asyncio.to_thread(third.wait, 10)
        await bench.runner.pause()

    assert set(tries) == {1}
    assert (bench.app.sent, bench.following) == ([], {})


async def test_a_record_on_a_wrong_partition_is_buried() -> None:
    """A device's record on a partition that is not its key's is no event: it is a dead letter."""
    handled: list[str] = []

    def watching(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        handled.extend(record.key for record in batch.records)
        return []

    bench = Bench(watching, topic=topics.DEVICE_EVENTS)
    right = next(f"t/{n}" for n in range(99) if partition_of(f"t/{n}", 4) == 2)
    wrong = next(f"t/{n}" for n in range(99) if partition_of(f"t/{n}", 4) != 2)
    await bench.offer(wrong, partition=2)
    await bench.offer(right, partition=2)
    async with bench.running():
        await bench.until_done(1)

    assert bench.following == {2: 2}
    assert handled == [right]
    (letter,) = [record for record in bench.app.sent if record[0] == "p.dead.letter"]
    assert letter[1] == wrong.encode()
    assert b'"reason":"wrong_partition"' in letter[2]


async def test_a_stage_without_a_state_topic_may_keep_nothing() -> None:
    """State that nobody would restore is a bug of the stage, and is not lost in silence."""
    bench = Bench(copying, table=False)
    async with bench.running() as task:
        await bench.offer("k")
        with pytest.raises(RuntimeError, match="no state_topic"):
            await task

    assert bench.app.sent == []


async def test_a_state_that_was_not_restored_is_not_worked_on() -> None:
    """Faust goes on after an error of the restore; the runner does not."""
    bench = Bench(copying)
    bench.kept.broken = ValueError("a foreign record")
    async with bench.running() as task:
        await bench.offer("k")
        with pytest.raises(ValueError, match="foreign"):
            await task

    assert bench.app.sent == []
