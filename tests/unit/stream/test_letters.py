"""Dead letters on a log: where they go back to, once, in order, with a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline import topics
from pipeline.errors import MessageError, StorageFullError, UsageError
from pipeline.model.dead_letter import DeadLetter, bury
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import DownlinkRequest, State
from pipeline.model.event import (
    Cancel,
    DownlinkCommand,
    DownlinkReport,
    DownlinksCommand,
    Query,
    ReplyWindow,
    RequestedDownlink,
    RequestedDownlinks,
    Window,
)
from pipeline.model.letters import Handled, Letter, LettersFilter
from pipeline.model.record import REPLAY, REPLAY_CHAIN, REPLAY_PART, REPLY_TO, Outgoing, Record
from pipeline.model.uplink import Report
from pipeline.stream import SqliteLog
from pipeline.stream.letters import NOWHERE, LogLetters, parse_place, way_back
from pipeline.stream.shelf import EmbeddedShelf

NOW_MS = 1_790_000_000_000


class MemoryShelf:
    """A log of lists. `full`: the next append fails, and nothing is written."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Record]] = {}
        self.steps: list[list[str]] = []
        self.full = False

    def records(
        self, topic: str, *, since_ms: int = 0, past: Mapping[int, int] = NOWHERE
    ) -> Iterator[Record]:
        for one in self.topics.get(topic, []):
            if one.time_ms >= since_ms and one.offset > past.get(one.partition, -1):
                yield one

    def record(self, topic: str, partition: int, offset: int) -> Record | None:
        found = self.topics.get(topic, [])
        return found[offset] if partition == 0 and offset < len(found) else None

    def append(self, records: Sequence[Outgoing]) -> None:
        if self.full:
            raise StorageFullError("no room")
        self.steps.append([one.topic for one in records])
        for one in records:
            topic = self.topics.setdefault(one.topic, [])
            topic.append(
                Record(one.topic, 0, len(topic), NOW_MS, one.key, one.value, dict(one.headers))
            )


def buried(
    topic: str = topics.UPLINK_RECEIVED,
    *,
    stage: str = "convert",
    value: Any = b"raw",
    reason: str = "script_threw",
    key: str = "acme/d1",
    **detail: Any,
) -> Outgoing:
    """Return a dead letter as a stage writes it."""
    encoded = value if isinstance(value, bytes) else msgspec.json.encode(value)
    headers = {"id": "e1", "trace": "t1", "tenant": "acme", REPLY_TO: "{}"}
    record = Record(topic, 0, 7, 1, key, encoded, headers)
    return bury(record, stage=stage, reason=reason, message="why", detail=detail, now_ms=NOW_MS)


@pytest.fixture
def shelf() -> MemoryShelf:
    return MemoryShelf()


@pytest.fixture
def all_letters(shelf: MemoryShelf) -> LogLetters:
    return LogLetters(shelf, lambda: NOW_MS)


def found(letters: LogLetters, **wanted: Any) -> list[Letter]:
    return list(letters.find(LettersFilter(**wanted)))


def places(letters: LogLetters, **wanted: Any) -> list[str]:
    return [one.place for one in found(letters, **wanted)]


def back(topic: str, **letter: Any) -> Outgoing:
    """Return the way back of a letter."""
    out = buried(topic, **letter)
    return way_back(msgspec.json.decode(out.value or b"", type=DeadLetter))


def test_convert_goes_back_to_uplink_received() -> None:
    """The same bytes, key and headers, so also the part of a batch; nobody waits for an answer."""
    out = back(topics.UPLINK_RECEIVED)

    assert (out.topic, out.key, out.value) == (topics.UPLINK_RECEIVED, "acme/d1", b"raw")
    assert out.headers[REPLAY] == "e1.convert-x"
    assert REPLY_TO not in out.headers
    record = Record(topics.UPLINK_RECEIVED, 0, 7, 1, "k", b"", {REPLAY_PART: "2", "id": "e1"})
    letter = bury(record, stage="convert", reason="r", message="", detail={}, now_ms=1)
    part = way_back(msgspec.json.decode(letter.value or b"", type=DeadLetter))
    assert part.headers[REPLAY_PART] == "2"


def test_route_goes_back_for_the_chain_that_failed() -> None:
    """A chain's letter names the chain; one that no chain failed on goes through all of them."""
    assert back(topics.DEVICE_EVENTS, stage="route", chain="a", node="b").headers[REPLAY_CHAIN] == (
        "a"
    )
    assert REPLAY_CHAIN not in back(topics.DEVICE_EVENTS, stage="route").headers


def test_sink_goes_back_to_its_destination() -> None:
    """A given-up delivery goes to its own topic under the same id: rules had their effects."""
    delivery = Delivery("x", "acme", "d1", "app", 1, body={})
    out = back("delivery.acme.app", stage="sink", value=delivery)

    assert out.topic == "delivery.acme.app"
    assert msgspec.json.decode(out.value or b"", type=Delivery) == delivery


def test_downlink_goes_back_as_the_command_that_it_was() -> None:
    """What downlink could not do goes to `device.events`, under an id of its own each time."""
    one = RequestedDownlink("l1", "acme", "d1", "ns", 1, DownlinkRequest(payload=b"\x01"))
    many = RequestedDownlinks(
        "l2", "acme", "d1", "ns", 1, (DownlinkRequest(payload=b"\x01"),), replace=True
    )
    report = DownlinkReport("r", "acme", "d1", 1, Report(State.SENT, "l1"))

    command = back(topics.DOWNLINK_REQUESTED, stage="downlink", value=one)
    assert (command.topic, command.key) == (topics.DEVICE_EVENTS, "acme/d1")
    asked = msgspec.json.decode(command.value or b"", type=DownlinkCommand)
    assert (asked.request, asked.integration) == (one.request, "ns")
    again = back(topics.DOWNLINK_REQUESTED, stage="downlink", value=many)
    assert msgspec.json.decode(again.value or b"", type=DownlinksCommand).replace
    news = back(topics.DOWNLINK_REQUESTED, stage="downlink", value=report)
    told = msgspec.json.decode(news.value or b"", type=DownlinkReport)
    assert told.report == report.report
    assert told.id != report.id


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        (topics.DOWNLINK_REQUESTED, Query("q", "acme", "d1", 1, "downlinks")),
        (topics.DOWNLINK_REQUESTED, ReplyWindow("w", "acme", "d1", "ns", 1, Window("k"))),
        (topics.DOWNLINK_REQUESTED, b"{nonsense"),
        (topics.DOWNLINK_STATUS, b"{}"),
    ],
)
def test_what_cannot_be_done_later_has_no_way_back(topic: str, value: Any) -> None:
    """Answers for requests long gone, and what nobody can read, are refused with the reason."""
    with pytest.raises(MessageError) as error:
        back(topic, stage="downlink", value=value)
    assert error.value.code == "no_way_back"


def test_filters(shelf: MemoryShelf, all_letters: LogLetters) -> None:
    """Letters are found by tenant, stage, reason, destination, device and time, in order."""
    shelf.append(
        [
            buried(),
            buried(reason="other", key="acme/d2"),
            buried("delivery.acme.app", stage="sink", reason="given_up", destination="app"),
            buried("delivery.acme.downlink-x", stage="sink"),
            buried(topics.DOWNLINK_REQUESTED, stage="downlink", value=Cancel("c", "b", "d", 1)),
        ]
    )

    assert places(all_letters) == ["0-0", "0-1", "0-2", "0-3", "0-4"]
    assert places(all_letters, stage="sink") == ["0-2", "0-3"]
    assert places(all_letters, destination="app") == ["0-2"]
    assert places(all_letters, destination="downlink-x") == ["0-3"]
    assert places(all_letters, reason="other") == ["0-1"]
    assert places(all_letters, device="d2") == ["0-1"]
    assert places(all_letters, tenant="nobody") == []
    assert places(all_letters, since_ms=NOW_MS + 1) == []
    assert places(all_letters, until_ms=NOW_MS) == []
    assert [one.place for one in all_letters.find(LettersFilter(), after="0-2")] == ["0-3", "0-4"]
    assert [one.place for one in all_letters.find(LettersFilter(), after="1-9,0-3")] == ["0-4"]


def test_once(shelf: MemoryShelf, all_letters: LogLetters) -> None:
    """A replay and its note are one step; the second one is refused unless it is asked for, also
    by another program; each has an id of its own.
    """
    shelf.append([buried(), buried()])
    letters = found(all_letters)

    assert all_letters.replay(letters, "ann").done == ("0-0", "0-1")
    assert shelf.steps[-1] == [topics.UPLINK_RECEIVED] * 2 + [topics.DEAD_LETTER_HANDLED] * 2
    other = LogLetters(shelf, lambda: NOW_MS)
    assert places(other) == []
    refused = other.replay(found(other, fate="all"), "bob").refused
    assert {(one.code, one.message) for one in refused} == {
        ("already", "it was replayed before by ann")
    }
    assert other.replay(found(other, fate="replayed")[:1], "bob", again=True).done == ("0-0",)
    sent = [one.headers[REPLAY] for one in shelf.topics[topics.UPLINK_RECEIVED]]
    assert len(set(sent[:1] + sent[2:])) == 2
    assert len(shelf.topics[topics.DEAD_LETTER]) == 2, "letters stay"


def test_a_step_that_fails_leaves_all_open(shelf: MemoryShelf, all_letters: LogLetters) -> None:
    """Where the log takes nothing, no letter counts as replayed."""
    shelf.append([buried()])
    shelf.full = True

    with pytest.raises(StorageFullError):
        all_letters.replay(found(all_letters), "ann")
    shelf.full = False
    assert places(all_letters) == ["0-0"]


def test_refused_ones_do_not_hold_up_others(shelf: MemoryShelf, all_letters: LogLetters) -> None:
    """A letter without a way back is refused; the others of the same step go."""
    question = Query("q", "acme", "d1", 1, "downlinks")
    shelf.append([buried(topics.DOWNLINK_REQUESTED, stage="downlink", value=question), buried()])

    done = all_letters.replay(found(all_letters), "ann")

    assert (done.done, [one.code for one in done.refused]) == (("0-1",), ["no_way_back"])


def test_dropping_leaves_a_trace(shelf: MemoryShelf, all_letters: LogLetters) -> None:
    """A dropped letter is not shown as open, says who dropped it and when, and stays readable."""
    shelf.append([buried(), buried()])

    assert all_letters.drop(found(all_letters)[:1], "ann").done == ("0-0",)

    assert places(all_letters) == ["0-1"]
    (dropped,) = found(all_letters, fate="dropped")
    assert dropped.handled == Handled("0-0", "e1.convert-x", "dropped", NOW_MS, "acme", 1, "ann")
    assert dropped.letter.value == b"raw"
    assert all_letters.drop([dropped], "bob").refused[0].code == "already"
    assert all_letters.replay([dropped], "bob").done == ()
    assert all_letters.replay([dropped], "bob", again=True).done == ("0-0",)


def test_others_records_are_passed_over(shelf: MemoryShelf, all_letters: LogLetters) -> None:
    """A record of another producer, in either topic, is no letter and no note."""
    shelf.append([Outgoing(topics.DEAD_LETTER, "k", b"{", {}), buried()])
    shelf.append([Outgoing(topics.DEAD_LETTER_HANDLED, "k", b"[]", {})])

    assert places(all_letters) == ["0-1"]
    assert all_letters.get("0-0") is None


@pytest.mark.parametrize("place", ["", "7", "a-1", "1-", "-1", "1-2-3", "1-²", "9" * 40 + "-1"])
def test_bad_places(place: str, all_letters: LogLetters) -> None:
    """What is no place has no letter."""
    assert parse_place(place) is None
    assert all_letters.get(place) is None


def test_on_the_embedded_log(tmp_path: Path) -> None:
    """The same on a file that another connection writes; one that is only looked at refuses."""
    path = tmp_path / "log.db"
    with SqliteLog.open(path) as log:
        log.append_blocking([buried(), buried()])
        writing = LogLetters(EmbeddedShelf(path, log.append_blocking), lambda: NOW_MS)
        looking = LogLetters(EmbeddedShelf(path), lambda: NOW_MS)
        letters = found(looking)
        assert [one.place for one in letters] == ["0-0", "0-1"]
        assert looking.get("0-1") == letters[1]
        assert looking.get("0-9") is None
        assert looking.get("1-0") is None
        with pytest.raises(UsageError):
            looking.drop(letters, "ann")

        assert writing.replay(letters[:1], "ann").done == ("0-0",)
        assert [one.value for one in log.scan(topics.UPLINK_RECEIVED)] == [b"raw"]
        assert places(LogLetters(EmbeddedShelf(path), lambda: NOW_MS)) == ["0-1"]
