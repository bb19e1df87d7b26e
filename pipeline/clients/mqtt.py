"""A client of an MQTT broker, as its config says: for what comes in and for what goes out.

In: `rulebook.mqtt_broker.MqttBrokerConfig`. Out: an aiomqtt client that is not connected yet. The
library is an extra, hence imported when it is needed.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from pipeline.errors import RetryableError
from pipeline.rulebook.connections.mqtt_broker import MqttBrokerConfig
from pipeline.rulebook.connections.sas import credentials
from pipeline.rulebook.connections.tls import tls_context

if TYPE_CHECKING:
    import aiomqtt

CLIENT_ID_LENGTH_MAX = 256
KEEPALIVE_PART = 0.75  # so that a broker counts as lost after 1.5 times `keepalive`


class BrokerError(RetryableError):
    """The broker cannot be reached, or broke off. The text holds no secret."""

    code = "broker"


def client_of(
    config: MqttBrokerConfig,
    client_id: str,
    *,
    session_expiry_s: float | None = None,
    receive_max: int | None = None,
    **more: Any,
) -> aiomqtt.Client:
    """Return a client; made on the loop that will use it.

    `session_expiry_s` None: the broker keeps no session of it; else so long (version 5), or as
    long as it likes (3.1.1). `receive_max`: QoS 1 messages that it may send before the first is
    acknowledged (version 5). `more` goes to aiomqtt. BrokerError: a certificate cannot be used.
    """
    import aiomqtt  # noqa: PLC0415 - an extra

    user, password = config.user, config.password and config.password.get_secret_value()
    if config.sas is not None:
        user, password = credentials(config.sas, config.host, client_id, time.time())
    v5 = config.version == "5"
    version = aiomqtt.ProtocolVersion.V5 if v5 else aiomqtt.ProtocolVersion.V311
    kept = session_expiry_s is not None
    session: dict[str, Any] = {"clean_session": not kept}
    if v5:
        properties = _properties(session_expiry_s, receive_max)
        session = {"clean_start": not kept, "properties": properties}
    return aiomqtt.Client(
        config.host,
        config.port,
        username=user or None,
        password=password or None,
        identifier=client_id[:CLIENT_ID_LENGTH_MAX],
        protocol=version,
        # The library asks after one such time for a sign of life, and gives up after another.
        keepalive=max(1, int(config.keepalive * KEEPALIVE_PART)),
        timeout=config.connect_timeout,
        tls_context=_tls(config),
        **session,
        **more,
    )


@asynccontextmanager
async def connected(client: aiomqtt.Client) -> AsyncIterator[None]:
    """Connect, and disconnect at the end. BrokerError: it cannot be made, or breaks meanwhile.

    A connection that is not wanted any more is ended for sure. The library connects in a thread,
    which goes on when its caller is gone; what came of it would hold the session, and nobody would
    read it.
    """
    import aiomqtt  # noqa: PLC0415 - an extra

    entering = asyncio.ensure_future(client.__aenter__())
    try:
        await asyncio.shield(entering)
    except asyncio.CancelledError:
        await asyncio.wait([entering])
        if entering.exception() is None:
            await _leave(client)
        else:
            client._client.disconnect()  # noqa: SLF001
        raise
    except aiomqtt.MqttError as error:
        # The library leaves a connection open that got no answer in time.
        client._client.disconnect()  # noqa: SLF001
        raise BrokerError(said(error)) from None
    try:
        yield
    except aiomqtt.MqttError as error:
        raise BrokerError(said(error)) from None
    finally:
        await _leave(client)


async def _leave(client: aiomqtt.Client) -> None:
    import aiomqtt  # noqa: PLC0415 - an extra

    # An error says that it is gone already, which is what is wanted.
    with suppress(aiomqtt.MqttError):
        await client.__aexit__(None, None, None)


def said(error: Exception) -> str:
    """Return the library's words as a sentence; they hold codes and addresses, no secrets."""
    return f"the connection to the broker failed: {str(error) or type(error).__name__}"


class _Socket(ssl.SSLSocket):
    """One that does not stay open where the handshake fails: the library forgets it then."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise


def _properties(session_expiry_s: float | None, receive_max: int | None) -> Any:
    from paho.mqtt.packettypes import PacketTypes  # noqa: PLC0415 - an extra
    from paho.mqtt.properties import Properties  # noqa: PLC0415 - an extra

    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    if session_expiry_s is not None:
        properties.SessionExpiryInterval = round(session_expiry_s)
    if receive_max is not None:
        properties.ReceiveMaximum = receive_max
    return properties


def _tls(config: MqttBrokerConfig) -> ssl.SSLContext | None:
    if not config.secure:
        return None
    try:
        context = tls_context(config.tls)
    except RetryableError as error:
        raise BrokerError(error.message) from None
    context.sslsocket_class = _Socket
    return context
