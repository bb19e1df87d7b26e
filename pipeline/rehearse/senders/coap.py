"""A sample posted to an integration's own CoAP server, as a device would."""

from __future__ import annotations

import asyncio
from typing import Any

from pipeline.model.http import Request
from pipeline.rehearse.senders.raw import address_of
from pipeline.rehearse.senders.sender import NotSentError
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.coap_server import CoapServerConfig, psk_credentials

WAIT_S = 30.0


async def send(integration: Integration, device_id: str, request: Request) -> bytes:
    """See `sender.Sender`. Returns the code of the answer, and its payload."""
    import aiocoap  # noqa: PLC0415 - an extra

    config: CoapServerConfig = integration.connection
    dtls = config.dtls is not None
    host = address_of(config)
    host = f"[{host}]" if ":" in host else host
    message = aiocoap.Message(
        code=aiocoap.Code.POST,
        uri=f"coap{'s' if dtls else ''}://{host}:{config.port}",
        payload=request.body,
        content_format=_format(request.headers.get("content-type", "")),
    )
    path = (config.path or integration.name).split("/")
    token = config.of(device_id)
    message.opt.uri_path = (*path, device_id, *([token] if token else []))
    transport = "tinydtls" if dtls else "udp6"
    client = await aiocoap.Context.create_client_context(transports=[transport])
    if config.dtls is not None:
        (first, *_) = psk_credentials(config.dtls).values()
        client.client_credentials.load_from_dict({f"{message.get_request_uri()}*": first})
        client.client_credentials.load_from_dict({f"coaps://{host}:{config.port}/*": first})
    try:
        async with asyncio.timeout(WAIT_S):
            answer = await client.request(message).response
    except (TimeoutError, aiocoap.error.Error, OSError) as error:
        raise NotSentError(f"the server cannot be reached: {error}") from None
    finally:
        await client.shutdown()
    shown = str(answer.code).encode()
    said: bytes = answer.payload
    if not answer.code.is_successful():
        raise NotSentError(f"{shown.decode()} {said.decode(errors='replace')}".rstrip())
    return shown + (b" " + said if said else b"")


def _format(content_type: str) -> Any:
    from aiocoap.numbers import ContentFormat  # noqa: PLC0415 - an extra

    try:
        return ContentFormat.by_media_type(content_type)
    except KeyError:
        return ContentFormat.OCTETSTREAM


SENDER = send
