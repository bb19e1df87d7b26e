"""Real Kafka brokers for tests: started, killed, paused, resumed, restarted.

Where they come from, in this order: `FUNICULAR_TEST_KAFKA` (addresses of a running cluster; or the
word `container` or `jars`, to ask for one of the next two); a container where a Docker daemon runs
(image: `FUNICULAR_TEST_KAFKA_IMAGE`); Kafka's own jars through Maven (`deploy/kafka/pom.xml`), kept
in `.kafka/`. Where there is none, `needed()` skips the test, or fails it where `CI` is set.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

ROOT = Path(__file__).parents[2]
POM = ROOT / "deploy/kafka/pom.xml"
CACHE = ROOT / ".kafka"
IMAGE = os.environ.get("FUNICULAR_TEST_KAFKA_IMAGE", "apache/kafka:4.1.2")
CLUSTER_ID = "AAAAAAAAAAAAAAAAAAAAAA"
UP_S = 60.0
# Less than a test may take: where no registry answers, the jars are next.
DOCKER_S = 40.0
_PR_SET_PDEATHSIG = 1


class Node(Protocol):
    """One broker."""

    def start(self) -> None:
        """Start it, with the data that it had."""

    def kill(self) -> None:
        """End it as a power cut would."""

    def signal(self, number: int) -> None:
        """Send it a signal: SIGSTOP, SIGCONT."""

    def stop(self) -> None:
        """End it in good order, and wait for that."""


class Brokers:
    """A cluster; `bootstrap` is how clients reach it, `secure_bootstrap` its secured listener."""

    def __init__(
        self, nodes: Mapping[int, Node], bootstrap: str, secure_bootstrap: str = ""
    ) -> None:
        self.nodes = dict(nodes)
        self.bootstrap = bootstrap
        self.secure_bootstrap = secure_bootstrap
        self._folder: Path | None = None

    @classmethod
    def start(
        cls,
        count: int = 1,
        *,
        properties: Mapping[str, str] | None = None,
        secure: str = "",
    ) -> Brokers:
        """Start `count` brokers. `properties` are added to server.properties.

        `secure` names the security protocol (`SASL_PLAINTEXT`, `SSL`, …) of a second listener,
        called SECURE; `properties` say the rest of it (`listener.name.secure.…`).
        """
        kind = source()
        if kind not in ("container", "jars"):
            message = "A running cluster cannot be started; use shared(), or unset the variable"
            raise RuntimeError(message)
        folder = Path(tempfile.mkdtemp(prefix="funicular-kafka-"))
        plans = _plan(count, folder, dict(properties or {}), secure)
        made: dict[int, Node] = {}
        for number, plan in plans.items():
            made[number] = JarNode(plan) if kind == "jars" else ContainerNode(plan)
        brokers = cls(
            made,
            ",".join(f"127.0.0.1:{plan.port}" for plan in plans.values()),
            ",".join(f"127.0.0.1:{plan.secure_port}" for plan in plans.values()) if secure else "",
        )
        brokers._folder = folder
        try:
            for node in made.values():
                node.start()
            brokers.wait(count)
        except BaseException:
            brokers.stop()
            raise
        return brokers

    def wait(self, count: int | None = None, *, address: str = "") -> None:
        """Return when so many brokers (None: all) are up, as the one at `address` sees it, where
        it is given. TimeoutError: not in time.
        """
        wanted = len(self.nodes) if count is None else count
        deadline = time.monotonic() + UP_S
        admin = AdminClient({"bootstrap.servers": address or self.bootstrap, "log_level": 0})
        while time.monotonic() < deadline:
            with contextlib.suppress(KafkaException):
                if len(admin.list_topics(timeout=2).brokers) >= wanted:
                    return
            time.sleep(0.05)
        message = f"{wanted} brokers were not up after {UP_S:.0f} s at {self.bootstrap}"
        raise TimeoutError(message)

    def keep_logs(self, folder: Path) -> None:
        """Copy what the brokers said there, for a look at it; containers keep theirs."""
        for log in self._folder.glob("node-*/broker.log") if self._folder is not None else ():
            shutil.copy(log, folder / f"{log.parent.name}.log")

    def admin(self) -> AdminClient:
        """Return an admin client."""
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def create(
        self, topics: Mapping[str, int], *, replication: int | None = None, **config: str
    ) -> None:
        """Create topics: name → partitions. `config` as `cleanup_policy="compact"`."""
        options = {name.replace("_", "."): value for name, value in config.items()}
        copies = replication or (min(3, len(self.nodes)) or 1)
        new = [NewTopic(name, count, copies, config=options) for name, count in topics.items()]
        admin = self.admin()
        for made in admin.create_topics(new).values():
            made.result(30)
        self._wait_for(admin, topics)

    @staticmethod
    def _wait_for(admin: AdminClient, topics: Mapping[str, int]) -> None:
        """Wait until each partition has its leader, so that clients see the topics at once."""
        deadline = time.monotonic() + UP_S
        while time.monotonic() < deadline:
            known = admin.list_topics(timeout=10).topics
            found = [known[name] for name in topics if name in known]
            if len(found) == len(topics) and all(
                topic.partitions and all(each.leader >= 0 for each in topic.partitions.values())
                for topic in found
            ):
                return
            time.sleep(0.02)
        message = f"Topics without leaders after {UP_S:.0f} s: {', '.join(topics)}"
        raise TimeoutError(message)

    def kill(self, node: int) -> None:
        """End a broker as a power cut would (SIGKILL)."""
        self.nodes[node].kill()

    def pause(self, node: int) -> None:
        """Stop a broker's processes where they stand (SIGSTOP)."""
        self.nodes[node].signal(signal.SIGSTOP)

    def resume(self, node: int) -> None:
        """Let them go on (SIGCONT)."""
        self.nodes[node].signal(signal.SIGCONT)

    def restart(self, node: int, *, wait: bool = True) -> None:
        """Start a broker again, after `kill` or in good order, with the data that it had."""
        self.nodes[node].stop()
        self.nodes[node].start()
        if wait:
            self.wait(address=self.bootstrap.split(",")[sorted(self.nodes).index(node)])

    def stop(self) -> None:
        """End all brokers, and remove their data."""
        for node in self.nodes.values():
            node.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class _Plan:
    """What one broker needs to know before any of them starts."""

    def __init__(self, node: int, folder: Path) -> None:
        self.node = node
        self.folder = folder / f"node-{node}"
        self.folder.mkdir()
        self.port, self.controller_port, self.secure_port = _free_ports(3)
        self.properties: dict[str, str] = {}


def _plan(count: int, folder: Path, properties: Mapping[str, str], secure: str) -> dict[int, _Plan]:
    plans = {number: _Plan(number, folder) for number in range(1, count + 1)}
    copies = min(3, count)
    voters = ",".join(f"{p.node}@127.0.0.1:{p.controller_port}" for p in plans.values())
    for plan in plans.values():
        listeners = f"PLAINTEXT://127.0.0.1:{plan.port}"
        if secure:
            listeners += f",SECURE://127.0.0.1:{plan.secure_port}"
        plan.properties = {
            "process.roles": "broker,controller",
            "node.id": str(plan.node),
            "controller.quorum.voters": voters,
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{plan.controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
            + (f",SECURE:{secure}" if secure else ""),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(plan.folder / "data"),
            "auto.create.topics.enable": "false",
            "default.replication.factor": str(copies),
            "min.insync.replicas": str(max(1, copies - 1)),
            "offsets.topic.replication.factor": str(copies),
            "offsets.topic.num.partitions": "3",
            "transaction.state.log.replication.factor": str(copies),
            "transaction.state.log.min.isr": str(max(1, copies - 1)),
            "transaction.state.log.num.partitions": "3",
            "share.coordinator.state.topic.replication.factor": str(copies),
            "share.coordinator.state.topic.min.isr": str(max(1, copies - 1)),
            "share.coordinator.state.topic.num.partitions": "1",
            # A group's first members do not wait for others.
            "group.initial.rebalance.delay.ms": "0",
            # Transactions of a killed worker are looked for this often.
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
            "group.min.session.timeout.ms": "1000",
            # A broker that was killed or paused is out of the cluster this soon.
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "500",
            "controller.quorum.election.timeout.ms": "500",
            "controller.quorum.fetch.timeout.ms": "1500",
            "log.retention.check.interval.ms": "1000",
            "log.cleaner.backoff.ms": "500",
            "num.network.threads": "2",
            "num.io.threads": "4",
            **properties,
        }
    return plans


class JarNode:
    """A broker as a Java process of this machine."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._process: subprocess.Popen[bytes] | None = None
        self._config = plan.folder / "server.properties"
        lines = [f"{name}={value}\n" for name, value in plan.properties.items()]
        self._config.write_text("".join(lines))

    def start(self) -> None:
        """Start it; format its storage the first time."""
        path = f"{jars()}/*"
        if not Path(self._plan.properties["log.dirs"]).exists():
            tool = ["-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", path, "kafka.tools.StorageTool"]
            arguments = ["format", "-t", CLUSTER_ID, "-c", str(self._config)]
            done = subprocess.run(
                ["java", *tool, *arguments], capture_output=True, text=True, check=False
            )
            if done.returncode:
                message = f"kafka.tools.StorageTool: {done.stderr or done.stdout}"
                raise RuntimeError(message)
        with (self._plan.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["java", "-Xms128m", "-Xmx512m", "-cp", path, "kafka.Kafka", str(self._config)],
                stdout=log,
                stderr=log,
                cwd=self._plan.folder,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one call of the C library
            )

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it in good order, and wait for that; by force after a while."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self.kill()


class ContainerNode:
    """A broker in a container that shares this machine's network."""

    def __init__(self, plan: _Plan) -> None:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(IMAGE).with_kwargs(network_mode="host")
        container.with_env("CLUSTER_ID", CLUSTER_ID)
        container.with_env("KAFKA_HEAP_OPTS", "-Xms128m -Xmx512m")
        # As the public image has it: every property is a variable.
        for name, value in (plan.properties | {"log.dirs": "/tmp/kafka-data"}).items():
            container.with_env("KAFKA_" + name.upper().replace(".", "_"), value)
        self._container = container
        self._made: Any = None

    def start(self) -> None:
        """Start it."""
        if self._made is None:
            self._container.start()
            self._made = self._container.get_wrapped_container()
            atexit.register(self._remove)
        else:
            self._made.start()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._made is not None:
            with contextlib.suppress(Exception):
                self._made.kill("SIGKILL")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        if number == signal.SIGSTOP:
            self._made.pause()
        elif number == signal.SIGCONT:
            self._made.unpause()
        else:
            self._made.kill(number)

    def stop(self) -> None:
        """End it in good order."""
        if self._made is not None:
            self._made.stop(timeout=20)

    def _remove(self) -> None:
        with contextlib.suppress(Exception):
            self._made.remove(force=True)


@functools.cache
def source() -> str:
    """Return where brokers come from: addresses, `container`, `jars`, or nothing."""
    asked = os.environ.get("FUNICULAR_TEST_KAFKA", "")
    if asked:
        return asked
    if _has_image():
        return "container"
    return "jars" if shutil.which("java") and shutil.which("mvn") else ""


def _has_image() -> bool:
    """Tell whether a Docker daemon runs and has the image, or can get it."""
    if shutil.which("docker") is None:
        return False
    for command in (("info",), ("image", "inspect", IMAGE), ("pull", "-q", IMAGE)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = subprocess.run(
                ["docker", *command], capture_output=True, check=False, timeout=DOCKER_S
            )
            if done.returncode == 0 and command[0] != "info":
                return True
            if done.returncode and command[0] == "info":
                return False
    return False


def needed() -> None:
    """Skip the test, loudly, where no broker is to be had; fail it where `CI` is set."""
    if source():
        return
    why = "no Kafka: neither FUNICULAR_TEST_KAFKA, nor a Docker daemon, nor java and mvn"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(f"LEFT OUT, {why}")


@functools.cache
def shared() -> Brokers:
    """Return the one-broker cluster that the tests of this process share; topics must have names
    of their own. Call `needed()` before.
    """
    kind = source()
    if kind not in ("container", "jars"):
        return Brokers({}, kind)
    brokers = Brokers.start(1)
    atexit.register(brokers.stop)
    return brokers


@functools.cache
def jars() -> Path:
    """Return the folder with Kafka's jars, fetched by Maven when they are not there yet."""
    version = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    folder = CACHE / version
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            fetched = CACHE / "new"
            shutil.rmtree(fetched, ignore_errors=True)
            command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies"]
            subprocess.run([*command, f"-DoutputDirectory={fetched}"], check=True)
            fetched.rename(folder)
    return folder


def _free_ports(count: int) -> Sequence[int]:
    """Return ports that nobody listens on; all are held until all are found."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _end_with_parent() -> None:
    """Have the kernel end this process when the tests' process ends, however it does."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
