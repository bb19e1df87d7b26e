"""One record of `uplink.received`, read: whose it is, what its uplinks are, who waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b

import msgspec

from pipeline.errors import MessageError
from pipeline.model.http import SOURCE_KEY, Request
from pipeline.model.record import (
    CE_ID,
    CE_INTEGRATION,
    CE_TENANT,
    CONTENT_TYPE,
    HTTP_HEADERS,
    HTTP_METHOD,
    HTTP_QUERY,
    ID_LENGTH_MAX,
    REPLAY,
    REPLAY_PART,
    REPLY_TO,
    Record,
)
from pipeline.model.reply import ReplyTo, read_reply_to
from pipeline.model.uplink import Uplink
from pipeline.ports import ScriptCall
from pipeline.rulebook.book import Integration, Rulebook

_decode_map = msgspec.json.Decoder(dict[str, str]).decode


class Received:
    """One record on its way through: what it says, and the script calls of each of its uplinks."""

    __slots__ = (
        "book", "calls", "converters", "fault", "faults", "integration", "places", "record",
        "reply_to", "trace", "uplinks",
    )  # fmt: skip

    def __init__(self, record: Record) -> None:
        self.record = record
        self.trace = _trace(record)
        self.reply_to = _reply_to(record)
        self.fault: MessageError | None = None
        self.uplinks: list[Uplink] = []
        self.converters: list[str | None] = []  # of each uplink, by name
        self.calls: list[ScriptCall | None] = []
        self.places: list[int] = []  # of each call in the batch's calls; -1: none
        self.faults: dict[int, MessageError] = {}  # of single uplinks, by their index
        self.integration: Integration  # set once it is found; without it there are no uplinks
        self.book: Rulebook | None = None


def read(work: Received, books: Mapping[str, Rulebook], default: str = "") -> Rulebook:
    """Find the record's integration, read its uplinks, and return its rulebook.

    Its headers say whose it is, else its key, else it belongs to `default` (`tenant/integration`).
    MessageError: there is no such integration, or the bytes are not what its dialect reads.
    """
    record = work.record
    headers = record.headers
    hint_tenant, _, hint = record.key.partition("/")
    tenant = headers.get(CE_TENANT) or hint_tenant
    name = headers.get(CE_INTEGRATION) or hint
    book, integration = _find(books, tenant, name)
    if integration is None and default and not headers.get(CE_INTEGRATION):
        default_tenant, _, default_name = default.partition("/")
        if headers.get(CE_TENANT, default_tenant) == default_tenant:
            book, integration = _find(books, default_tenant, default_name)
    if book is None or integration is None:
        raise MessageError(
            f"tenant `{tenant}` has no integration `{name}`; a record says whose it is by the"
            f" headers {CE_TENANT} and {CE_INTEGRATION}, or by the key tenant/integration",
            code="no_integration",
            tenant=tenant,
            integration=name,
        )
    work.book, work.integration = book, integration
    request = request_of(record)
    key = request.headers.get(SOURCE_KEY, "")
    if key:
        kept = {name: text for name, text in request.headers.items() if name != SOURCE_KEY}
        request = msgspec.structs.replace(request, headers=kept)
    uplinks = integration.dialect.read(request, integration.options, integration.device_template)
    work.uplinks = _known_by(key, uplinks) if key else uplinks
    return book


def _known_by(key: str, uplinks: list[Uplink]) -> list[Uplink]:
    """Return uplinks that are known again by what their source says, where their dialect cannot
    tell; each of several by its place.
    """
    return [
        up if up.repeat_key else msgspec.structs.replace(up, repeat_key=f"{key}#{index}")
        for index, up in enumerate(uplinks)
    ]


def _find(
    books: Mapping[str, Rulebook], tenant: str, name: str
) -> tuple[Rulebook | None, Integration | None]:
    book = books.get(tenant)
    return book, book.integrations.get(name) if book is not None else None


def _trace(record: Record) -> str:
    """Return the id that all that comes of a record is traced by: its CloudEvents id."""
    given = record.headers.get(CE_ID)
    if not given:
        return f"{record.topic}-{record.partition}-{record.offset}"
    if len(given) <= ID_LENGTH_MAX:
        return given
    return blake2b(given.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _reply_to(record: Record) -> ReplyTo | None:
    """Return who waits. Nobody waits for a replay any more: its request was answered long ago."""
    return None if REPLAY in record.headers else read_reply_to(record.headers.get(REPLY_TO))


def part_of(record: Record) -> int | None:
    """Return which uplink of its batch a replay is for; None: all of them."""
    text = record.headers.get(REPLAY_PART)
    if text is None:
        return None
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def request_of(record: Record) -> Request:
    """Return the request as it came to the door; a Kafka producer's record is a POST."""
    get = record.headers.get
    return Request(
        record.value or b"",
        get(HTTP_METHOD, "POST"),
        _map(HTTP_QUERY, get(HTTP_QUERY, "")),
        _sent(get(HTTP_HEADERS, ""), get(CONTENT_TYPE)),
    )


@lru_cache(maxsize=1024)
def _sent(text: str, content_type: str | None) -> dict[str, str]:
    """Return the request's headers; as with `_map`, nobody changes them."""
    sent = _map(HTTP_HEADERS, text)
    if content_type is not None and "content-type" not in sent:
        return {**sent, "content-type": content_type}
    return sent


@lru_cache(maxsize=1024)
def _map(name: str, text: str) -> dict[str, str]:
    """Return a header's JSON object. The same one again and again, mostly; nobody changes it."""
    if not text:
        return {}
    try:
        return _decode_map(text)
    except (msgspec.DecodeError, UnicodeError) as fault:
        raise MessageError(
            f"the record's header {name} is not a JSON object of texts: {fault}",
            code="field",
            field=name,
        ) from None
