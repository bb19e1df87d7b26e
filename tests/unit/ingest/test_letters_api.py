"""The API's dead letters, without sockets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from pipeline.errors import StorageFullError, UsageError
from pipeline.ingest.letters_api import LettersApi
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.http import Response
from pipeline.model.letters import (
    REPLAYED_ELSEWHERE,
    Done,
    Letter,
    LettersFilter,
    OpenBox,
    Refused,
    chosen,
)

if TYPE_CHECKING:
    from conftest import World

ROOT = "/api/v1/tenants/acme/dead-letters"
HOST = {"host": "localhost:8080"}


def letter(number: int, tenant: str = "acme") -> Letter:
    dead = DeadLetter(
        id=f"e{number}",
        stage="convert",
        reason="script_threw",
        message="why",
        time_ms=number,
        tenant=tenant,
        topic="uplink.received",
        partition=0,
        offset=number,
        key=f"{tenant}/d{number}",
        value=b"raw",
    )
    return Letter(f"0-{number}", dead)


class FakeLetters:
    """Letters in a list; keeps what was asked of it."""

    def __init__(self) -> None:
        self.all = [letter(0), letter(1, "other"), letter(2), letter(3)]
        self.replayed: list[tuple[list[str], str, bool]] = []
        self.dropped: list[str] = []
        self.full = False

    def find(self, wanted: LettersFilter, after: str = "") -> Iterator[Letter]:
        later = [one for one in self.all if one.place > after]
        yield from chosen(later, wanted)

    def get(self, place: str) -> Letter | None:
        return next((one for one in self.all if one.place == place), None)

    def replay(self, letters: Sequence[Letter], by: str, *, again: bool = False) -> Done:
        if self.full:
            raise StorageFullError("no room")
        places = [one.place for one in letters]
        self.replayed.append((places, by, again))
        return Done(tuple(places[:1]), tuple(Refused(one, "already", "why") for one in places[1:]))

    def drop(self, letters: Sequence[Letter], by: str) -> Done:
        self.dropped += [one.place for one in letters]
        return Done(tuple(one.place for one in letters))


class Asking:
    """The API over `letters`."""

    def __init__(self, world: World, letters: FakeLetters | None) -> None:
        self.world, self.letters = world, letters

    def __call__(
        self,
        method: str,
        path: str = "",
        body: Any = None,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> tuple[int, Any]:
        async def work() -> Response:
            box = None if self.letters is None else OpenBox(self.letters)
            api = LettersApi(box, self.world.access, self.world.clock)
            given = {**HOST, **(headers or {})}
            admitted = api.admit(method, ROOT + path, given, "127.0.0.1")
            assert admitted is not None
            if isinstance(admitted, Response):
                return admitted
            return await api.handle(admitted, query, b"" if body is None else orjson.dumps(body))

        response: Response = self.world.run(work)
        return response.status, orjson.loads(response.body)


@pytest.fixture
def letters() -> FakeLetters:
    return FakeLetters()


@pytest.fixture
def ask(world: World, letters: FakeLetters) -> Asking:
    return Asking(world, letters)


def test_list(ask: Asking) -> None:
    """A tenant sees its own, without their bytes, by pages."""
    status, said = ask("GET", limit="2")
    assert (status, [one["place"] for one in said["dead_letters"]]) == (200, ["0-0", "0-2"])
    assert said["after"] == "0-2"
    assert "value" not in said["dead_letters"][0]
    _, rest = ask("GET", limit="2", after="0-2")
    assert [one["place"] for one in rest["dead_letters"]] == ["0-3"]
    assert "after" not in rest
    assert ask("GET", device="d3")[1]["dead_letters"][0]["place"] == "0-3"


def test_show(ask: Asking) -> None:
    """One letter comes whole; another tenant's is not there."""
    status, said = ask("GET", "/0-2")
    assert (status, said["letter"]["value"]) == (200, "cmF3")
    assert ask("GET", "/0-1")[0] == 404


def test_replay_and_drop(ask: Asking, letters: FakeLetters) -> None:
    """Places are handled in their order, by whoever asks; what was refused says why."""
    status, said = ask("POST", "/replay", {"places": ["0-2", "0-0"], "again": True})
    assert (status, said) == (
        200,
        {"done": ["0-2"], "refused": [{"place": "0-0", "code": "already", "message": "why"}]},
    )
    assert letters.replayed == [(["0-2", "0-0"], "local", True)]
    assert ask("POST", "/drop", {"places": ["0-3"]})[1]["done"] == ["0-3"]
    assert letters.dropped == ["0-3"]


@pytest.mark.parametrize(
    "body",
    [
        {"places": []},
        {"places": ["0-0"] * 1_001},
        {"places": ["0-1"]},
        {"places": ["0-0", "0-9"]},
        {"place": "0-0"},
        {},
    ],
)
def test_bad_wishes_do_nothing(ask: Asking, letters: FakeLetters, body: Any) -> None:
    """Where one place is wrong, or another tenant's, nothing is done."""
    assert ask("POST", "/replay", body)[0] == 400
    assert letters.replayed == []


@pytest.mark.parametrize(
    "query", [{"limit": "0"}, {"limit": "x"}, {"since": "soon"}, {"fate": "x"}]
)
def test_bad_queries(ask: Asking, query: dict[str, str]) -> None:
    """A question that cannot be is refused with what is wrong."""
    assert ask("GET", **query)[0] == 400


def test_rights(ask: Asking, world: World, letters: FakeLetters) -> None:
    """Looking needs `read`; replaying and dropping need `admin`."""
    opened = world.open
    shown: dict[str, str] = {}

    def open_() -> None:
        opened()
        _, text = world.keys.create("acme", ["read"])
        shown["authorization"] = f"Bearer {text}"

    world.open = open_  # type: ignore[method-assign]
    assert ask("GET", headers=shown)[0] == 200
    assert ask("POST", "/drop", {"places": ["0-0"]}, headers=shown)[0] == 403
    assert letters.dropped == []


def test_log_that_takes_nothing(ask: Asking, letters: FakeLetters) -> None:
    """A full log is 503, not a loss."""
    letters.full = True
    status, said = ask("POST", "/replay", {"places": ["0-0"]})

    assert (status, said["error"]["code"]) == (503, "storage_full")


def test_process_without_a_way_to_letters(world: World) -> None:
    """Where a library is missing, the answer says which."""
    status, said = Asking(world, None)("GET")

    assert status == 501
    assert "funicular[kafka]" in said["error"]["message"]


def test_somebody_else_replays(ask: Asking, letters: FakeLetters) -> None:
    """Who began earlier than another is told so: 409, and nothing was done."""

    def fenced(*_: Any, **__: Any) -> Done:
        raise UsageError("somebody else replays", code=REPLAYED_ELSEWHERE)

    letters.replay = fenced  # type: ignore[method-assign]
    status, said = ask("POST", "/replay", {"places": ["0-0"]})

    assert (status, said["error"]["code"]) == (409, REPLAYED_ELSEWHERE)


def test_pages_of_several_partitions(ask: Asking, letters: FakeLetters) -> None:
    """`after` keeps how far each partition is: no letter is left out, and none comes twice, though
    partitions are mixed.
    """
    mixed = [(0, 0), (1, 0), (1, 1), (0, 1), (2, 0), (1, 2), (0, 2)]
    whole = [Letter(f"{partition}-{at}", letter(at).letter) for partition, at in mixed]

    def find(_: LettersFilter, after: str = "") -> Iterator[Letter]:
        past = {place[0]: int(place[2:]) for place in after.split(",") if place}
        yield from (one for one in whole if int(one.place[2:]) > past.get(one.place[0], -1))

    letters.find = find  # type: ignore[method-assign]
    pages: list[list[str]] = []
    after = ""
    while not pages or after:
        _, said = ask("GET", limit="2", after=after)
        pages.append([one["place"] for one in said["dead_letters"]])
        after = said.get("after", "")

    assert pages == [["0-0", "1-0"], ["1-1", "0-1"], ["2-0", "1-2"], ["0-2"]]


def test_methods(ask: Asking) -> None:
    """Other methods are refused with those that are possible."""
    assert ask("DELETE")[0] == 405
    assert ask("GET", "/replay")[0] == 405
