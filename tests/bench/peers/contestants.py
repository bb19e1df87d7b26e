"""Who takes part: how each is got, started and read.

In: a `Task` (where the broker is, how many devices) and a cache folder. Out: a command to start,
and what it wrote, in the words of `job.Found`. What is installed (environments of Python, a jar, a
Go program) lives in the cache folder, so that the project's own dependencies know nothing of it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from abc import abstractmethod
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pipeline.stream.kafka_changes import Change, replay
from pipeline.stream.kafka_settings import KafkaSettings
from tests.bench.peers import by_hand
from tests.bench.peers.job import TENANT, Found
from tests.contract.kafka_harness import read_all
from tests.kafka.brokers import ROOT

HERE = Path(__file__).parent
RULES = HERE / "rules"
FAUST = "faust-streaming==0.15.3"
QUIX = "quixstreams==3.28.1"
STREAMS = "4.1.0"  # as in streams/pom.xml
BENTO = "1.4.1"  # as in bento/go.mod


@dataclass(frozen=True)
class Task:
    """One run. `folder` is empty, and the contestant's own."""

    bootstrap: str
    prefix: str
    folder: Path
    devices: int
    partitions: int

    @property
    def kafka(self) -> KafkaSettings:
        """The cluster, for who reads what was written."""
        return KafkaSettings(bootstrap=self.bootstrap, prefix=self.prefix)

    def values(self, topic: str) -> list[Any]:
        """Return the JSON of all committed records of a topic."""
        return [orjson.loads(each.value()) for each in read_all(self.kafka, topic)]


class Contestant:
    """One who does the job. `job`: `whole`, or `convert`. `watched` are the topics whose growth
    shows how far it is. `once`: it promises exactly once. `reads_committed` False: it would read
    what is not committed yet. `warm_times`: it is given so many times as much to warm up on.
    """

    name = ""
    what = ""
    job = "whole"
    once = True
    reads_committed = True
    warm_times = 1
    integration = "js"

    @property
    def watched(self) -> tuple[str, ...]:
        """The topics that it writes its results to."""
        return ("deliveries", "downlinks") if self.job == "whole" else ("events",)

    def prepare(self, cache: Path) -> None:
        """Install or build what it needs, where that is not there yet."""

    def topics(self) -> tuple[str, ...]:
        """Return the topics to be made for it, without the prefix."""
        return ("uplink.received", *self.watched)

    def make_more(self, task: Task) -> None:
        """Make what else there has to be before it is started."""

    @abstractmethod
    def command(self, task: Task, cache: Path) -> list[str]:
        """Return what starts it."""

    def environment(self, task: Task) -> dict[str, str]:
        """Return what it finds in its environment beside ours."""
        return {}

    @abstractmethod
    def version(self, cache: Path) -> str:
        """Return what runs, in words."""

    def found(self, task: Task) -> Found:
        """Return all that it wrote."""
        if self.job == "convert":
            return Found(events=self.events(task))
        downlinks = task.values("downlinks")
        return Found(
            deliveries=task.values("deliveries"),
            downlinks=[(each["device"], b64decode(each["payload_raw"])) for each in downlinks],
            state=self.state(task),
        )

    def events(self, task: Task) -> list[dict[str, Any]]:
        """Return what it decoded: of each record the device and the telemetry."""
        return [{"device": each["device"]} | each["telemetry"] for each in task.values("events")]

    def state(self, task: Task) -> Mapping[str, Mapping[str, float]]:
        """Return each device's attributes, as its changelog says."""
        raise NotImplementedError


class Funicular(Contestant):
    """The real workers, with the rules beside this file."""

    def __init__(self, job: str = "whole", codec: str = "js", workers: int = 1) -> None:
        self.job, self.integration, self._workers = job, codec, workers
        self.name = "funicular" if job == "whole" else "funicular-convert"
        self.name += "" if codec == "js" else f"-{codec}"
        self.name += "" if workers == 1 else f"-{workers}-workers"
        stages = "convert, route, downlink" if job == "whole" else "convert"
        language = {"js": "JavaScript", "lua": "Lua"}[codec]
        self.what = (
            f"one worker ({stages}), its script process ({language})"
            if workers == 1
            else f"{workers} workers ({stages}), each with its script process ({language})"
        )
        self._rooms = stages.split(", ")

    @property
    def watched(self) -> tuple[str, ...]:
        if self.job == "convert":
            return ("device.events",)
        return (f"delivery.{TENANT}.archive", "downlink.status")

    def topics(self) -> tuple[str, ...]:
        return ()

    def make_more(self, task: Task) -> None:
        _funicular("topics", "create", "--log", self._log(task), "--rules", str(RULES))

    @staticmethod
    def _log(task: Task) -> str:
        return f"kafka://{task.bootstrap}?prefix={task.prefix}&partitions={task.partitions}"

    def command(self, task: Task, cache: Path) -> list[str]:
        given = {
            "--log": self._log(task),
            "--rules": str(RULES),
            "--data": "{data}",
            "--port": "0",
            "--log-level": "warning",
        }
        options = [word for pair in given.items() for word in pair]
        several = [sys.executable, "-m", "tests.bench.peers.several", str(self._workers)]
        worker = [sys.executable, "-m", "pipeline.cli", "worker", *self._rooms, *options]
        return [*several, str(task.folder / "data"), *worker]

    def version(self, cache: Path) -> str:
        return f"{_funicular('--version').strip()}, Python {platform.python_version()}"

    def events(self, task: Task) -> list[dict[str, Any]]:
        found = task.values("device.events")
        return [{"device": each["device"]} | each["telemetry"] for each in found]

    def found(self, task: Task) -> Found:
        if self.job == "convert":
            return Found(events=self.events(task))
        records = read_all(task.kafka, "device.state")
        state, _ = replay(Change(each.key(), each.value()) for each in records)
        return whole_of(task.values(self.watched[0]), task.values("downlink.status"), state)


def whole_of(
    deliveries: list[Any], life: list[Any], state: Mapping[str, Mapping[str, Any]]
) -> Found:
    """Return what Funicular wrote to its topics: deliveries, steps of downlinks' life, and the
    state by key and part. A downlink has its bytes in each step from `encoded` on.
    """
    downlinks = {each["id"]: each for each in life if each.get("payload")}
    return Found(
        deliveries=[each["body"] for each in deliveries],
        downlinks=[(e["device"], b64decode(e["payload"])) for e in downlinks.values()],
        state={
            key.partition("/")[2]: parts["attributes/server"]["values"]
            for key, parts in state.items()
        },
    )


def _funicular(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *words],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


class _Program(Contestant):
    """A program in Python beside this file, in an environment of its own."""

    program = ""
    requirements: tuple[str, ...] = ()

    def _python(self, cache: Path) -> Path:
        if not self.requirements:
            return Path(sys.executable)
        return cache / self.requirements[0].replace("==", "-") / "bin/python"

    def prepare(self, cache: Path) -> None:
        python = self._python(cache)
        if python.exists():
            return
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *self.requirements], check=True)

    def command(self, task: Task, cache: Path) -> list[str]:
        told = {"bootstrap": task.bootstrap, "prefix": task.prefix, "folder": str(task.folder),
                "partitions": task.partitions, "job": self.job, "once": self.once}  # fmt: skip
        path = task.folder / "told.json"
        path.write_bytes(orjson.dumps(told))
        return [str(self._python(cache)), str(HERE / self.program), str(path)]

    def version(self, cache: Path) -> str:
        return f"{self.requirements[0].replace('==', ' ')}, Python {platform.python_version()}"


class Faust(_Program):
    """The job on faust-streaming."""

    program = "faust_program.py"
    requirements = (FAUST, "orjson", "uvloop", "cramjam", "setuptools<81")

    def __init__(self, *, once: bool = True) -> None:
        self.once = self.reads_committed = once
        self.name = "faust" if once else "faust-at-least-once"
        self.what = "by hand in Python"

    def state(self, task: Task) -> Mapping[str, Mapping[str, float]]:
        records = read_all(task.kafka, "job-attributes-changelog")
        return {_device_of(each.key()): orjson.loads(each.value()) for each in records}


class Quix(_Program):
    """The job on Quix Streams."""

    program = "quix_program.py"
    requirements = (QUIX, "orjson")

    def __init__(self, job: str = "whole") -> None:
        self.job = job
        self.name = "quix" if job == "whole" else "quix-convert"
        self.what = "by hand in Python"

    def events(self, task: Task) -> list[dict[str, Any]]:
        return task.values("events")

    def state(self, task: Task) -> Mapping[str, Mapping[str, float]]:
        # Its own name for it; keys are the record's key, a separator, and the name as JSON.
        topic = f"changelog__{task.prefix}job--{task.prefix}uplink.received--default"
        records = read_all(KafkaSettings(bootstrap=task.bootstrap), topic)
        return {
            _device_of(each.key().partition(b"|")[0]): orjson.loads(each.value())
            for each in records
            if each.key().endswith(b'|"attributes"')
        }


class Bare(_Program):
    """The ceiling: what reading and writing costs with confluent-kafka, and nothing else."""

    name = "bare"
    what = "read, orjson, write: the client's ceiling, decodes nothing"
    job = "convert"
    program = "bare_program.py"

    def version(self, cache: Path) -> str:
        client = importlib.metadata.version("confluent-kafka")
        return f"confluent-kafka {client}, Python {platform.python_version()}"

    def events(self, task: Task) -> list[dict[str, Any]]:
        # It passes uplinks on: that their bytes are whole is all there is to check.
        return [by_hand.decode(each.value()) for each in read_all(task.kafka, "events")]


class Streams(Contestant):
    """The job on Kafka Streams, in Java."""

    name = "streams"
    what = "by hand in Java, codec too, one thread, exactly_once_v2"
    # The default collector, G1, takes the least CPU: 34 to 37 µs an uplink, the parallel one 37 to
    # 39, the serial one 43 to 50. Commits less often than by default gain nothing.
    java = ("-Xms256m", "-Xmx512m")
    # Its compiler goes on for long: 43 µs an uplink after 20,000 to warm up on, 30 after 100,000.
    warm_times = 5

    def prepare(self, cache: Path) -> None:
        source, target = HERE / "streams", cache / f"streams-{STREAMS}"
        if not _is_current(target / "streams.jar", source):
            command = [
                "mvn",
                "-q",
                "-B",
                "-Dstyle.color=never",
                "-f",
                str(source / "pom.xml"),
                "clean",
                "package",
            ]
            subprocess.run([*command, f"-Dbench.target={target}"], check=True)

    def command(self, task: Task, cache: Path) -> list[str]:
        target = cache / f"streams-{STREAMS}"
        settings = {
            "application.id": f"{task.prefix}job",
            "bootstrap.servers": task.bootstrap,
            "processing.guarantee": "exactly_once_v2",
            "num.stream.threads": 1,
            "state.dir": task.folder / "state",
            "auto.offset.reset": "earliest",
            "producer.compression.type": "lz4",
            "bench.uplinks": f"{task.prefix}uplink.received",
            "bench.deliveries": f"{task.prefix}deliveries",
            "bench.downlinks": f"{task.prefix}downlinks",
        }
        path = task.folder / "streams.properties"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        jars = f"{target}/streams.jar:{target}/libraries/*"
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return ["java", *self.java, quiet, "-cp", jars, "funicular.bench.Job", str(path)]

    def version(self, cache: Path) -> str:
        done = subprocess.run(["java", "--version"], check=True, capture_output=True, text=True)
        return f"kafka-streams {STREAMS}, {done.stdout.splitlines()[0]}"

    def state(self, task: Task) -> Mapping[str, Mapping[str, float]]:
        records = read_all(task.kafka, "job-attributes-changelog")
        return {each.key().decode(): orjson.loads(each.value()) for each in records}


class Bento(Contestant):
    """The stateless part as a mapping of Bento, in Go."""

    name = "bento-convert"
    what = "a mapping, in Go"
    job = "convert"
    once = False
    reads_committed = False

    def prepare(self, cache: Path) -> None:
        source, program = HERE / "bento", cache / f"bento-{BENTO}"
        if not _is_current(program, source):
            subprocess.run(["go", "build", "-o", str(program), "."], cwd=source, check=True)

    def command(self, task: Task, cache: Path) -> list[str]:
        return [str(cache / f"bento-{BENTO}"), "-c", str(HERE / "bento/convert.yaml")]

    def environment(self, task: Task) -> dict[str, str]:
        return {"BENCH_BOOTSTRAP": task.bootstrap, "BENCH_PREFIX": task.prefix}

    def version(self, cache: Path) -> str:
        done = subprocess.run(
            ["go", "env", "GOVERSION"], check=True, capture_output=True, text=True
        )
        return f"bento {BENTO}, {done.stdout.strip()}"


def _device_of(key: bytes) -> str:
    """Return the device of a record's key, `tenant/device`."""
    return key.decode().partition("/")[2]


def _is_current(made: Path, source: Path) -> bool:
    """Whether what was built is there and as new as what it is built of."""
    if not made.exists():
        return False
    return made.stat().st_mtime >= max(e.stat().st_mtime for e in source.rglob("*") if e.is_file())


def contestants() -> dict[str, Contestant]:
    """Return all, by name; Funicular first."""
    everyone: tuple[Contestant, ...] = (
        Funicular(),
        Funicular(codec="lua"),
        Funicular(workers=2),
        Faust(),
        Faust(once=False),
        Quix(),
        Streams(),
        Funicular("convert"),
        Funicular("convert", "lua"),
        Bento(),
        Quix("convert"),
        Bare(),
    )
    return {each.name: each for each in everyone}


def lacking(contestant: Contestant) -> str:
    """Return which program of this machine a contestant misses; empty: none."""
    needed = {Streams: ("java", "mvn"), Bento: ("go",)}.get(type(contestant), ())
    return ", ".join(each for each in needed if shutil.which(each) is None)


def cache_folder() -> Path:
    """Return where peers are kept: `FUNICULAR_BENCH_CACHE`, or the user's cache folder."""
    given = os.environ.get("FUNICULAR_BENCH_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "funicular-bench"
