"""A message of AMQP 0-9-1 → the Request that HTTP would bring. In: its exchange, routing key,
properties and body. Nothing of it is trusted: names and values are limited, and made text.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from pipeline.model.http import SOURCE_KEY, Request
from pipeline.rulebook.connections.amqp_keys import named_words

HEADERS_MAX = 50
HEADER_NAME_LENGTH_MAX = 100
HEADER_LENGTH_MAX = 1_024
_NEVER_KEPT = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", SOURCE_KEY})
_PROPERTIES = (
    "content_type", "content_encoding", "message_id", "correlation_id", "reply_to", "type",
    "app_id", "user_id", "timestamp", "priority",
)  # fmt: skip


def request_of(
    exchange: str, routing_key: str, properties: Any, body: bytes, template: str
) -> Request:
    """Return the request. Its query has `exchange`, `routing_key`, and the names of the
    template; its headers are the message's, and its properties as `message-id`, `app-id`, ….
    """
    query = named_words(template, routing_key) if template else {}
    query["exchange"] = exchange
    query["routing_key"] = routing_key
    headers = header_texts(properties.headers or {})
    for name in _PROPERTIES:
        value = getattr(properties, name, None)
        if value not in (None, ""):
            headers[name.replace("_", "-")] = text_of(value)
    return Request(body=body, query=query, headers=headers)


def header_texts(headers: Mapping[Any, Any]) -> dict[str, str]:
    """Return a message's own headers: names in lower case, values as text, the first of many."""
    kept: dict[str, str] = {}
    for name, value in headers.items():
        if len(kept) >= HEADERS_MAX:
            break
        lower = text_of(name)[:HEADER_NAME_LENGTH_MAX].lower()
        if lower and lower not in _NEVER_KEPT:
            kept[lower] = text_of(value)
    return kept


def text_of(value: Any) -> str:
    """Return any value of the protocol as text that JSON and UTF-8 can hold, cut to
    HEADER_LENGTH_MAX: bytes that are no text in hexadecimal, tables as JSON.
    """
    if isinstance(value, str):
        text = value
    elif isinstance(value, bytes | bytearray | memoryview):
        text = _text_of_bytes(bytes(value))
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, datetime):
        text = value.isoformat()
    elif isinstance(value, dict | list | tuple):
        text = _json(value)
    else:
        text = "" if value is None else str(value)
    return text[:HEADER_LENGTH_MAX].encode("utf-8", "replace").decode()


def _text_of_bytes(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value, default=text_of, option=orjson.OPT_NON_STR_KEYS).decode()
    except (TypeError, ValueError, RecursionError):  # deeper than JSON is written
        return ""
