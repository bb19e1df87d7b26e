"""The API's dead letters: what could not be handled, listed, sent once more, dropped.

In: `GET /api/v1/tenants/{tenant}/dead-letters` (`stage destination reason device since until fate
limit after`), `GET …/dead-letters/{place}`, `POST …/dead-letters/replay` and `…/drop` with
`{"places": ["0-17", …]}`. Out: JSON. `after` of a page's answer is what the next one is asked with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from pipeline.errors import FunicularError, MessageError
from pipeline.model.http import Response
from pipeline.model.letters import (
    REPLAYED_ELSEWHERE,
    Done,
    Letter,
    LetterBox,
    Letters,
    LettersFilter,
    Which,
)
from pipeline.rulebook.moment import parse_moment

from .access import Access
from .commands import PREFIX
from .json_body import json_object
from .keys import Right
from .problem import JSON, of_message, problem

PLACES_MAX = 1_000
"""In one request."""
LIMIT_MAX = 1_000
LIMIT = 100
_ACTIONS = ("replay", "drop")

_encode = msgspec.json.Encoder().encode


class Admitted(NamedTuple):
    """A request that may be made. `what`: nothing for the list, `replay`, `drop`, or a place."""

    tenant: str
    what: str
    by: str


class _Places(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST …/replay` and `…/drop`."""

    places: Annotated[list[str], Meta(min_length=1, max_length=PLACES_MAX)]
    again: bool = False


class LettersApi:
    """Takes the requests. `admit` comes before the body is read, `handle` after."""

    def __init__(self, box: LetterBox | None, access: Access, now_ms: Callable[[], int]) -> None:
        """`box` None: this process has no way to the letters, and says so."""
        self._box = box
        self._access = access
        self._now_ms = now_ms
        self._one_at_a_time = asyncio.Lock()

    def admit(
        self, method: str, path: str, headers: Mapping[str, str], peer: str
    ) -> Admitted | Response | None:
        """Return the request, or why it is refused; None: the address is another one's."""
        parts = path.removeprefix(PREFIX).split("/")
        if not path.startswith(PREFIX) or len(parts) not in (2, 3) or parts[1] != "dead-letters":
            return None
        tenant, what = unquote(parts[0]), unquote(parts[2]) if len(parts) == 3 else ""
        allowed = "POST" if what in _ACTIONS else "GET"
        if method != allowed:
            return problem(405, "method", f"only {allowed} here", headers={"allow": allowed})
        right: Right = "admin" if what in _ACTIONS else "read"
        by = self._access.check(headers, peer, tenant, right)
        if isinstance(by, Response):
            return by
        if self._box is None:
            return problem(
                501,
                "no_letters",
                "this process cannot read dead letters: pip install 'funicular[kafka]'",
            )
        return Admitted(tenant, what, by)

    async def handle(self, admitted: Admitted, query: Mapping[str, str], body: bytes) -> Response:
        """Return the answer. The log is read and written in a thread, one request at a time."""
        async with self._one_at_a_time:
            try:
                return await asyncio.to_thread(self._handle, admitted, query, body)
            except MessageError as error:
                return of_message(error)
            except FunicularError as error:
                status = 409 if error.code == REPLAYED_ELSEWHERE else 503
                return problem(status, error.code, error.message)

    def _handle(self, admitted: Admitted, query: Mapping[str, str], body: bytes) -> Response:
        assert self._box is not None, "`admit` lets nothing in without it"
        if admitted.what in _ACTIONS:
            asked = _places(body)
            with self._box.open(write=True) as letters:
                return _json(200, _act(letters, admitted, asked))
        with self._box.open(write=False) as letters:
            return self._look(letters, admitted, query)

    def _look(self, letters: Letters, admitted: Admitted, query: Mapping[str, str]) -> Response:
        if admitted.what:
            letter = _get(letters, admitted.tenant, admitted.what)
            if letter is None:
                text = f"there is no dead letter at {admitted.what[:40]!r}"
                return problem(404, "not_found", text)
            return _json(200, letter)
        limit = _limit(query)
        wanted = _filter(admitted.tenant, query, self._now_ms())
        found: list[dict[str, Any]] = []
        seen = _by_partition(query.get("after", "").split(","))
        for letter in letters.find(wanted, ",".join(seen.values())):
            if len(found) == limit:
                seen |= _by_partition(one["place"] for one in found)
                return _json(200, {"dead_letters": found, "after": ",".join(seen.values())})
            found.append(letter.summary())
        return _json(200, {"dead_letters": found})


def _by_partition(places: Iterable[str]) -> dict[str, str]:
    """Return the last place of each partition."""
    return {place.partition("-")[0]: place for place in places if place}


def _places(body: bytes) -> _Places:
    try:
        return msgspec.convert(json_object(body), _Places)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
        raise MessageError(said, code="places", field=place.strip(".`") or None) from None


def _act(letters: Letters, admitted: Admitted, asked: _Places) -> Done:
    chosen = []
    for place in asked.places:
        letter = _get(letters, admitted.tenant, place)
        if letter is None:
            text = f"there is no dead letter at {place[:40]!r}; nothing was done"
            raise MessageError(text, code="not_found", place=place[:40])
        chosen.append(letter)
    if admitted.what == "replay":
        return letters.replay(chosen, admitted.by, again=asked.again)
    return letters.drop(chosen, admitted.by)


def _get(letters: Letters, tenant: str, place: str) -> Letter | None:
    letter = letters.get(place)
    return letter if letter is not None and letter.letter.tenant == tenant else None


def _filter(tenant: str, query: Mapping[str, str], now_ms: int) -> LettersFilter:
    fate = query.get("fate", "open")
    if fate not in get_args(Which):
        raise MessageError(f"fate is one of {', '.join(get_args(Which))}", code="query")
    chosen: Which = msgspec.convert(fate, Which)
    return LettersFilter(
        tenant=tenant,
        stage=query.get("stage", ""),
        destination=query.get("destination", ""),
        reason=query.get("reason", ""),
        device=query.get("device", ""),
        since_ms=_moment(query, "since", now_ms),
        until_ms=_moment(query, "until", now_ms),
        fate=chosen,
    )


def _moment(query: Mapping[str, str], name: Literal["since", "until"], now_ms: int) -> int:
    text = query.get(name, "")
    try:
        return parse_moment(text, now_ms) if text else 0
    except ValueError as error:
        raise MessageError(f"{name}: {error}", code="query", field=name) from None


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(LIMIT))
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= LIMIT_MAX):
        raise MessageError(f"limit is a number from 1 to {LIMIT_MAX}", code="query", field="limit")
    return int(text)


def _json(status: int, value: Any) -> Response:
    return Response(status, _encode(value), JSON)
