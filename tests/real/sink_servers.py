"""The servers that sinks write to, started on free ports in folders of their own: PostgreSQL,
Redis, RabbitMQ, InfluxDB. Found as `servers.program` says; ended by whoever started them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol, Self, TypeVar

from tests.real.servers import Certificates, Mosquitto, free_port, listens, program, until

START_S = 60.0
_POSTGRESQL = "/usr/lib/postgresql"
_RABBITMQ = "/usr/lib/rabbitmq/bin"


class Startable(Protocol):
    """What a test can ask for."""

    def start(self) -> Self: ...
    def remove(self) -> None: ...


Kind = TypeVar("Kind", bound=Startable)


class Server:
    """One process in a folder of its own, which goes with it."""

    name = ""
    package = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"funicular-{self.name}-"))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str]:
        """Return what starts it in the foreground."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return what it needs beside our own environment."""
        return {}

    def start(self) -> Self:
        """Start it, and wait until it listens; after `stop` too: it has kept its data."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self.ready, START_S, f"{self.name} listens (see {self.folder}/log)")
        return self

    def ready(self) -> bool:
        """Return whether it takes connections."""
        assert self._process is not None
        log = self.folder / "log"
        assert self._process.poll() is None, f"{self.name} ended: {log.read_text()[-2_000:]}"
        return listens(self.port)

    def pause(self) -> None:
        """Let it stand still with its connections open, as a machine that hangs."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it, hard, with all that it started; again is fine."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=START_S)

    def remove(self) -> None:
        """End it and delete its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Postgresql(Server):
    """A database cluster; it refuses to run as root, hence as the user `postgres` then."""

    name = "postgresql"

    def __init__(self, *, tls: Path | None = None) -> None:
        binaries = sorted(Path(_POSTGRESQL).glob("*/bin"))
        self._postgres = str(binaries[-1] / "postgres") if binaries else ""
        if not binaries:
            self._postgres = program("postgres", "postgresql")
        super().__init__()
        self._as: list[str] = []
        data = self.folder / "data"
        if os.geteuid() == 0:
            self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            shutil.chown(self.folder, "postgres", "postgres")
        initdb = str(Path(self._postgres).with_name("initdb"))
        subprocess.run(
            [*self._as, initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync",
             "-E", "UTF8", "--locale=C"],
            check=True, cwd=self.folder, capture_output=True,
        )  # fmt: skip
        self._options = [
            "-c", f"port={self.port}", "-c", "listen_addresses=127.0.0.1",
            "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off",
        ]  # fmt: skip
        if tls is not None:
            self._use(tls, data)

    def _use(self, tls: Path, data: Path) -> None:
        for name in ("ca.pem", "server.pem", "server.key"):
            copied = Path(shutil.copy(tls / name, data / name))
            copied.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(copied, "postgres", "postgres")
        (data / "pg_hba.conf").write_text(
            "hostssl all all 127.0.0.1/32 trust clientcert=verify-ca\n"
        )
        files = {
            "ssl_ca_file": "ca.pem",
            "ssl_cert_file": "server.pem",
            "ssl_key_file": "server.key",
        }
        self._options += ["-c", "ssl=on"]
        for name, file in files.items():
            self._options += ["-c", f"{name}={file}"]

    def ready(self) -> bool:
        """Return whether it takes sessions: it listens before it does."""
        asks = str(Path(self._postgres).with_name("pg_isready"))
        command = [asks, "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return super().ready() and subprocess.run(command, check=False).returncode == 0

    def command(self) -> Sequence[str]:
        return [*self._as, self._postgres, "-D", str(self.folder / "data"), *self._options]


class Redis(Server):
    """A Redis that keeps nothing on disk."""

    name = "redis"

    def __init__(self, *options: str, tls: Path | None = None) -> None:
        self._program = program("redis-server", "redis-server")
        super().__init__()
        ports = ["--port", str(self.port)]
        if tls is not None:
            ports = ["--port", "0", "--tls-port", str(self.port),
                     "--tls-cert-file", f"{tls}/server.pem", "--tls-key-file", f"{tls}/server.key",
                     "--tls-ca-cert-file", f"{tls}/ca.pem"]  # fmt: skip
        self._options = [*ports, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                         *options]  # fmt: skip

    def command(self) -> Sequence[str]:
        return [self._program, *self._options]


class Rabbitmq(Server):
    """A RabbitMQ node with its own port mapper, which takes ten seconds to start. `tls`: what its
    port for TLS, `tls_port`, wants to see of clients; the certificate of `guest` lets in as the
    user of that name, without a password. It speaks AMQP 1.0, too.
    """

    name = "rabbitmq"

    def __init__(self) -> None:
        packaged = Path(_RABBITMQ) / "rabbitmq-server"
        self._program = (
            str(packaged) if packaged.exists() else program("rabbitmq-server", "rabbitmq-server")
        )
        super().__init__()
        self._mapper_port, self.tls_port = free_port(), free_port()
        self._mapper: subprocess.Popen[bytes] | None = None
        lines = [f"listeners.tcp.1 = 127.0.0.1:{self.port}", "log.console = true",
                 "loopback_users = none"]  # fmt: skip
        (self.folder / "tls").mkdir()
        self.tls = Certificates(self.folder / "tls")
        self.tls.make("guest")
        mechanisms = enumerate(("PLAIN", "AMQPLAIN", "EXTERNAL"))
        lines += [
            *(f"auth_mechanisms.{number} = {name}" for number, name in mechanisms),
            "ssl_cert_login_from = common_name",
            f"listeners.ssl.1 = 127.0.0.1:{self.tls_port}",
            f"ssl_options.cacertfile = {self.tls.path('ca.pem')}",
            f"ssl_options.certfile = {self.tls.path('server.pem')}",
            f"ssl_options.keyfile = {self.tls.path('server.key')}",
            "ssl_options.verify = verify_peer",
            "ssl_options.fail_if_no_peer_cert = true",
        ]
        (self.folder / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        plugins = "[rabbitmq_amqp1_0,rabbitmq_auth_mechanism_ssl].\n"
        (self.folder / "enabled_plugins").write_text(plugins)

    def command(self) -> Sequence[str]:
        return [self._program]

    def environment(self) -> dict[str, str]:
        folder = self.folder
        return {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"funicular{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "logs"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "ERL_EPMD_PORT": str(self._mapper_port),
        }

    def start(self) -> Self:
        """Start the port mapper as a child, so that it does not stay behind as a daemon."""
        mapper = program("epmd", "erlang-base")
        self._mapper = subprocess.Popen(
            [mapper, "-address", "127.0.0.1", "-port", str(self._mapper_port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return super().start()

    def stop(self) -> None:
        """End the node and its port mapper."""
        super().stop()
        mapper, self._mapper = self._mapper, None
        if mapper is not None:
            mapper.kill()
            mapper.wait(timeout=START_S)


class Influxdb(Server):
    """An InfluxDB 1, which is what Debian has; its API of version 2 is of a later one."""

    name = "influxdb"

    def __init__(self) -> None:
        self._program = program("influxd", "influxdb")
        super().__init__()
        folder = self.folder
        (folder / "influxdb.conf").write_text(f"""\
reporting-disabled = true
bind-address = "127.0.0.1:{free_port()}"
[meta]
  dir = "{folder}/meta"
[data]
  dir = "{folder}/data"
  wal-dir = "{folder}/wal"
[http]
  bind-address = "127.0.0.1:{self.port}"
""")

    def command(self) -> Sequence[str]:
        return [self._program, "-config", str(self.folder / "influxdb.conf")]


class Mqtt(Mosquitto):
    """A Mosquitto in a folder of its own, as the other servers here."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="funicular-mosquitto-"))
        super().__init__(self.folder)

    def remove(self) -> None:
        """End it and delete its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class ObjectStore:
    """moto's S3, in a thread of this process: a fake, yet of the real protocol."""

    def __init__(self) -> None:
        import boto3
        from moto.server import ThreadedMotoServer

        self._connect = boto3.client
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.url = ""
        self.client: Any = None

    def start(self) -> Self:
        """Start it, with a bucket named `bucket`."""
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        self.client = self._connect(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="access",
            aws_secret_access_key="secret",
        )
        self.client.create_bucket(Bucket="bucket")
        return self

    def remove(self) -> None:
        """End it."""
        self.client.close()
        self._server.stop()


class Kafka:
    """The broker that the tests of this process share, as `tests/kafka` has it."""

    def __init__(self) -> None:
        self.bootstrap = ""
        self.contract = ""

    def start(self) -> Self:
        """Start it, or find it running."""
        from tests.kafka.brokers import needed, shared

        needed()
        self.bootstrap = shared().bootstrap
        self.contract = self.topic("contract")
        return self

    def topic(self, prefix: str, **config: str) -> str:
        """Make a topic of two partitions; return its name, which nobody had before."""
        from confluent_kafka.admin import AdminClient, NewTopic

        name = f"{prefix}-{token_hex(4)}"
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        made = admin.create_topics([NewTopic(name, 2, 1, config=config)])
        made[name].result(30)
        return name

    def remove(self) -> None:
        """Leave it to those who share it."""


class SinkServers:
    """One server of each kind, started when a test first asks for it."""

    def __init__(self) -> None:
        self._started: dict[type[Any], Any] = {}

    def __getitem__(self, kind: type[Kind]) -> Kind:
        """Return the server of this kind, running."""
        if kind not in self._started:
            self._started[kind] = kind().start()
        found: Kind = self._started[kind]
        return found

    def remove(self) -> None:
        """End all."""
        started, self._started = self._started, {}
        for server in started.values():
            server.remove()
