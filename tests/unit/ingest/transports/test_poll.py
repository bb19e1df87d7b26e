"""An API that is asked: cursors, pages, what comes twice, what is no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import orjson
import pytest

from pipeline.errors import MessageError, RetryableError
from pipeline.ingest.source import Context, SourceError
from pipeline.ingest.transports.poll import PollSource
from pipeline.ingest.transports.polled import State, kept_state, plan_of
from pipeline.integrations.dialect import dialects
from pipeline.model.http import SOURCE_KEY, Call, Request, Response
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.polled_api import PollConfig
from pipeline.rulebook.connections.tls import TlsConfig
from tests.made_integration import made_integration

NOW_MS = 1_790_000_000_000
URL = "https://api.example.com/readings"


def integration(dialect: str = "http", options: Any = None, **connection: Any) -> Integration:
    chosen = dialects()[dialect]
    given = {"url": URL, **connection} if "storage" not in connection else connection
    return made_integration(
        name="barn",
        dialect=chosen,
        options=chosen.options.model_validate(options or {}),
        device_template=chosen.device_template,
        transport="poll",
        connection=PollConfig.model_validate(given),
    )


class DiedError(Exception):
    """Stands for the end of a process."""


class FakeApi:
    """Answers each call by a function; `calls` is what was asked."""

    def __init__(self, answer: Callable[[dict[str, str], Call], Any]) -> None:
        self.answer = answer
        self.calls: list[Call] = []
        self.closed = 0

    def __call__(self, *, timeout_s: float, bytes_max: int, tls: TlsConfig | None) -> Any:
        assert (timeout_s, tls) == (30.0, None)
        assert bytes_max > 1_000_000
        return _Fetcher(self)

    def queries(self) -> list[dict[str, str]]:
        return [dict(parse_qsl(urlsplit(call.url).query)) for call in self.calls]


class _Fetcher:
    def __init__(self, api: FakeApi) -> None:
        self.api = api

    async def __call__(self, call: Call) -> Response:
        self.api.calls.append(call)
        found = self.api.answer(dict(parse_qsl(urlsplit(call.url).query)), call)
        if isinstance(found, Exception):
            raise found
        return found if isinstance(found, Response) else Response(200, orjson.dumps(found))

    async def close(self) -> None:
        self.api.closed += 1


class Kept:
    """An inlet that keeps all in one step: messages, and the cursor. `die_after` so many steps it
    raises, as if the process ended there.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.state: Any = None
        self.steps = 0
        self.die_after = 10**9
        self.connects = 0

    async def take(self, requests: Sequence[Request], cursor: Any = None) -> None:
        if self.steps >= self.die_after:
            raise DiedError
        self.steps += 1
        self.requests += requests
        self.state = orjson.loads(orjson.dumps(cursor))

    async def cursor(self) -> Any:
        return self.state

    def pass_over(self, count: int, reason: str) -> None:
        raise AssertionError(reason, count)

    def connected(self, note: str = "") -> None:
        assert not note
        self.connects += 1

    def numbers(self) -> list[int]:
        return [orjson.loads(request.body)["n"] for request in self.requests]


async def poll(api: FakeApi, inlet: Kept, one: Integration, rounds: int = 1) -> None:
    """Run a source for so many calls, or until it raises."""
    source = PollSource(one.connection, Context(one, "w", 2, lambda: NOW_MS, api))
    task = asyncio.ensure_future(source.run(inlet, inlet))
    want = len(api.calls) + rounds
    while not task.done() and len(api.calls) < want:  # noqa: ASYNC110 - other tasks
        await asyncio.sleep(0)
    for _ in range(50):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


def pages(query: dict[str, str], size: int = 3, total: int = 7) -> dict[str, Any]:
    """Answer as an API with a cursor and pages: numbers after `after`, ascending."""
    after = int(query.get("page", query.get("after", "0")))
    items = [{"n": n, "id": f"i{n}"} for n in range(after + 1, min(after + size, total) + 1)]
    more = after + size if after + size < total else None
    return {"readings": items, "next": more}


PAGED = {
    "items": "body.readings",
    "cursor": "items[size(items) - 1].n",
    "next": "body.next",
    "query": {"after": "${cursor}", "page": "${page}"},
}


async def test_pages_are_read_and_the_cursor_moves_on() -> None:
    """All pages of a round are asked for; the next round begins after the last message."""
    api, inlet = FakeApi(lambda query, _: pages(query)), Kept()
    await poll(api, inlet, integration(**PAGED), rounds=3)

    assert api.queries() == [{}, {"page": "3"}, {"page": "6"}]
    assert inlet.numbers() == [1, 2, 3, 4, 5, 6, 7]
    assert inlet.state["cursor"] == 7
    assert inlet.connects == api.closed == 1
    await poll(api, inlet, integration(**PAGED))
    assert api.queries()[-1] == {"after": "7"}
    assert len(inlet.requests) == 7


@pytest.mark.parametrize("steps", range(5))
async def test_an_end_at_any_step_loses_and_doubles_nothing(steps: int) -> None:
    """Whichever step was the last one that was stored: after it, each message is there once."""
    api, inlet = FakeApi(lambda query, _: pages(query)), Kept()
    inlet.die_after = steps
    with pytest.raises(DiedError):
        await poll(api, inlet, integration(**PAGED), rounds=3)
    inlet.die_after = 10**9
    await poll(api, inlet, integration(**PAGED), rounds=3)

    assert sorted(inlet.numbers()) == [1, 2, 3, 4, 5, 6, 7]
    assert inlet.state["cursor"] == 7


async def test_newest_first_moves_when_all_is_read() -> None:
    """Where the newest come first, an end in between does not pass over the older pages."""

    def answer(query: dict[str, str], _: Call) -> Any:
        top = int(query.get("page", "6"))
        low = int(query.get("after", "0"))
        found = list(range(top, max(top - 3, low), -1))
        return {"readings": [{"n": n} for n in found], "next": top - 3 if top - 3 > low else None}

    given = {**PAGED, "cursor": "items[0].n", "cursor_of": "first"}
    api, inlet = FakeApi(answer), Kept()
    inlet.die_after = 2
    with pytest.raises(DiedError):
        await poll(api, inlet, integration(**given), rounds=2)
    assert inlet.state["cursor"] is None
    inlet.die_after = 10**9
    await poll(api, inlet, integration(**given), rounds=2)
    assert sorted(inlet.numbers()) == [1, 2, 3, 4, 5, 6]
    assert inlet.state["cursor"] == 6
    api = FakeApi(answer)
    with pytest.raises(SourceError, match="more than 1 pages"):
        await poll(api, Kept(), integration(**given, pages_max=1))


async def test_more_pages_than_a_round_may_have_go_on_at_once() -> None:
    """With ascending pages the next round begins where this one had to stop, without a pause."""
    api, inlet = FakeApi(lambda query, _: pages(query)), Kept()
    await poll(api, inlet, integration(**PAGED, pages_max=1), rounds=3)

    assert api.queries() == [{}, {"after": "3"}, {"after": "6"}]
    assert inlet.numbers() == [1, 2, 3, 4, 5, 6, 7]


async def test_the_greatest_cursor_of_unordered_answers() -> None:
    """`greatest` never goes back; what cannot be compared is said."""
    api = FakeApi(lambda *_: [{"n": 5}, {"n": 9}, {"n": 2}])
    given = {"cursor": "items.map(each, each.n)[1]", "cursor_of": "greatest", "start": 20}
    inlet = Kept()
    await poll(api, inlet, integration(**given))
    assert inlet.state["cursor"] == 20
    with pytest.raises(SourceError, match="cannot be compared"):
        await poll(api, Kept(), integration(**{**given, "start": "x"}))


async def test_what_is_the_same_comes_once() -> None:
    """An API that gives its last messages again and again brings each once; with `remember: 0`
    each time.
    """
    readings = [{"n": 1}, {"n": 2}]
    api, inlet = FakeApi(lambda *_: readings), Kept()
    for _ in range(3):
        await poll(api, inlet, integration())
    assert inlet.numbers() == [1, 2]
    readings.append({"n": 3})
    await poll(api, inlet, integration())
    assert inlet.numbers() == [1, 2, 3]
    assert len({request.headers[SOURCE_KEY] for request in inlet.requests}) == 3
    inlet = Kept()
    for _ in range(2):
        await poll(api, inlet, integration(remember=0))
    assert inlet.numbers() == [1, 2, 3, 1, 2, 3]
    assert all(SOURCE_KEY not in request.headers for request in inlet.requests)


async def test_only_so_many_are_remembered() -> None:
    """The state is bounded: what is older than `remember` messages is forgotten."""
    api, inlet = FakeApi(lambda *_: [{"n": n} for n in range(50)]), Kept()
    await poll(api, inlet, integration(remember=10))

    assert len(inlet.state["seen"]) == 10


def test_how_it_asks() -> None:
    """Query values are encoded, null is left out; key and headers are there; POST has a body."""
    one = integration(
        bearer="k", headers={"X-A": "b"}, method="POST", url=URL + "?v=1",
        query={"after": "${cursor}", "none": "${page}", "now": "${now - duration('60s')}", "n": 5},
        body={"since": "${cursor}", "tags": ["a"]},
    )  # fmt: skip
    call = plan_of(one).call("2026-01-01T00:00:00+01:00", None, NOW_MS)

    assert call.url == (
        f"{URL}?v=1&after=2026-01-01T00%3A00%3A00%2B01%3A00&now=2026-09-21T14%3A12%3A20Z&n=5"
    )
    assert orjson.loads(call.body) == {"since": "2026-01-01T00:00:00+01:00", "tags": ["a"]}
    assert call.headers == {
        "accept": "application/json",
        "authorization": "Bearer k",
        "x-a": "b",
        "content-type": "application/json",
    }


async def test_the_next_page_may_be_an_address_of_the_same_server() -> None:
    """An address is asked as it is; one of another server would get our key, and is refused."""
    following = f"{URL}?token=abc"
    api, inlet = FakeApi(lambda query, _: {"next": "" if query else following, "n": 1}), Kept()
    await poll(api, inlet, integration(next="body.next"), rounds=2)
    assert [call.url for call in api.calls] == [URL, following]
    for other in ("https://evil.example/x", "http://api.example.com/x"):
        api = FakeApi(lambda *_, other=other: {"next": other, "n": 1})
        with pytest.raises(SourceError, match="another server"):
            await poll(api, Kept(), integration(next="body.next"), rounds=2)


@pytest.mark.parametrize(
    ("answer", "given", "said"),
    [
        (Response(200, b"{"), {}, "cannot be read: the body is not JSON"),
        (Response(200, b"[" * 500), {}, "cannot be read"),
        ({"a": 1}, {"items": "body.readings"}, "not as expected"),
        ([{"a": 1}], {"cursor": "items[0].time"}, "not as expected"),
        (MessageError("no"), {}, "no"),
    ],
)
async def test_what_is_no_answer_is_asked_again(answer: Any, given: Any, said: str) -> None:
    """An answer that cannot be used moves nothing: it is a fault of the connection."""
    inlet = Kept()
    with pytest.raises(SourceError, match=said):
        await poll(FakeApi(lambda *_: answer), inlet, integration(**given))

    assert (inlet.requests, inlet.state, inlet.connects) == ([], None, 0)


async def test_the_servers_pause_is_kept() -> None:
    """What the fetcher says of when to come again reaches who runs the source."""
    busy = RetryableError("the server answered 429", retry_after_s=7)
    with pytest.raises(RetryableError) as caught:
        await poll(FakeApi(lambda *_: busy), Kept(), integration())

    assert caught.value.retry_after_s == 7


async def test_nothing_is_there() -> None:
    """An empty answer, null and an empty list are no messages, and no fault."""
    for answer in (Response(204), None, []):
        inlet = Kept()
        await poll(FakeApi(lambda *_, a=answer: a), inlet, integration(cursor="items[0].n"))
        assert (inlet.requests, inlet.connects) == ([], 1)


async def test_lines_with_garbage_among_them() -> None:
    """A line that is no JSON goes on as it is, to be a dead letter; the others are messages."""
    body = b'{"n":1}\n\ndata: {"n":2}\n{"n":\n\xff\n'
    inlet = Kept()
    await poll(FakeApi(lambda *_: Response(200, body)), inlet, integration(lines=True))

    assert [request.body for request in inlet.requests] == [
        b'{"n":1}', b'{"n":2}', b'{"n":', b"\xff",
    ]  # fmt: skip


def test_another_start_begins_anew() -> None:
    """An edited `start` forgets the cursor; so does a state that another release kept."""
    kept = {"cursor": 5, "start": 1, "seen": ["a"]}

    assert kept_state(kept, 1) == State(5, 1, ("a",))
    assert kept_state(kept, 2) == State(2, 2)
    assert kept_state({"seen": 5}, 1) == kept_state(None, 1) == State(1, 1)


async def test_a_process_without_the_web_says_so() -> None:
    """Where no web address may be asked, that is the fault."""
    one = integration()
    source = PollSource(one.connection, Context(one, "w", 2))
    with pytest.raises(SourceError, match="asks no web addresses"):
        await source.run(Kept(), Kept())


async def test_a_storage_is_read_on_from_the_last_message() -> None:
    """The first time an hour back, then from the latest message on, less the overlap; a message of
    the overlap comes once. A full page is followed by another.
    """
    v3: Any = dialects()["tts_v3"]
    stored = [
        orjson.loads(v3.sample("dev1", n, b"", NOW_MS - 600_000 + n * 1_000).body)
        for n in range(1_200)
    ]

    def answer(query: dict[str, str], _: Call) -> Response:
        found = [each for each in stored if each["received_at"] > query["after"]][:1_000]
        return Response(200, b"\n\n".join(orjson.dumps({"result": each}) for each in found))

    api, inlet = FakeApi(answer), Kept()
    one = integration("tts_v3", {"application_id": "a"}, storage="https://ns.example/", key="k")
    await poll(api, inlet, one, rounds=2)
    asked = [query["after"] for query in api.queries()]
    assert asked == ["2026-09-21T13:13:20.000Z", stored[999]["received_at"]]
    assert len(inlet.requests) == 1_200
    stored.append(orjson.loads(v3.sample("dev1", 1, b"", NOW_MS + 601_000).body))
    await poll(api, inlet, one)
    assert api.queries()[-1]["after"] == "2026-09-21T14:22:19.000Z"
    assert len(inlet.requests) == 1_201
