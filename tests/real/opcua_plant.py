"""A plant that speaks OPC-UA, started by tests, and an ingest worker's part that listens to it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from asyncua import Server, ua
from asyncua.crypto import uacrypto
from asyncua.server.binary_server_asyncio import BinaryServer
from asyncua.server.history_sql import HistorySQLite
from asyncua.server.user_managers import User, UserManager, UserRole

from pipeline.ingest.source import Outside
from pipeline.rulebook.book import Integration
from tests.real.servers import free_port, program
from tests.real.source_work import HeldLog, Leases, Process, integration

URI = "http://example.com/press"
OWN = "urn:example.com:plant"
USER = ("funicular", "right")


class _Users(UserManager):  # type: ignore[misc]
    """Whose password is right, and who shows the one certificate."""

    def __init__(self, certificate: bytes) -> None:
        self._certificate = certificate

    def get_user(self, iserver: Any, username: Any = None, password: Any = None,
                 certificate: Any = None) -> Any:  # fmt: skip
        known = (username, password) == USER or certificate == self._certificate
        return User(role=UserRole.Admin) if known else None


def certificate_of(folder: Path, name: str, uri: str) -> Path:
    """Write name.pem and name.key: self-signed, with the name of an application. Returns the
    certificate's path.
    """
    (folder / f"{name}.cnf").write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=ext\nprompt=no\n"
        f"[dn]\nCN={name}\n[ext]\n"
        f"subjectAltName=URI:{uri},DNS:localhost,IP:127.0.0.1\n"
        "keyUsage=digitalSignature,nonRepudiation,keyEncipherment,dataEncipherment\n"
        "extendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n"
    )
    command = (f"req -x509 -newkey rsa:2048 -nodes -days 2 -config {name}.cnf"
               f" -keyout {name}.key -out {name}.pem")  # fmt: skip
    subprocess.run([program("openssl", "openssl"), *command.split()], cwd=folder, check=True,
                   capture_output=True)  # fmt: skip
    return folder / f"{name}.pem"


class Plant:
    """A server with lines of machines; `machines` are its objects by name."""

    def __init__(
        self,
        port: int,
        *,
        history: Path | None = None,
        listen: bool = True,
        security: Path | None = None,
    ) -> None:
        """`security`: a folder where certificates of both sides are put; only those who have one,
        and the password `right`, come in then.
        """
        self.port = port
        self._security = security
        self._history = history
        self._listens = listen
        self.server: Any = None
        self.index = 0

    async def start(self) -> Plant:
        users = None
        if self._security is not None:
            made = certificate_of(self._security, "operator", "urn:example.com:operator")
            users = _Users(uacrypto.der_from_x509(await uacrypto.load_certificate(made)))
        self.server = Server(user_manager=users)
        await self.server.init()
        self.server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}")
        if self._security is None:
            self.server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        else:
            await self._secure(self._security)
        if self._history is not None:
            storage = HistorySQLite(str(self._history))
            await storage.init()
            self.server.iserver.history_manager.set_storage(storage)
        if not self._listens:
            self.server.socket_address = ("127.0.0.1", free_port())
        self.index = await self.server.register_namespace(URI)
        await self.server.start()
        return self

    async def _secure(self, folder: Path) -> None:
        for name, uri in (("server", OWN), ("client", "urn:funicular:test")):
            certificate_of(folder, name, uri)
        await self.server.set_application_uri(OWN)
        await self.server.load_certificate(str(folder / "server.pem"))
        await self.server.load_private_key(str(folder / "server.key"), format="pem")
        kinds = ua.SecurityPolicyType
        self.server.set_security_policy(
            [kinds.Basic256Sha256_Sign, kinds.Basic256Sha256_SignAndEncrypt]
        )

    async def listen(self) -> None:
        """Be where clients look for it: until now it was somewhere else."""
        server = self.server
        await server.bserver.stop()
        server.bserver = BinaryServer(server.iserver, "127.0.0.1", self.port, server.limits)
        server.bserver.set_policies(server._policies)
        await server.bserver.start()

    async def stop(self) -> None:
        await self.server.stop()

    async def line(self, name: str) -> Any:
        return await self.server.nodes.objects.add_object(self.index, name)

    async def variable(self, parent: Any, name: str, value: Any, kind: Any = None) -> Any:
        own = ua.NodeId(f"{parent.nodeid.Identifier}.{name}", self.index)
        node = await parent.add_variable(own, ua.QualifiedName(name, self.index), value, kind)
        await node.set_writable()
        return node


class ToldLog(HeldLog):
    """One that is read by field."""

    def told(self) -> list[Any]:
        return [orjson.loads(body) for body in self.bodies()]

    def values(self, field: str) -> list[Any]:
        """Return all values of a field, whatever the device, in the order of arrival."""
        return [value.get("value") for body in self.told() for value in body["values"]
                if value["field"] == field]  # fmt: skip


def process_of(log: HeldLog, made: Integration, leases: Leases | None = None) -> Process:
    """Return a process that has the connection's lease; `leases` keeps the cursor for the next."""
    return Process(log, made, outside=Outside(leases or Leases(log)))


def plant_integration(port: int, **connection: Any) -> Integration:
    given = {"server": f"opc.tcp://127.0.0.1:{port}", "publishing_interval": "50ms",
             "browse": [{"path": "Objects/{line:Line*}/{device_id}/{field}"}],
             "connect_timeout": "3s", "keepalive": "1s", **connection}  # fmt: skip
    return integration("opcua", "opcua", **given)


@asynccontextmanager
async def plant(port: int = 0, **more: Any) -> AsyncIterator[Plant]:
    server = await Plant(port or free_port(), **more).start()
    try:
        yield server
    finally:
        await server.stop()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await work()

    asyncio.run(main())


async def _alone(port: int) -> None:
    """Be a plant in a process of its own, until it is ended."""
    server = await Plant(port).start()
    device = await (await server.line("Line1")).add_object(server.index, "d")
    count = await server.variable(device, "n", 0)
    number = 0
    while True:
        await asyncio.sleep(0.1)
        number += 1
        await count.write_value(number)


if __name__ == "__main__":
    asyncio.run(_alone(int(sys.argv[1])))
