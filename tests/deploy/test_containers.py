"""The images and `docker-compose.yml`, for real: built, started, an uplink in, a downlink out."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.deploy.daemon import ROOT, CommandError, Docker
from tests.deploy.network_server import network_server

STAGES = ("ingest", "convert", "route", "downlink", "sink")
WARM = bytes([0x01, 0x2C, 87, 0])  # 30.0 °C: the rules cool a room of more than 23 °C
COOL_TO_22 = bytes([1, 0x00, 0xDC])


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on; all are held until all are found."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


def test_image_runs_every_command_as_nobody_in_particular(images: Docker) -> None:
    """The image has the whole program, and neither runs as root nor keeps its tools to install."""
    run = ("docker", "run", "--rm", "--network", "host")

    assert images.run(*run, "funicular", "--version").startswith("funicular ")
    assert "worker" in images.run(*run, "funicular", "--help")
    for image in ("funicular", "funicular-kafka"):
        assert images.run(*run, "--entrypoint", "id", image, "-u").strip() not in {"", "0"}
    with pytest.raises(CommandError, match="No module named pip"):
        images.run(*run, "--entrypoint", "python", "funicular", "-m", "pip")


def test_image_checks_the_rules_that_are_mounted(images: Docker) -> None:
    """Rules, script engines and expressions work in the container as outside of it."""
    told = images.run(
        "docker", "run", "--rm", "--network", "host", "--cap-drop", "ALL", "--read-only",
        "--volume", f"{ROOT}/rules:/rules:ro", "funicular", "test", "/rules",
    )  # fmt: skip

    assert "all passed" in told


def test_broker_in_a_container_keeps_a_record(
    images: Docker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image of Kafka, under testcontainers: what one client puts in, another gets out."""
    for name, value in images.env.items():
        monkeypatch.setenv(name, value)
    from testcontainers.core.config import testcontainers_config
    from testcontainers.core.container import DockerContainer

    # The reaper would be one more image to fetch; the block below removes the container.
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    port, controller = free_ports(2)
    address = f"127.0.0.1:{port}"
    container = DockerContainer("funicular-kafka").with_kwargs(network_mode="host")
    for name, value in {
        "KAFKA_LISTENERS": f"PLAINTEXT://{address},CONTROLLER://127.0.0.1:{controller}",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{address}",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": f"1@127.0.0.1:{controller}",
    }.items():
        container.with_env(name, value)

    with container:
        client = {"bootstrap.servers": address, "log_level": 0}
        admin = AdminClient(client)
        admin.create_topics([NewTopic("readings", 1, 1)])["readings"].result(60)
        producer = Producer(client | {"enable.idempotence": True})
        producer.produce("readings", b"21.5", b"room-1")
        assert producer.flush(30) == 0
        consumer = Consumer(client | {"group.id": "g", "auto.offset.reset": "earliest"})
        consumer.subscribe(["readings"])
        try:
            record = consumer.poll(30)
        finally:
            consumer.close()

    assert record is not None
    assert (record.key(), record.value()) == (b"room-1", b"21.5")


class Compose:
    """`docker-compose.yml` with host networking, under a project name and on ports of its own."""

    def __init__(self, docker: Docker, rules: Path, env_file: Path) -> None:
        names = ("KAFKA", "KAFKA_CONTROLLER", *(stage.upper() for stage in STAGES))
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.docker = docker
        self.door = f"http://127.0.0.1:{ports['INGEST']}"
        self.ports = {stage: ports[stage.upper()] for stage in STAGES}
        self._env = {f"{name}_PORT": str(port) for name, port in ports.items()} | {
            "COMPOSE_PROJECT_NAME": f"funicular-test-{uuid4().hex[:8]}",
            "FUNICULAR_RULES_FOLDER": str(rules),
            "FUNICULAR_ENV_FILE": str(env_file),
        }

    def __call__(self, *arguments: str, timeout_s: float = 240.0) -> str:
        """Run a command of Compose; return what it said."""
        files = ("-f", "docker-compose.yml", "-f", "deploy/host-network.yml")
        return self.docker.run(
            "docker", "compose", *files, *arguments, env=self._env, timeout_s=timeout_s
        )


@pytest.fixture(scope="module")
def compose(images: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """All services up and healthy; afterwards they and their volumes are removed."""
    env_file = tmp_path_factory.mktemp("compose") / "worker.env"
    env_file.write_text("FUNICULAR_ALLOW_NETWORKS=loopback\n")  # where the tests' servers are
    found = Compose(images, ROOT / "rules", env_file)
    try:
        try:
            found("up", "--detach", "--no-build", "--wait", "--wait-timeout", "180")
        except CommandError as error:
            pytest.fail(f"{error}\n{found('ps', '--all')}\n{found('logs', '--tail', '40')}")
        yield found
    finally:
        found("down", "--volumes", "--remove-orphans", "--timeout", "10")


def get(port: int, path: str) -> int:
    """Return the status of a worker's answer, 0 where none listens."""
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer,
    ):
        return int(answer.status)
    return 0


def warm_uplink(compose: Compose, device: str) -> dict[str, Any]:
    """Let a device on TTN v2 say that it is too warm; return the downlink that comes of it."""
    with network_server() as server:
        uplink = {
            "app_id": "heating",
            "dev_id": device,
            "hardware_serial": "70B3D57ED0010001",
            "port": 1,
            "counter": 1,
            "payload_raw": b64encode(WARM).decode(),
            "metadata": {"time": "2026-01-05T09:00:00Z"},
            "downlink_url": server.url,
        }
        request = urllib.request.Request(
            f"{compose.door}/in/demo/ttn-thermostats",
            json.dumps(uplink).encode(),
            {"Authorization": "demo-key", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status // 100 == 2
        try:
            return server.asked.get(timeout=60)
        except Empty:
            pytest.fail(f"no downlink came\n{compose('logs', '--tail', '40')}")


def test_an_uplink_goes_through_all_containers_and_comes_back_as_a_downlink(
    compose: Compose,
) -> None:
    """What docker-compose.yml starts carries a TTN v2 uplink through five workers and Kafka, and
    the rules' answer to the network server; the topics are as they must be.
    """
    downlink = warm_uplink(compose, "room-1")

    assert (downlink["dev_id"], downlink["port"]) == ("room-1", 10)
    assert b64decode(downlink["payload_raw"]) == COOL_TO_22
    for stage, port in compose.ports.items():
        assert (get(port, "/healthz"), get(port, "/metrics")) == (200, 200), stage
    compose("run", "--rm", "--no-deps", "topics", "topics", "check")


def test_another_worker_of_a_stage_shares_its_volume_and_takes_over(compose: Compose) -> None:
    """A second container of a stage takes a slot of its own beside the first, and does the work
    when that one stops; all workers stop in good order, so that none has to be killed.
    """
    (port,) = free_ports(1)
    second = compose(
        "run", "--detach", "--no-deps", "--env", f"FUNICULAR_PORT={port}", "route"
    ).split()[-1]
    deadline = time.monotonic() + 60
    while get(port, "/readyz") != 200:
        assert time.monotonic() < deadline, compose("logs", "--tail", "40")
        time.sleep(0.2)

    slots = compose("exec", "-T", "route", "ls", "/state/state/route").split()
    compose("stop", "--timeout", "30", "route")
    downlink = warm_uplink(compose, "room-2")

    assert {"slot-0", "slot-1"} <= set(slots)
    assert downlink["dev_id"] == "room-2"
    compose.docker.run("docker", "stop", "--time", "30", second)
    compose("stop", "--timeout", "30", *STAGES)
    ended = [*compose("ps", "--all", "--quiet", *STAGES).split(), second]
    codes = compose.docker.run("docker", "inspect", "--format", "{{.State.ExitCode}}", *ended)
    assert codes.split() == ["0"] * len(ended)
