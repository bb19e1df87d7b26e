"""A record of another system's Kafka → the Request that HTTP would bring.

In: topic, partition, offset, key, headers, value. Nothing of it is trusted: any producer may have
written it, so names and values are limited, and made text. Out: the request, whose query says where
the record was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from pipeline.integrations.dialect import OverMqtt, usual_transport
from pipeline.model.http import SOURCE_KEY, Request
from pipeline.rulebook.book import Integration

KEY_LENGTH_MAX = 1_024
HEADERS_MAX = 64
HEADER_NAME_LENGTH_MAX = 128
HEADER_LENGTH_MAX = 1_024
_NEVER_KEPT = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key", SOURCE_KEY})
_EVENT = "event"  # ChirpStack's header, whatever its key


class SourceRecord(Protocol):
    """A record as aiokafka gives it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Iterable[tuple[str, bytes | None]]


def request_of(record: SourceRecord, integration: Integration, cluster: str) -> Request | None:
    """Return the request; None: the record's key says that it is of no device (`mqtt` alone).

    Its query has `topic`, `partition`, `offset`, `key`, and what a dialect reads in the key, as in
    a topic of MQTT: with slashes, or with dots for them, as ChirpStack writes its keys. Its headers
    are the record's, names in lower case.
    """
    key = text_of(record.key)[:KEY_LENGTH_MAX]
    body = record.value or b""
    place = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "key": key,
    }
    headers, left_out = headers_of(record.headers)
    if left_out:
        place["headers_left_out"] = str(left_out)
    request = Request(body=body)
    dialect: Any = integration.dialect
    if isinstance(dialect, OverMqtt):
        made = dialect.from_topic(_as_topic(key), body, integration.options)
        if made is not None:
            request = made
        elif usual_transport(integration.dialect) == "mqtt":
            return None
        elif _EVENT in headers:
            place[_EVENT] = headers[_EVENT]
    known = f"{cluster}/{record.topic}/{record.partition}/{record.offset}"
    return msgspec.structs.replace(
        request,
        query={**place, **request.query},
        headers={**request.headers, **headers, SOURCE_KEY: known},
    )


def _as_topic(key: str) -> str:
    return key if "/" in key else key.replace(".", "/")


def headers_of(headers: Iterable[tuple[str, bytes | None]]) -> tuple[dict[str, str], int]:
    """Return a record's headers as text, of a name that comes twice the last; and how many were
    left out: secrets of others, names without a sign, and what is over the limits.
    """
    kept: dict[str, str] = {}
    left_out = 0
    for given, value in headers:
        name = given.lower()
        long = len(name) > HEADER_NAME_LENGTH_MAX or len(value or b"") > HEADER_LENGTH_MAX
        full = len(kept) >= HEADERS_MAX and name not in kept
        if not name or long or full or name in _NEVER_KEPT:
            left_out += 1
            continue
        kept[name] = text_of(value)
    return kept, left_out


def text_of(value: bytes | None) -> str:
    """Return bytes as text; what is no UTF-8 has stand-ins."""
    return "" if value is None else value.decode("utf-8", "replace")
