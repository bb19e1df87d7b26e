"""What a log holds: records, read and to be written, and the names of their headers.

Header values are text. On `uplink.received` they are CloudEvents' binary mode, so that any
producer can write there;
on every other topic the short names below.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

# CloudEvents 1.0, Kafka protocol binding, binary content mode: attributes are headers with `ce_`.
CE_SPECVERSION = "ce_specversion"
CE_ID = "ce_id"
CE_SOURCE = "ce_source"
CE_TYPE = "ce_type"
CE_TIME = "ce_time"
CE_TENANT = "ce_tenant"
CE_INTEGRATION = "ce_integration"
CONTENT_TYPE = "content-type"
UPLINK_RECEIVED_TYPE = "funicular.uplink.received"

# What else an HTTP request said, for dialects that need it. Query and headers are JSON objects.
HTTP_METHOD = "http_method"
HTTP_QUERY = "http_query"
HTTP_HEADERS = "http_headers"

EVENT_ID = "id"  # this record's own id, derived from its cause
TRACE_ID = "trace"  # the uplink's or command's id that all this came from
CAUSE_ID = "cause"  # the id of the record that made this one
TENANT = "tenant"
RULES_VERSION = "rules"
SCHEMA_VERSION = "schema"
REPLY_TO = "reply_to"  # who waits for an answer: `model.reply.ReplyTo` as JSON
REPEAT_KEY = "repeat"  # the network server's own key for this message
REPEAT_ALSO = "repeat_also"  # a second key for it, where there is one
REPLAY = "replay"  # a dead letter sent again: the id of the dead letter; passes by the repeat check
REPLAY_CHAIN = "replay_chain"  # a replay for this one chain: the others have had the message
REPLAY_PART = "replay_part"  # a replay of this one message of a batch: the others were handled

SCHEMA = "1"
ID_LENGTH_MAX = 64  # The Things Stack takes correlation ids up to 100; ours go there with a prefix.


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record as read from a log. `time_ms` is when it was appended, epoch milliseconds."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: str
    value: bytes | None
    headers: dict[str, str]


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One record to append. `partition` None: the partitioner chooses by the key."""

    topic: str
    key: str
    value: bytes | None
    headers: dict[str, str]
    partition: int | None = None


def device_key(tenant: str, device: str) -> str:
    """Return the record key of a device: `tenant/device`. Tenants have no slash; devices may."""
    return f"{tenant}/{device}"


def split_key(key: str) -> tuple[str, str]:
    """Return tenant and device of a record key; the device is empty where there is none."""
    tenant, _, device = key.partition("/")
    return tenant, device


def derive_id(cause: str, tag: str) -> str:
    """Return the id of what `cause` made: the same cause and tag give the same id, always.

    Readable while short (`0197….0.d1`); past `ID_LENGTH_MAX` the head becomes a hash, so ids
    never grow.
    """
    derived = f"{cause}.{tag}"
    if len(derived) <= ID_LENGTH_MAX:
        return derived
    return f"{blake2b(cause.encode(), digest_size=16).hexdigest()}.{tag}"[:ID_LENGTH_MAX]


def headers_of(
    *,
    event_id: str,
    trace: str,
    cause: str,
    tenant: str,
    rules: str,
) -> dict[str, str]:
    """Return the headers that every record past `uplink.received` carries."""
    return {
        EVENT_ID: event_id,
        TRACE_ID: trace,
        CAUSE_ID: cause,
        TENANT: tenant,
        RULES_VERSION: rules,
        SCHEMA_VERSION: SCHEMA,
    }
