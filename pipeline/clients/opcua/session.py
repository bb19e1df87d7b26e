"""A session with an OPC-UA server, as its config says.

In: `rulebook.opcua_server.OpcuaSourceConfig`. Out: a Session that is connected, and that tells when
it no longer is; the server's own limits of one request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from asyncua import Client, ua
from asyncua.crypto import security_policies, uacrypto
from cryptography import x509

from pipeline.errors import RetryableError
from pipeline.rulebook.connections.opcua_server import OpcuaSourceConfig, UserCertificateConfig

NAMESPACE = "nsu="
OWN_URI = "urn:funicular"
BATCH_MAX = 500  # of one request, where the server allows more or does not say
MESSAGE_BYTES_MAX = 64 * 1024 * 1024  # which the server is asked to keep to
_MODES = {
    "sign": ua.MessageSecurityMode.Sign,
    "sign_and_encrypt": ua.MessageSecurityMode.SignAndEncrypt,
}
_LIMITS = {
    "browse": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
    "read": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    "write": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerWrite,
    "watch": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
    "history": ua.ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData,
}
_ERROR_LENGTH_MAX = 300
Item = TypeVar("Item")

# The library logs, with tracebacks, what it also raises; a fault is told once, by who caught it.
logging.getLogger("asyncua").setLevel(logging.CRITICAL + 1)


class ServerError(RetryableError):
    """The server cannot be reached, or broke off, or does not do what is asked of it. The text
    holds no secret.
    """

    code = "server"


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn whatever the library raises while it is asked for `what` into ServerError: what a
    server sends may make it raise anything, as it reads structures by their declared types.
    """
    try:
        yield
    except ServerError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        raise ServerError(f"{what}: {said(error)}") from None


def said(error: Exception) -> str:
    """Return the library's words; they hold codes and addresses, no secrets."""
    if isinstance(error, ua.UaStatusCodeError):
        name, about = ua.status_codes.get_name_and_doc(error.code)
        return f"{name} ({about.rstrip('.')})"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (str(error) or type(error).__name__)[:_ERROR_LENGTH_MAX]


def in_batches(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    """Yield the items, `most` at a time."""
    for first in range(0, len(items), most):
        yield items[first : first + most]


class Session:
    """One connection. `lost` has an exception once it is gone."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._limits: dict[str, int] = {}
        self._namespaces: list[str] = []
        client.connection_lost_callback = self._lose

    async def _lose(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_exception(ServerError(f"the connection is lost: {said(error)}"))
            self.lost.exception()  # whoever is interested looks; nobody need

    async def look(self) -> None:
        """Learn the server's namespaces and its limits of one request. ServerError: not now."""
        with asking("the server does not say what it is"):
            self._namespaces = await self.client.get_namespace_array()
            nodes = [ua.NodeId(each) for each in _LIMITS.values()]
            values = await self.client.uaclient.read_attributes(nodes, ua.AttributeIds.Value)
        for name, value in zip(_LIMITS, values, strict=False):
            given = value.Value.Value if value.Value is not None else None
            if isinstance(given, int) and given > 0:
                self._limits[name] = min(given, BATCH_MAX)

    def limit(self, what: str) -> int:
        """Return how many nodes one request may name."""
        return self._limits.get(what, BATCH_MAX)

    def node_id(self, text: str) -> ua.NodeId:
        """Return a node's id of its text. ServerError: the server has no such namespace, or it is
        none.
        """
        if text.startswith(NAMESPACE):
            uri, _, rest = text.removeprefix(NAMESPACE).partition(";")
            if uri not in self._namespaces:
                raise ServerError(f"the server has no namespace {uri}")
            text = f"ns={self._namespaces.index(uri)};{rest}"
        with asking(f"`{text}` is no node's id"):
            return ua.NodeId.from_string(text)


@asynccontextmanager
async def connected(config: OpcuaSourceConfig, name: str) -> AsyncIterator[Session]:
    """Connect, and disconnect at the end. `name` is who we are to the server. ServerError: it
    cannot be made.
    """
    client = Client(
        config.server, timeout=config.connect_timeout, watchdog_intervall=config.keepalive
    )
    client.name = client.description = name
    client.application_uri = OWN_URI
    client.max_messagesize = MESSAGE_BYTES_MAX
    client.session_timeout = round(config.session_timeout * 1_000)
    session = Session(client)
    try:
        with asking("the connection to the server failed"):
            await _introduce(client, config)
            await client.connect()
        await session.look()
    except BaseException:
        await _leave(client, config.connect_timeout)
        raise
    try:
        yield session
    finally:
        await _leave(client, config.connect_timeout)


async def _introduce(client: Client, config: OpcuaSourceConfig) -> None:
    if config.user:
        client.set_user(config.user)
    if config.password is not None:
        client.set_password(config.password.get_secret_value())
    if config.user_certificate is not None:
        await _prove(client, config.user_certificate)
    security = config.security
    if security is None:
        return
    policy: Any = getattr(security_policies, f"SecurityPolicy{security.policy}")
    own = _file(security.certificate_file)
    # Servers compare what we call ourselves with what our certificate says.
    certificate = await uacrypto.load_certificate(own.path_or_content, own.extension)
    client.application_uri = _uri_of(certificate)
    key = _file(security.key_file)
    if security.key_password is not None:
        key.password = security.key_password.get_secret_value()
    theirs = security.server_certificate_file
    await client.set_security(
        policy,
        own,
        key,
        server_certificate=_file(theirs) if theirs else None,
        mode=_MODES[security.mode],
    )


async def _prove(client: Client, user: UserCertificateConfig) -> None:
    shown, key = _file(user.certificate_file), _file(user.key_file)
    password = user.key_password
    client.user_certificate = await uacrypto.load_certificate(
        shown.path_or_content, shown.extension
    )
    client.user_private_key = await uacrypto.load_private_key(
        key.path_or_content, password.get_secret_value() if password else None, key.extension
    )


def _file(path: str) -> uacrypto.CertProperties:
    """Return a file's content and what it is, which its name need not say."""
    content = Path(path).read_bytes()
    kind = "pem" if content.lstrip().startswith(b"-----BEGIN") else "der"
    return uacrypto.CertProperties(content, kind)


def _uri_of(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return OWN_URI
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if uris else OWN_URI


async def _leave(client: Client, timeout_s: float) -> None:
    """Let go, whatever the other side does."""
    try:
        async with asyncio.timeout(timeout_s):
            await client.disconnect()
    except TimeoutError:
        pass  # it says nothing any more; what is left of the session ends by its own time
    finally:
        client.disconnect_socket()
