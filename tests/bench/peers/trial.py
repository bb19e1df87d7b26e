"""One run of one contestant: from uplinks that wait in the log to the last committed result.

In: a contestant, a broker, how many uplinks. Out: a `Result`.

How it is measured: the contestant is started on uplinks to warm up on (a JVM compiles, caches
fill), which it does all of. Then the uplinks that count are written in one transaction, which is
open until the last is there, so that a reader sees all at once when it is committed: that is the
beginning. One that reads uncommitted records stands still meanwhile (SIGSTOP). The end is when the
committed ends of all topics of results have grown for the last time, looked at every `LOOK_S`. CPU
is that of the contestant's processes in between; the broker's and ours are no part of it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from confluent_kafka import IsolationLevel, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from tests.bench.peers.contestants import Contestant, Task
from tests.bench.peers.job import downlinks_of, faults, uplink
from tests.bench.peers.processes import cpu_s, resident_bytes
from tests.kafka.brokers import ROOT, Brokers, _end_with_parent

LOOK_S = 0.05
# Longer than any contestant's interval of commits.
QUIET_S = 3.0
WAIT_S = 900.0
STOP_S = 30.0


@dataclass(frozen=True)
class Size:
    """How much there is to do: `warm` uplinks before the `uplinks` that count."""

    uplinks: int
    warm: int
    devices: int
    partitions: int


@dataclass(frozen=True)
class Place:
    """Where it runs: the broker, a folder for what contestants keep, and that of peers."""

    brokers: Brokers
    folder: Path
    cache: Path


@dataclass(frozen=True)
class Result:
    """What one run gave; `faults` is empty where all that was written is right."""

    contestant: str
    uplinks: int
    wall_s: float
    cpu_s: float
    resident_mb: float
    faults: tuple[str, ...]

    @property
    def rate(self) -> float:
        """Uplinks a second by the clock."""
        return self.uplinks / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU an uplink."""
        return self.cpu_s / self.uplinks * 1e6


def trial(contestant: Contestant, place: Place, size: Size) -> Result:
    """Run it once, with topics of its own. RuntimeError: it ended, or did not come to the end in
    time; with what it said.
    """
    brokers, cache = place.brokers, place.cache
    warm = size.warm * contestant.warm_times
    prefix = f"bench-{uuid4().hex[:8]}."
    folder = place.folder / prefix
    folder.mkdir()
    task = Task(brokers.bootstrap, prefix, folder, size.devices, size.partitions)
    if contestant.topics():
        brokers.create({prefix + name: size.partitions for name in contestant.topics()})
    contestant.make_more(task)
    load = _Load(contestant, task)
    with load.written(range(warm)):
        pass
    with _running(contestant, task, cache) as worker:
        watch = _Watch(contestant, task, worker)
        watch.until_done(warm)
        if not contestant.reads_committed:
            os.killpg(worker.pid, signal.SIGSTOP)
        with load.written(range(warm, warm + size.uplinks)):
            began = watch.look()
        if not contestant.reads_committed:
            os.killpg(worker.pid, signal.SIGCONT)
        ended = watch.until_done(warm + size.uplinks)
        resident = resident_bytes(worker.pid)
    wrong = faults(contestant.found(task), warm + size.uplinks, size.devices, once=contestant.once)
    _remove(brokers, prefix)
    return Result(
        contestant.name,
        size.uplinks,
        ended.time_s - began.time_s,
        ended.cpu_s - began.cpu_s,
        resident / 1e6,
        tuple(wrong),
    )


def _remove(brokers: Brokers, prefix: str) -> None:
    """Delete all topics of a run, those that the contestant made among them."""
    admin = brokers.admin()
    names = [name for name in admin.list_topics(timeout=30).topics if prefix in name]
    for deleted in admin.delete_topics(names).values():
        deleted.result(30)


@contextlib.contextmanager
def _running(contestant: Contestant, task: Task, cache: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run it as a process group; what it says goes to a file."""
    with (task.folder / "said.log").open("wb") as log:
        worker = subprocess.Popen(
            contestant.command(task, cache),
            env={**os.environ, **contestant.environment(task)},
            cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - one call of the C library
        )  # fmt: skip
    try:
        yield worker
    finally:
        worker.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()


class _Load:
    """Writes uplinks."""

    def __init__(self, contestant: Contestant, task: Task) -> None:
        self._topic = f"{task.prefix}uplink.received"
        self._devices = task.devices
        self._integration = contestant.integration
        options = {
            "bootstrap.servers": task.bootstrap,
            "transactional.id": f"{task.prefix}load",
            # Writing all of a long run takes its time.
            "transaction.timeout.ms": 600_000,
            "partitioner": "murmur2_random",
            "linger.ms": 50,
            "log_level": 3,
        }
        self._producer = Producer(options)
        self._producer.init_transactions(30)

    @contextlib.contextmanager
    def written(self, numbers: range) -> Iterator[None]:
        """Write them; when the block ends, readers see all of them."""
        producer = self._producer
        producer.begin_transaction()
        for number in numbers:
            one = uplink(number, self._devices, self._integration)
            while True:
                try:
                    producer.produce(self._topic, one.value, one.key, headers=one.headers)
                    break
                except BufferError:
                    producer.poll(0.1)
        if producer.flush(WAIT_S):
            raise RuntimeError("the uplinks could not be written")
        yield
        producer.commit_transaction(60)


@dataclass(frozen=True)
class _Sample:
    """How far it was, and what it had used until then."""

    time_s: float
    cpu_s: float
    ends: tuple[int, ...]


class _Watch:
    """Looks how far a contestant is."""

    def __init__(self, contestant: Contestant, task: Task, worker: subprocess.Popen[bytes]) -> None:
        self._devices = task.devices
        self._watched = contestant.watched
        self._worker = worker
        self._log = task.folder / "said.log"
        self._admin = AdminClient({"bootstrap.servers": task.bootstrap, "log_level": 0})
        self._places = [
            TopicPartition(task.prefix + topic, partition)
            for topic in contestant.watched
            for partition in range(task.partitions)
        ]
        self._partitions = task.partitions

    def until_done(self, count: int) -> _Sample:
        """Return the sample at which the results of the first `count` uplinks were there."""
        due = [count] + [downlinks_of(count, self._devices)] * (len(self._watched) > 1)
        deadline = time.monotonic() + WAIT_S
        first = self.look()
        while True:
            sample = self.look()
            if sample.ends != first.ends:
                first = sample
            # The ends count the markers of transactions too: they are least, not exact.
            enough = all(end >= least for end, least in zip(sample.ends, due, strict=True))
            if enough and sample.time_s - first.time_s >= QUIET_S:
                return first
            if self._worker.poll() is not None:
                raise RuntimeError(f"it ended: {self._said()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"{first.ends} of {due} after {WAIT_S:.0f} s: {self._said()}")
            time.sleep(LOOK_S)

    def look(self) -> _Sample:
        """Return how far it is now."""
        asked = self._admin.list_offsets(
            dict.fromkeys(self._places, OffsetSpec.latest()),
            isolation_level=IsolationLevel.READ_COMMITTED,
        )
        ends: dict[str, int] = {}
        for place, answer in asked.items():
            ends[place.topic] = ends.get(place.topic, 0) + answer.result(30).offset
        return _Sample(time.monotonic(), cpu_s(self._worker.pid), tuple(ends.values()))

    def _said(self) -> str:
        return self._log.read_text(errors="replace")[-3_000:]
