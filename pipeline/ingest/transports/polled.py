"""What a poll asks and what it makes of the answers: no I/O, no clock.

In: an integration's `connection:` with `transport: poll`, the cursor, the time, an answer. Out: the
next request; an answer's messages, each with what it is known by; the next cursor and page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec
import orjson

from pipeline.errors import ExpressionError, MessageError
from pipeline.ingest.source import SourceError
from pipeline.integrations.dialect import Stored
from pipeline.integrations.document import digest, parse
from pipeline.model.http import SOURCE_KEY, Call, Request, Response
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.polled_api import PollConfig, answer_expression, asking_value

_JSON = {"content-type": "application/json"}


class Message(NamedTuple):
    """One message of an answer. `known_by` is the same for one that is the same."""

    request: Request
    known_by: str


class Answer(NamedTuple):
    """What an answer says. `cursor` None: nothing new of it; `page` None: it was the last one."""

    messages: Sequence[Message]
    cursor: Any = None
    page: Any = None


class State(msgspec.Struct, frozen=True):
    """What is kept between rounds: the cursor, the `start` that it began with, and by what the last
    messages are known.
    """

    cursor: Any = None
    start: Any = None
    seen: tuple[str, ...] = ()

    def with_messages(self, messages: Iterable[Message], most: int) -> State:
        """Return the state after these messages."""
        seen = (*self.seen, *(message.known_by for message in messages))
        return msgspec.structs.replace(self, seen=seen[-most:] if most else ())


class Plan(Protocol):
    """How one API is asked, and read."""

    def call(self, cursor: Any, page: Any, now_ms: int) -> Call:
        """Return the next request. SourceError: its expressions fail."""
        ...

    def read(self, response: Response, cursor: Any, page: Any) -> Answer:
        """Return what a 2xx answer says. SourceError: it is not what is expected."""
        ...


def plan_of(integration: Integration) -> Plan:
    """Return the plan of an integration."""
    config: PollConfig = integration.connection
    return StoragePlan(integration) if config.storage else ApiPlan(integration)


def kept_state(kept: Any, start: Any) -> State:
    """Return the state as it was kept; the first one where there is none, or where the user began
    anew with another `start`.
    """
    try:
        state = msgspec.convert(kept, State)
    except msgspec.ValidationError:  # nothing, or what another release kept
        return State(start, start)
    return state if state.start == start else State(start, start)


class ApiPlan:
    """Any API, by the user's expressions."""

    def __init__(self, integration: Integration) -> None:
        config: PollConfig = integration.connection
        self._config = config
        self._name = integration.name
        self._query = asking_value(config.query)
        self._body = None if config.body is None else asking_value(config.body)
        self._items = answer_expression(config.items, with_items=False)
        self._cursor = answer_expression(config.cursor, with_items=True) if config.cursor else None
        self._next = answer_expression(config.next, with_items=True) if config.next else None
        headers = {name.lower(): text.get_secret_value() for name, text in config.headers.items()}
        if config.secret:
            headers.setdefault("authorization", f"Bearer {config.secret}")
        self._headers = {"accept": "application/json", **headers}

    def call(self, cursor: Any, page: Any, now_ms: int) -> Call:
        """See `Plan`."""
        config = self._config
        if isinstance(page, str) and page.startswith(("http://", "https://")):
            url, query = self._same_origin(page), {}
        else:
            now = datetime.fromtimestamp(now_ms / 1_000, UTC)
            scope = {"cursor": cursor, "page": page, "now": now}
            try:
                query = self._query(scope)
                body = b"" if self._body is None else orjson.dumps(self._body(scope))
            except ExpressionError as error:
                raise SourceError(f"the request cannot be made: {error.message}") from None
            url = config.url
        given = {name: _text(value) for name, value in query.items() if value is not None}
        if given:
            url += ("&" if urlsplit(url).query else "?") + urlencode(given)
        headers = self._headers
        if config.method == "POST":
            headers = {**_JSON, **headers}
        else:
            body = b""
        return Call(url=url, body=body, method=config.method, headers=headers)

    def _same_origin(self, page: str) -> str:
        """Return the next page's address. SourceError: our key would go to another server."""
        ours, theirs = urlsplit(self._config.url), urlsplit(page)
        if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
            raise SourceError(
                f"the next page is at another server, {theirs.netloc[:200]!r}: it is not asked"
            )
        return page

    def read(self, response: Response, cursor: Any, page: Any) -> Answer:
        """See `Plan`."""
        try:
            body, broken = _document(response.body, lines=self._config.lines)
        except MessageError as error:
            raise SourceError(f"the answer cannot be read: {error.message}") from None
        scope = {"body": body, "headers": response.headers, "cursor": cursor, "page": page}
        try:
            found = self._items(scope)
            items = found if isinstance(found, list) else [] if found is None else [found]
            scope["items"] = items
            following = None if self._next is None else self._next(scope)
            reached = self._reached(scope, items)
        except ExpressionError as error:
            raise SourceError(f"the answer is not as expected: {error.message}") from None
        messages = [
            self._message(orjson.dumps(item, option=orjson.OPT_SORT_KEYS)) for item in items
        ]
        messages += [self._message(line) for line in broken]
        return Answer(messages, reached, following or None)

    def _reached(self, scope: dict[str, Any], items: list[Any]) -> Any:
        if self._cursor is None:
            return None
        try:
            return self._cursor(scope)
        except ExpressionError:
            if items:
                raise
            return None  # Of what is not there, nothing can be told.

    def _message(self, body: bytes) -> Message:
        known_by = digest("", body)[:16]
        headers = _JSON
        if self._config.remember:
            headers = {**_JSON, SOURCE_KEY: f"{self._name}/{known_by}"}
        return Message(Request(body=body, headers=headers), known_by)


class StoragePlan:
    """Where a network server keeps messages, as its dialect knows it; the cursor is the time of the
    latest, epoch milliseconds.
    """

    def __init__(self, integration: Integration) -> None:
        config: PollConfig = integration.connection
        self._config = config
        self._options = integration.options
        dialect: Any = integration.dialect
        assert isinstance(dialect, Stored), "`check` saw to it"
        self._dialect = dialect

    def call(self, cursor: Any, page: Any, now_ms: int) -> Call:
        """See `Plan`."""
        config = self._config
        since_ms = now_ms - round(config.back * 1_000)
        if page is not None:
            since_ms = page
        elif cursor is not None:
            since_ms = cursor - round(config.overlap * 1_000)
        asked = self._dialect.ask_stored(
            config.storage.rstrip("/"), config.secret, since_ms, now_ms, self._options
        )
        given = {name.lower(): text.get_secret_value() for name, text in config.headers.items()}
        return msgspec.structs.replace(asked, headers={**asked.headers, **given})

    def read(self, response: Response, cursor: Any, page: Any) -> Answer:
        """See `Plan`."""
        try:
            kept = self._dialect.read_stored(response, self._options)
        except MessageError as error:
            raise SourceError(f"the answer cannot be read: {error.message}") from None
        messages = [Message(each.request, digest("", each.request.body)[:16]) for each in kept]
        times = [each.time_ms for each in kept if each.time_ms is not None]
        latest = max(times, default=None)
        # A full page is followed by another, from its latest message on.
        full = 0 < self._dialect.stored_page <= len(kept)
        following = latest if full and latest != page else None
        if latest is not None and cursor is not None:
            latest = max(latest, cursor)
        return Answer(messages, latest, following)


def _document(body: bytes, *, lines: bool) -> tuple[Any, list[bytes]]:
    """Return an answer's JSON, and what of its lines is none: dead letters, which stop nobody."""
    if not lines:
        return (parse(body) if body.strip() else None), []
    good, broken = [], []
    for line in body.splitlines():
        text = line.removeprefix(b"data:").strip()
        if not text:
            continue
        try:
            good.append(parse(text))
        except MessageError:
            broken.append(text)
    return good, broken


def _text(value: Any) -> str:
    """Return a value as a query has it."""
    if isinstance(value, str):
        return value
    return orjson.dumps(value).decode()
