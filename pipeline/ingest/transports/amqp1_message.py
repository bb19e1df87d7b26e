"""A message of AMQP 1.0 → the Request that HTTP would bring. In: its bytes, where they are from.

Nothing of it is trusted: names and values are limited, and made text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec
import orjson

from pipeline.errors import MessageError
from pipeline.integrations.dialect import OverMqtt
from pipeline.model.http import SOURCE_KEY, Request
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.amqp_keys import topic_of

from .amqp_message import header_texts, text_of

_DATA = b"\x00\x53\x75"  # how a section of data begins
_BODIES = (0x75, 0x76, 0x77)  # data, sequence, value
_SEQUENCE, _OFFSET = "x-opt-sequence-number", "x-opt-offset"
_NO_SYMBOL = "None"  # how the library reads a content type that is not there
_PROPERTIES = (
    ("content-type", "content_type"), ("content-encoding", "content_encoding"),
    ("message-id", "id"), ("correlation-id", "correlation_id"), ("reply-to", "reply_to"),
    ("user-id", "user_id"), ("group-id", "group_id"),
)  # fmt: skip


class Read(msgspec.Struct, frozen=True):
    """A message that was read. `offset`: of an event hub's, where its partition goes on after.
    `number`: the service's own of the message, the same whenever it comes again, or empty.
    """

    body: bytes
    query: dict[str, str]
    headers: dict[str, str]
    offset: str = ""
    number: str = ""


def read(data: bytes, address: str, partition: str = "") -> Read:
    """Return the message. MessageError (`not_amqp`): it is none."""
    message = _decoded(data)
    annotations = message.annotations or {}
    headers = header_texts(annotations)
    headers |= header_texts(message.properties or {})
    for name, attribute in _PROPERTIES:
        value = getattr(message, attribute)
        if value not in (None, "", b"", _NO_SYMBOL):
            headers[name] = text_of(value if not isinstance(value, UUID) else str(value))
    offset = text_of(annotations.get(_OFFSET, ""))
    number = text_of(annotations.get(_SEQUENCE, "")) or offset
    body, content_type = _body(message)
    if content_type:
        headers.setdefault("content-type", content_type)
    query = {"address": address}
    if partition:
        query["partition"] = partition
    for name in ("subject", "address"):
        if value := text_of(getattr(message, name)):
            query["to" if name == "address" else name] = value
    return Read(body, query, headers, offset, number)


def request_of(made: Read, integration: Integration, topic_property: str) -> Request | None:
    """Return the request; None: its topic says nothing of a device."""
    known = {}
    if made.number:
        known = {SOURCE_KEY: f"{integration.connection.host}/{made.query['address']}/{made.number}"}
    dialect: Any = integration.dialect
    if not isinstance(dialect, OverMqtt):
        return Request(body=made.body, query=made.query, headers=made.headers | known)
    named = made.query.get(topic_property, "")
    topic = (named if "/" in named else topic_of(named) or "").lstrip("/")
    request: Request | None = dialect.from_topic(topic, made.body, integration.options)
    if request is None or not known:
        return request
    return msgspec.structs.replace(request, headers=request.headers | known)


def _decoded(data: bytes) -> Any:
    import proton  # noqa: PLC0415 - an extra

    message = proton.Message()
    try:
        message.decode(data)
        # The library is lenient, and knows one section of data: where that may matter, look again.
        if type(message.body) not in {memoryview, str} or data.count(_DATA) > 1:
            message.body = _strict_body(data)
    except (
        proton.ProtonException, ValueError, TypeError, LookupError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        raise MessageError(
            f"it is no AMQP 1.0 message: {str(error)[:200]}", code="not_amqp"
        ) from None
    return message


def _strict_body(data: bytes) -> Any:
    """Return the body of all its sections. ValueError, DataException: it is no message."""
    import proton  # noqa: PLC0415 - an extra

    found: list[tuple[int, Any]] = []
    place = 0
    while place < len(data):
        section = proton.Data()
        place += section.decode(data[place:])
        section.rewind()
        section.next()
        value: Any = section.get_object()
        if not isinstance(value, proton.Described):
            raise ValueError("a section has no name")  # noqa: TRY004 - what is wrong is the bytes
        kind: Any = value.descriptor
        if kind in _BODIES:
            found.append((int(kind), _copied(value.value)))
    if not found:
        return None
    kinds = {each for each, _ in found}
    if kinds == {_BODIES[0]}:
        return b"".join(value for _, value in found)
    if kinds == {_BODIES[1]}:
        return [item for _, value in found for item in value]
    if len(found) > 1:
        raise ValueError("it has several bodies")
    return found[0][1]


def _copied(value: Any) -> Any:
    """Return a value that outlives what it was decoded from: the library's bytes do not."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {_copied(key): _copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(each) for each in value]
    return value


def _body(message: Any) -> tuple[bytes, str]:
    """Return the body's bytes, and the content type that goes without saying."""
    body = message.body
    if body is None:
        return b"", ""
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), ""
    if isinstance(body, str):
        return str(body).encode("utf-8", "replace"), ""
    try:
        text = orjson.dumps(_plain(body), default=_plain, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError) as error:
        raise MessageError(f"its body cannot be JSON: {error}", code="not_amqp") from None
    return text, "application/json"


def _plain(value: Any) -> Any:
    """Return a value of the protocol as one of JSON."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    described = getattr(value, "value", None)
    return described if described is not None else text_of(value)
