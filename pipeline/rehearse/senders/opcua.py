"""A sample written to a server's nodes, as the machine itself would change them.

Only fields of the message that the device has nodes for are written: of the dialect's sample
`counter` and `payload`, so that no machine is set to something by mistake.
"""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from pipeline.errors import MessageError
from pipeline.integrations.document import convert, parse_object
from pipeline.integrations.opcua import Body
from pipeline.model.http import Request
from pipeline.rehearse.senders.sender import NotSentError
from pipeline.rulebook.book import Integration


async def write_sample(integration: Integration, device_id: str, request: Request) -> bytes:
    """See `sender.Sender`. What is shown are the nodes that were written."""
    from pipeline.clients.opcua.nodes import discover  # noqa: PLC0415 - an extra
    from pipeline.clients.opcua.session import ServerError, connected  # noqa: PLC0415
    from pipeline.clients.opcua.writes import Kinds, write  # noqa: PLC0415

    config: Any = integration.connection
    try:
        body = convert(parse_object(request.body), Body)
        device = device_id or body.device
        async with connected(config, f"funicular-send-{token_hex(4)}") as session:
            found = await discover(session, config)
            nodes = {node.field: node for node in found.nodes.values() if node.device == device}
            values = {value.field: value.value for value in body.values if value.field in nodes}
            if not values:
                raise NotSentError(_nothing(body, device, list(nodes)))
            status = await write(session, Kinds(session), values, nodes)
    except ServerError as error:
        raise NotSentError(error.message) from None
    except MessageError as error:
        raise NotSentError(error.message) from None
    bad = [f"{field}: {said}" for field, said in status.items() if said.startswith("Bad")]
    if bad:
        raise NotSentError(f"the server did not write {', '.join(bad)}")
    return ", ".join(nodes[field].key for field in values).encode()


def _nothing(body: Body, device: str, fields: list[str]) -> str:
    asked = ", ".join(sorted({value.field for value in body.values}))
    has = ", ".join(sorted(fields)[:20]) or "none"
    return f"the server has no node for {asked} of the device {device!r}; it has {has}"


SENDER = write_sample
