from __future__ import annotations

from typing import Any

import msgspec

from pipeline.model.dead_letter import DeadLetter
from pipeline.model.downlink import State
from pipeline.model.event import DeviceEvent, DownlinkReport
from pipeline.model.record import Record, headers_of
from pipeline.sink.endings import Ended, How, downlink_ending, sink_ending, unreadable
from pipeline.sink.transport import DELIVERED, Result, Verdict
from tests.unit.sink.fakes import POSTPONED, REFUSED, START_MS, delivery, downlink_delivery

HEADERS = headers_of(event_id="d1", trace="t1", cause="c1", tenant="acme", rules="r1")
RECORD = Record("delivery.acme.app", 0, 7, START_MS, "acme/dev1", b"original", HEADERS)


def report(ended: Ended) -> tuple[DownlinkReport, dict[str, Any]]:
    (outgoing,) = downlink_ending(RECORD, downlink_delivery(1), ended, START_MS)
    assert (outgoing.topic, outgoing.key) == ("device.events", "acme/dev1")
    event = msgspec.json.decode(outgoing.value or b"", type=DeviceEvent)
    assert isinstance(event, DownlinkReport)
    return event, outgoing.headers


def test_what_was_delivered_leaves_nothing() -> None:
    """A sink that took a message leaves no record."""
    assert sink_ending(RECORD, delivery(1), Ended(How.DELIVERED, DELIVERED), START_MS) == []


def test_what_was_refused_is_buried_whole() -> None:
    """A dead letter has the original bytes, the status and the destination."""
    ended = Ended(How.REFUSED, REFUSED)
    (outgoing,) = sink_ending(RECORD, delivery(1), ended, START_MS)
    letter = msgspec.json.decode(outgoing.value or b"", type=DeadLetter)
    assert (letter.stage, letter.reason, letter.value) == ("sink", "rejected", b"original")
    assert (letter.topic, letter.offset) == ("delivery.acme.app", 7)
    assert letter.detail == {"status": 422, "destination": "app"}


def test_what_was_given_up_says_how_often_and_why() -> None:
    """A delivery that was given up is buried with its attempts and the last error."""
    ended = Ended(How.GIVEN_UP, POSTPONED, 3, "the destination answered 503")
    (outgoing,) = sink_ending(RECORD, delivery(1), ended, START_MS)
    letter = msgspec.json.decode(outgoing.value or b"", type=DeadLetter)
    assert letter.reason == "given_up"
    assert letter.message == "given up after 3 attempts: the destination answered 503"
    assert letter.detail["attempts"] == 3
    assert letter.detail["last_error"] == "the destination answered 503"


def test_a_downlink_that_was_taken_is_sent() -> None:
    """A 2xx makes the downlink `sent`; the event follows from the delivery."""
    event, headers = report(Ended(How.DELIVERED, DELIVERED))
    assert (event.report.state, event.report.downlink_id) == (State.SENT, "l1")
    assert (event.report.reason, event.report.detail) == ("", {})
    assert event.id == "l1.d.sent"
    assert (headers["id"], headers["trace"], headers["cause"]) == ("l1.d.sent", "t1", "d1")
    assert headers["rules"] == "r1"


def test_what_the_network_server_calls_a_downlink_is_told() -> None:
    """The reference that the answer gave goes with the report, so that later reports find it."""
    result = Result(Verdict.DELIVERED, detail={"reference": "item-1"})
    event, _ = report(Ended(How.DELIVERED, result))
    assert event.report.detail == {"reference": "item-1"}


def test_a_repeat_of_an_outcome_has_the_same_id() -> None:
    """The same delivery and state give the same event id, whenever it happens."""
    first = downlink_ending(RECORD, downlink_delivery(1), Ended(How.REFUSED, REFUSED), START_MS)
    again = downlink_ending(RECORD, downlink_delivery(1), Ended(How.REFUSED, REFUSED), START_MS + 9)
    assert first[0].headers["id"] == again[0].headers["id"]


def test_a_refused_downlink_failed_for_a_reason() -> None:
    """The code is the reason, the words and the status are details."""
    event, _ = report(Ended(How.REFUSED, REFUSED))
    assert (event.report.state, event.report.reason) == (State.FAILED, "rejected")
    assert event.report.detail == {"message": "the destination answered 422", "status": 422}


def test_an_expired_downlink_that_may_have_arrived_says_so() -> None:
    """Where an attempt got no clear answer, the end says that it may have been delivered."""
    event, _ = report(Ended(How.EXPIRED, REFUSED, 2, "no answer within 10 s", uncertain=True))
    assert (event.report.state, event.report.reason) == (State.EXPIRED, "expired")
    assert event.report.detail["possibly_delivered"] is True
    assert event.report.detail["last_error"] == "no answer within 10 s"


def test_a_record_that_is_no_delivery_is_buried() -> None:
    """What cannot be read is kept as it came."""
    letter = msgspec.json.decode(unreadable(RECORD, "why", 0).value or b"", type=DeadLetter)
    assert (letter.reason, letter.message, letter.value) == ("bad_delivery", "why", b"original")
