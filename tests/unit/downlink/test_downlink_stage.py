"""The downlink stage: bytes, queue, answers, deliveries, and the life of each downlink."""

from __future__ import annotations

import msgspec
import pytest

from pipeline import topics
from pipeline.downlink.limits import Limits
from pipeline.model.downlink import MOVES, Downlink, DownlinkRequest, State, may_move
from pipeline.model.event import Cancel, Forget, Query, RequestedDownlink
from pipeline.model.record import Record
from pipeline.model.uplink import Link
from pipeline.ports import Batch
from tests.unit.downlink.bench import (
    KEY,
    Bench,
    FakeDialect,
    deliveries,
    letters,
    report,
    request,
    states,
    status,
    window,
)

ANSWER_GRACE_MS = Limits().answer_grace_ms


def test_waits_for_the_window() -> None:
    """On a synchronous link a downlink is queued and given to the device's next request."""
    bench = Bench()

    assert states(bench.run(request(1))) == ["requested", "encoded", "queued"]

    reply = bench.wait(window("a"))

    assert (reply.downlink_id, reply.payload, reply.f_port) == ("d1", b"\x01", 7)
    assert status(bench, "d1").state is State.ANSWERING


def test_answered_is_sent() -> None:
    """The door's report that it answered makes a downlink `sent`, and its timer goes."""
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))

    assert states(bench.run(report(State.SENT, "d1"))) == ["sent"]
    assert not bench.timers


def test_empty_window() -> None:
    """Without a waiting downlink the answer is empty."""
    assert Bench().wait(window("a")).downlink_id == ""


def test_window_that_cannot_carry_uses_nothing_up() -> None:
    """A request that cannot take data is answered empty and leaves the queue alone."""
    bench = Bench()
    bench.run(request(1))

    assert bench.wait(window("a", carries=False)).downlink_id == ""
    assert bench.wait(window("b")).downlink_id == "d1"


def test_two_requests_never_share_a_downlink() -> None:
    """Two different uplinks at once: only one carries the downlink."""
    bench = Bench()
    bench.run(request(1))

    assert bench.wait(window("a"), request="r1").downlink_id == "d1"
    assert bench.wait(window("b"), request="r2").downlink_id == ""


def test_repeat_gets_the_same_answer() -> None:
    """The network server's repeat of a request is answered with the same downlink, not the next."""
    bench = Bench()
    bench.run(request(1), request(2, queue="last"))
    bench.wait(window("a"))
    bench.run(report(State.SENT, "d1"))

    assert bench.wait(window("a", repeated=True)).downlink_id == "d1"
    assert bench.wait(window("b")).downlink_id == "d2"


def test_repeat_does_not_share_what_another_uplink_got() -> None:
    """A downlink that surely did not leave by one uplink and went to another is not given to a
    repeat of the first: two uplinks would carry it, unflagged.
    """
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))
    bench.run(report(State.QUEUED, "d1", reason="too_late"))
    assert bench.wait(window("b")).downlink_id == "d1"
    bench.run(report(State.SENT, "d1"))

    assert bench.wait(window("a", repeated=True)).downlink_id == ""


def test_repeat_while_the_first_request_waits() -> None:
    """A client that gives up and repeats at once: the end of its first request does not free the
    downlink that its second one carries.
    """
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"), request="r1")
    assert bench.wait(window("a", repeated=True), request="r2").downlink_id == "d1"
    bench.run(report(State.QUEUED, "d1", reason="too_late"))

    assert bench.wait(window("b"), request="r3").downlink_id == ""
    bench.run(report(State.QUEUED, "d1", reason="too_late"))
    assert bench.wait(window("c"), request="r4").downlink_id == "d1"
    assert not status(bench, "d1").possibly_delivered


def test_device_with_two_integrations() -> None:
    """A downlink leaves by the integration that it was encoded for: a device that has moved neither
    gets another network server's bytes, nor waits for what the old one never takes.
    """
    bench = Bench()
    bench.run(request(1, queue="last"))
    out = bench.run(request(2, queue="last", integration="moved"))

    assert [(d.destination, d.downlink and d.downlink.id) for d in deliveries(out)] == [
        ("downlink-moved", "d2")
    ]
    bench.run(request(3, queue="last", integration="moved"))
    assert bench.wait(window("a")).downlink_id == "d1"
    assert bench.wait(window("b")).downlink_id == "", "d3 is not of this integration"


def test_dead_network_server_delays_only_its_own() -> None:
    """A downlink that is on its way by one integration does not hold up another integration's."""
    bench = Bench(synchronous=False)
    out = bench.run(request(1), request(2, integration="twin"), request(3))

    assert [d.destination for d in deliveries(out)] == ["downlink-link", "downlink-twin"]


def test_each_integration_has_its_own_way_back() -> None:
    """What waits for one integration does not leave by the link that another one told since."""
    bench = Bench(synchronous=False)
    bench.run(request(1), request(2))
    moved = request(3, integration="twin")
    bench.run(msgspec.structs.replace(moved, link=Link(device_id="elsewhere")))

    (second,) = deliveries(bench.run(report(State.SENT, "d1")))

    assert second.downlink is not None
    assert (second.downlink.id, second.link) == ("d2", Link(device_id="dev"))


def test_repeat_of_an_empty_answer_stays_empty() -> None:
    """A repeat of a request that got nothing gets nothing, also when a downlink came since."""
    bench = Bench()
    bench.wait(window("a"))
    bench.run(request(1))

    assert bench.wait(window("a", repeated=True)).downlink_id == ""
    assert bench.wait(window("b")).downlink_id == "d1"


def test_repeat_after_not_answered_takes_it_up_again() -> None:
    """The repeat of a request whose answer got lost gets the same downlink, and it is under way
    again.
    """
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))
    bench.run(report(State.QUEUED, "d1", reason="not_answered"))

    assert bench.wait(window("a", repeated=True)).downlink_id == "d1"
    assert status(bench, "d1").state is State.ANSWERING


def test_repeat_does_not_give_what_was_cancelled() -> None:
    """A downlink that was taken back since is not given to a repeat."""
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))
    bench.run(report(State.QUEUED, "d1", reason="not_answered"))
    bench.run(Cancel("c", "t", "dev", 1, downlink_id="d1", by="ann"))

    assert bench.wait(window("a", repeated=True)).downlink_id == ""


def test_late_window_takes_nothing() -> None:
    """A window whose deadline has passed uses nothing up: nobody waits any more."""
    bench = Bench()
    bench.run(request(1))

    assert bench.wait(window("a"), timeout_ms=0).downlink_id == ""
    assert status(bench, "d1").state is State.QUEUED


def test_late_replay_of_a_window_moves_nothing() -> None:
    """A window that comes again after its deadline does not take its downlink up again."""
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))
    bench.run(report(State.QUEUED, "d1", reason="not_answered"))

    assert bench.wait(window("a"), timeout_ms=0).downlink_id == ""
    assert status(bench, "d1").state is State.QUEUED


def test_not_answered_is_put_back_as_possibly_delivered() -> None:
    """An answer that perhaps did not arrive waits again, first in line and flagged."""
    bench = Bench()
    bench.run(request(1), request(2, queue="last"))
    bench.wait(window("a"))

    assert states(bench.run(report(State.QUEUED, "d1", reason="not_answered"))) == ["queued"]
    assert status(bench, "d1").possibly_delivered
    assert bench.wait(window("b")).downlink_id == "d1"


def test_too_late_is_surely_not_delivered() -> None:
    """What came after the door had answered without it waits again, unflagged."""
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))
    bench.run(report(State.QUEUED, "d1", reason="too_late"))

    assert not status(bench, "d1").possibly_delivered


def test_no_report_puts_it_back_by_timer() -> None:
    """Where the door says nothing (it died), the downlink waits again after deadline and grace."""
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))
    deadline = bench.now_ms + 9_000

    assert states(bench.advance(deadline + ANSWER_GRACE_MS - 1)) == []
    assert states(bench.advance(deadline + ANSWER_GRACE_MS)) == ["queued"]
    assert status(bench, "d1").possibly_delivered
    assert status(bench, "d1").reason == "no_report"


def test_late_report_of_an_answer_counts() -> None:
    """The door's report after the timer still makes it `sent`: it is not given again."""
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))
    bench.advance(bench.now_ms + 9_000 + ANSWER_GRACE_MS)

    assert states(bench.run(report(State.SENT, "d1"))) == ["sent"]
    assert bench.wait(window("b")).downlink_id == ""


def test_unanswered_fail() -> None:
    """With `unanswered: fail` a lost answer is not given to another request."""
    bench = Bench(unanswered="fail")
    bench.run(request(1))
    bench.wait(window("a"))
    bench.run(report(State.QUEUED, "d1", reason="not_answered"))

    assert (
        status(bench, "d1").state,
        status(bench, "d1").possibly_delivered,
    ) == (State.FAILED, True)
    assert bench.wait(window("b")).downlink_id == ""


def test_replace_is_the_default_on_synchronous_links() -> None:
    """The last downlink waits; it says what it took the place of."""
    bench = Bench()
    bench.run(request(1))

    assert states(bench.run(request(2)), "d1") == ["superseded"]
    assert status(bench, "d1").by == "d2"
    assert bench.wait(window("a")).downlink_id == "d2"


def test_put_back_yields_to_a_later_replace() -> None:
    """A lost answer does not come back before the downlink that replaced it."""
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))
    bench.run(request(2))
    bench.run(report(State.QUEUED, "d1", reason="not_answered"))

    assert State.SUPERSEDED is status(bench, "d1").state
    assert bench.wait(window("b")).downlink_id == "d2"


def test_put_back_yields_to_a_later_one_of_its_key() -> None:
    """A lost answer does not come back beside the downlink that has its supersede key since."""
    bench = Bench()
    bench.run(request(1, queue="last", supersede_key="target"))
    bench.wait(window("a"))
    bench.run(request(2, queue="last", supersede_key="target"))
    bench.run(report(State.QUEUED, "d1", reason="not_answered"))

    assert (status(bench, "d1").state, status(bench, "d1").by) == (State.SUPERSEDED, "d2")


def test_put_back_does_not_yield_to_an_earlier_replace() -> None:
    """What was put before a waiting downlink and did not arrive goes before it again."""
    bench = Bench()
    bench.run(request(1, queue="replace"), request(2, queue="first"))
    bench.wait(window("a"))
    bench.run(report(State.QUEUED, "d2", reason="too_late"))

    assert bench.wait(window("b")).downlink_id == "d2"


def test_first_and_last() -> None:
    """`first` goes before what waits, `last` after it."""
    bench = Bench()
    bench.run(request(1, queue="last"), request(2, queue="last"), request(3, queue="first"))

    taken = [bench.wait(window(key)).downlink_id for key in "abc"]

    assert taken == ["d3", "d1", "d2"]


def test_supersede_key() -> None:
    """A downlink takes the place of a waiting one with the same key, and of no other."""
    bench = Bench()
    bench.run(
        request(1, queue="last", supersede_key="target"),
        request(2, queue="last"),
        request(3, queue="last", supersede_key="target"),
    )

    assert [status(bench, d).state for d in ("d1", "d2", "d3")] == [
        State.SUPERSEDED,
        State.QUEUED,
        State.QUEUED,
    ]


def test_expires_by_timer() -> None:
    """A waiting downlink expires at its time, without any traffic."""
    bench = Bench()
    bench.run(request(1, expires_at_ms=bench.now_ms + 50))

    assert states(bench.advance(bench.now_ms + 49)) == []
    assert states(bench.advance(bench.now_ms + 1)) == ["expired"]
    assert bench.wait(window("a")).downlink_id == ""


def test_expired_before_its_timer_is_not_given() -> None:
    """A request that comes before the due timer is handled does not get what has run out."""
    bench = Bench()
    bench.run(request(1, queue="last", expires_at_ms=bench.now_ms + 50), request(2, queue="last"))
    bench.now_ms += 60

    assert bench.wait(window("a")).downlink_id == "d2"
    assert State.EXPIRED is status(bench, "d1").state


def test_expires_at_once() -> None:
    """A downlink whose time had run out before it was asked for ends as expired."""
    bench = Bench()

    assert states(bench.run(request(1, expires_at_ms=bench.now_ms))) == [
        "requested",
        "encoded",
        "expired",
    ]


def test_expired_while_answering_stays_with_its_request() -> None:
    """The expiry of a downlink that is in an answer does not end it: the report says what became
    of it.
    """
    bench = Bench()
    bench.run(request(1, expires_at_ms=bench.now_ms + 50))
    bench.wait(window("a"))

    assert states(bench.advance(bench.now_ms + 50)) == []
    assert states(bench.run(report(State.SENT, "d1"))) == ["sent"]


def test_put_back_after_its_time_expires() -> None:
    """What would be put back after its expiry ends there, without the next request."""
    bench = Bench()
    bench.run(request(1, expires_at_ms=bench.now_ms + 50))
    bench.wait(window("a"))
    bench.advance(bench.now_ms + 50)

    assert states(bench.run(report(State.QUEUED, "d1", reason="not_answered"))) == ["expired"]
    assert status(bench, "d1").possibly_delivered
    assert bench.wait(window("b")).downlink_id == ""


@pytest.mark.parametrize("code", ["f_port", "payload_length"])
def test_what_the_network_server_cannot_carry_fails(code: str) -> None:
    """A downlink that its network server cannot carry fails with the reason; nothing waits."""
    bench = Bench(dialect=FakeDialect(refuses=code))

    assert states(bench.run(request(1))) == ["requested", "failed"]
    assert code == status(bench, "d1").reason
    assert bench.wait(window("a")).downlink_id == ""


def test_encoder_that_throws_fails_only_its_own() -> None:
    """A script's error fails that downlink with script and line; the others of the batch go on."""
    bench = Bench()
    bench.run(request(1, fields={"bad": True}), request(2))

    assert (
        status(bench, "d1").state,
        status(bench, "d1").reason,
        status(bench, "d1").detail["line"],
    ) == (State.FAILED, "script_threw", 3)
    assert State.QUEUED is status(bench, "d2").state
    assert bench.scripts.batches == [2], "one call of the engine for the whole batch"


def test_request_without_content_fails() -> None:
    """A downlink with neither payload nor fields fails with `no_payload`."""
    bench = Bench()
    bench.run(RequestedDownlink("d1", "t", "dev", "link", 1, DownlinkRequest()))

    assert status(bench, "d1").reason == "no_payload"


@pytest.mark.parametrize(("takes_fields", "state"), [(False, "failed"), (True, "queued")])
def test_fields_without_an_encoder(takes_fields: bool, state: str) -> None:
    """Fields without an encoder fail with `no_encoder`, but where the link takes fields."""
    bench = Bench(encoder=None, dialect=FakeDialect(takes_fields=takes_fields))
    bench.run(request(1))

    assert status(bench, "d1").state == state
    assert status(bench, "d1").reason == ("" if takes_fields else "no_encoder")


def test_unknown_integration_fails() -> None:
    """A device without a known integration cannot be reached: failed, with the reason."""
    bench = Bench()
    bench.run(
        RequestedDownlink("d1", "t", "dev", "gone", 1, DownlinkRequest(payload=b"\x01", f_port=1))
    )

    assert status(bench, "d1").reason == "no_integration"


def test_payload_goes_past_the_encoder() -> None:
    """Bytes that are given go as they are; no script runs."""
    bench = Bench()
    bench.run(
        RequestedDownlink("d1", "t", "dev", "link", 1, DownlinkRequest(payload=b"\xff", f_port=3))
    )

    assert (status(bench, "d1").payload, status(bench, "d1").f_port) == (b"\xff", 3)
    assert bench.scripts.batches == []


def test_queue_has_a_limit() -> None:
    """Over the limit the new downlink fails with `queue_full`; those that wait stay."""
    bench = Bench(queue_max=1)
    bench.run(request(1, queue="last"), request(2, queue="last"))

    assert (status(bench, "d2").state, status(bench, "d2").reason) == ("failed", "queue_full")
    assert bench.wait(window("a")).downlink_id == "d1"


def test_same_request_again_changes_nothing() -> None:
    """A request with a known id is not queued twice."""
    bench = Bench()
    bench.run(request(1))

    assert states(bench.run(request(1))) == []
    assert bench.parts[KEY]["order"]["waiting"] == ["d1"]


def test_asynchronous_hands_over_one_at_a_time() -> None:
    """On an asynchronous link the next delivery leaves only when the one before has its outcome."""
    bench = Bench(synchronous=False)
    out = bench.run(request(1), request(2))

    assert [(d.destination, d.downlink.id) for d in deliveries(out) if d.downlink] == [
        ("downlink-link", "d1")
    ]
    assert out[-1].topic == "delivery.t.downlink-link" or any(
        o.topic == "delivery.t.downlink-link" for o in out
    )
    after = bench.run(report(State.SENT, "d1"))
    assert [d.downlink.id for d in deliveries(after) if d.downlink] == ["d2"]
    assert Link(device_id="dev") == deliveries(after)[0].link


def test_failed_delivery_lets_the_next_go() -> None:
    """A refused downlink fails with the reason, and the next one leaves."""
    bench = Bench(synchronous=False)
    bench.run(request(1), request(2))
    out = bench.run(report(State.FAILED, "d1", reason="rejected", detail={"status": 400}))

    assert (
        status(bench, "d1").reason,
        status(bench, "d1").detail["status"],
    ) == ("rejected", 400)
    assert [d.downlink.id for d in deliveries(out) if d.downlink] == ["d2"]


def test_failed_delivery_that_may_have_arrived_is_flagged() -> None:
    """A downlink that failed or expired after a try without an answer says that it may be there."""
    bench = Bench(synchronous=False)
    bench.run(request(1))
    bench.run(report(State.EXPIRED, "d1", detail={"possibly_delivered": True}))

    assert status(bench, "d1").possibly_delivered


def test_network_servers_reports_move_it_on() -> None:
    """queued, ack: accepted, then acknowledged; older news changes nothing and is no fault."""
    bench = Bench(synchronous=False)
    bench.run(request(1))
    out = bench.run(
        report(State.ACCEPTED, "d1"),
        report(State.SENT, "d1"),
        report(State.ACKNOWLEDGED, "d1"),
        report(State.ACCEPTED, "d1"),
    )

    assert states(out) == ["accepted", "acknowledged"]
    assert letters(out) == []


def test_a_sink_may_tell_an_outcome_again_when_its_downlink_is_forgotten() -> None:
    """A sink that died tells outcomes a second time; no dead letter says that all is well."""
    bench = Bench()
    again = msgspec.structs.replace(report(State.SENT, "forgotten"), outcome=True)

    assert bench.run(again) == []


def test_report_without_id_is_about_the_last_sent() -> None:
    """Sigfox's ACKNOWLEDGE names no downlink: it is about the device's last one that was sent."""
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))
    bench.run(report(State.SENT, "d1"))

    assert states(bench.run(report(State.ACKNOWLEDGED)), "d1") == ["acknowledged"]


def test_impossible_reports_are_kept() -> None:
    """News of an unknown downlink, or of an illegal move, is a dead letter: nothing vanishes."""
    bench = Bench()
    bench.run(request(1))
    out = bench.run(report(State.SENT, "other"), report(State.ACKNOWLEDGED, "d1"))

    assert [letter.reason for letter in letters(out)] == ["unknown_downlink", "illegal_move"]
    assert State.QUEUED is status(bench, "d1").state


def test_cancel_one_and_all() -> None:
    """A waiting downlink is cancelled by somebody; one under way is not; all means all that
    wait.
    """
    bench = Bench()
    bench.run(request(1, queue="last"), request(2, queue="last"), request(3, queue="last"))
    bench.wait(window("a"))

    assert bench.wait(Cancel("c1", "t", "dev", 1, downlink_id="d1")).status == 409
    assert bench.wait(Cancel("c2", "t", "dev", 1, downlink_id="nope")).status == 404
    assert bench.wait(Cancel("c3", "t", "dev", 1, by="ann")).body == {"cancelled": ["d2", "d3"]}
    assert status(bench, "d2").by == "ann"


def test_queries_are_answered_by_the_owner() -> None:
    """A query after a write sees it: under way, waiting in order, ended."""
    bench = Bench()
    bench.run(request(1, queue="last"), request(2, queue="last"), request(3, queue="first"))
    bench.wait(window("a"))

    listed = bench.wait(Query("q", "t", "dev", 1, "downlinks")).body["downlinks"]

    assert [(d["id"], d["state"]) for d in listed] == [
        ("d3", "answering"),
        ("d1", "queued"),
        ("d2", "queued"),
    ]
    one = bench.wait(Query("q2", "t", "dev", 1, "downlink", downlink_id="d2"))
    assert (one.status, one.body["id"]) == (200, "d2")
    assert bench.wait(Query("q3", "t", "dev", 1, "downlink", downlink_id="x")).status == 404


def test_request_of_an_application_is_answered() -> None:
    """A request with `reply_to` is told what became of it: 202, or 422 with the reason."""
    bench = Bench()

    assert (
        (reply := bench.wait(request(1))).status,
        reply.body["state"],
    ) == (202, "queued")
    assert (
        (reply := bench.wait(request(2, fields={"bad": 1}))).status,
        reply.body["reason"],
    ) == (422, "script_threw")


def test_forget_leaves_nothing() -> None:
    """A forgotten device has no parts and no timers."""
    bench = Bench()
    bench.run(request(1, expires_at_ms=bench.now_ms + 50))
    bench.wait(window("a"))
    bench.wait(Forget("f", "t", "dev", 1))

    assert bench.parts[KEY] == {}
    assert bench.timers == {}


def test_forgotten_downlinks_leave_a_trace() -> None:
    """What waits for a device that is forgotten ends as cancelled, by whom; it is not just gone."""
    bench = Bench()
    bench.run(request(1))

    out = bench.run(Forget("f", "t", "dev", 1, by="ann"))

    (told,) = [
        msgspec.json.decode(o.value or b"", type=Downlink)
        for o in out
        if o.topic == topics.DOWNLINK_STATUS
    ]
    assert (told.id, told.state, told.by) == ("d1", State.CANCELLED, "ann")
    assert bench.parts[KEY] == {}


def test_values_that_no_state_keeps() -> None:
    """A number past 64 bits, in what is asked for or in a report of it, is a dead letter of its own
    record: it must not stop the stage, and what stood before stands.
    """
    bench = Bench(synchronous=False, dialect=FakeDialect(takes_fields=True), encoder=None)
    asked = bench.run(request(1, fields={"v": 10**30}), request(2), request(3))
    told = bench.run(report(State.SENT, "d2", detail={"info_code": 10**30}))

    assert [letter.reason for letter in letters(asked) + letters(told)] == ["state", "state"]
    assert status(bench, "d2").state is State.SENDING
    assert states(bench.run(report(State.SENT, "d2")))[0] == "sent"
    assert status(bench, "d3").state is State.SENDING


def test_undecodable_record_is_kept() -> None:
    """A record that is not JSON of a known kind is a dead letter; the next one is handled."""
    bench = Bench()
    bad = Record(topics.DOWNLINK_REQUESTED, 0, 1, 0, KEY, b"{nonsense", {})
    out = bench._handle(Batch(0, [bad]))

    assert [letter.reason for letter in letters(out)] == ["undecodable"]
    assert letters(out)[0].value == b"{nonsense"


def test_history_is_bounded() -> None:
    """Ended downlinks do not pile up in the device's state; what is loaded with it are the last
    two and the one that lives.
    """
    bench = Bench()
    for n in range(60):
        bench.run(request(n % 200, work_id=f"x{n}"))

    near = [part for part in bench.parts[KEY] if part.startswith("downlink/")]
    aside = [part for part in bench.parts[KEY] if part.startswith("!downlink/")]
    assert sorted(near) == ["downlink/x57", "downlink/x58", "downlink/x59"]
    assert sorted(aside) == [f"!downlink/x{n}" for n in range(39, 57)]
    assert bench.loaded_aside == []


def test_what_ended_long_ago_is_still_known() -> None:
    """A downlink that is not loaded with its device is found by its id and in the list, and takes
    late news; one that nobody knows is not looked for in the store.
    """
    bench = Bench(synchronous=False)
    for n in range(10):
        bench.run(request(n))
        bench.run(report(State.SENT, f"d{n}"))
        bench.now_ms += 1

    asked = Query(id="q", tenant="t", device="dev", time_ms=1, what="downlinks")
    listed = bench.wait(asked).body["downlinks"]
    assert [each["id"] for each in listed] == [f"d{n}" for n in range(9, -1, -1)]
    assert bench.loaded_aside == ["!downlink/"]

    assert states(bench.run(report(State.ACKNOWLEDGED, "d1"))) == ["acknowledged"]
    assert bench.parts[KEY]["downlink/d1"]["state"] == "acknowledged"
    assert "!downlink/d1" not in bench.parts[KEY]
    assert bench.loaded_aside == ["!downlink/", "!downlink/d1"]

    out = bench.run(report(State.ACKNOWLEDGED, "nobody"))
    assert [letter.reason for letter in letters(out)] == ["unknown_downlink"]
    assert bench.loaded_aside == ["!downlink/", "!downlink/d1"]


def test_reference_is_looked_for_among_the_last_first() -> None:
    """A network server's name of a downlink is found wherever that one is kept, and what ended
    long ago is loaded only where none of the last ones is meant.
    """
    bench = Bench(synchronous=False)
    for n in range(6):
        bench.run(request(n))
        bench.run(report(State.SENT, f"d{n}", reference=f"r{n}"))

    assert states(bench.run(report(State.ACKNOWLEDGED, reference="r5"))) == ["acknowledged"]
    assert bench.loaded_aside == []
    assert states(bench.run(report(State.ACKNOWLEDGED, reference="r0"))) == ["acknowledged"]
    assert bench.loaded_aside == ["!downlink/"]


def test_windows_are_bounded() -> None:
    """Requests that got a downlink are remembered only while they may be repeated, and never too
    many; of one that got none nothing is kept.
    """
    bench = Bench(limits=Limits(windows_max=64))
    for n in range(200):
        bench.now_ms += 10
        bench.run(request(n))
        assert bench.wait(window(f"k{n}")).downlink_id == f"d{n}"
        bench.run(report(State.SENT, f"d{n}"))
    assert 60 <= len([p for p in bench.parts[KEY] if p.startswith("window/")]) <= 65

    bench.now_ms += 900_001
    bench.wait(window("new"))
    assert [p for p in bench.parts[KEY] if p.startswith("window/")] == []


def test_every_legal_life_ends() -> None:
    """From each state an end can be reached, and ends lead nowhere (but a nack that turns out an
    ack).
    """
    ends = {s for s in State if not MOVES[s]}

    for state in State:
        reached, fresh = {state}, {state}
        while fresh:
            fresh = {t for s in fresh for t in MOVES[s]} - reached
            reached |= fresh
        assert reached & ends
    assert not may_move(State.FAILED, State.QUEUED)


def sent_as(bench: Bench, n: int, reference: str) -> None:
    """Hand downlink `n` over; the network server calls it `reference`."""
    bench.run(request(n))
    bench.run(report(State.SENT, f"d{n}", detail={"reference": reference}))


def test_a_report_names_the_downlink_as_the_network_server_does() -> None:
    """ChirpStack's reports know its own id alone: the hand-over told it, so the right one moves."""
    bench = Bench(synchronous=False)
    sent_as(bench, 1, "item-1")
    sent_as(bench, 2, "item-2")

    bench.run(report(State.ACKNOWLEDGED, reference="item-1"))

    assert status(bench, "d1").state is State.ACKNOWLEDGED
    assert status(bench, "d2").state is State.SENT


def test_a_report_may_overtake_the_answer_that_names_its_downlink() -> None:
    """Before the hand-over's outcome is known, a reference is that of the one under way."""
    bench = Bench(synchronous=False)
    bench.run(request(1))

    bench.run(report(State.ACCEPTED, reference="item-1"))
    bench.run(report(State.SENT, "d1", detail={"reference": "item-1"}))
    bench.run(report(State.ACKNOWLEDGED, reference="item-1"))

    assert status(bench, "d1").state is State.ACKNOWLEDGED
    assert status(bench, "d1").detail["reference"] == "item-1"


def test_a_report_of_somebody_elses_downlink_moves_none() -> None:
    """A reference that is none of ours is a dead letter; our downlink stays as it is."""
    bench = Bench(synchronous=False)
    sent_as(bench, 1, "item-1")

    (letter,) = letters(bench.run(report(State.ACKNOWLEDGED, reference="theirs")))

    assert letter.reason == "unknown_downlink"
    assert "`theirs`" in letter.message
    assert status(bench, "d1").state is State.SENT


def test_history_of_an_earlier_form_is_taken_over() -> None:
    """A log that an earlier program wrote has all that ended near; it is known, takes news once,
    and goes away.
    """
    bench = Bench(synchronous=False)
    for n in range(20):
        bench.run(request(n))
        bench.run(report(State.SENT, f"d{n}"))
    parts = bench.parts[KEY]
    for part in [part for part in parts if part.startswith("!downlink/")]:
        parts[part.removeprefix("!")] = parts.pop(part)

    assert states(bench.run(report(State.ACCEPTED, "d3"))) == ["accepted"]
    assert states(bench.run(report(State.ACCEPTED, "d3"))) == []
    asked = Query(id="q", tenant="t", device="dev", time_ms=1, what="downlinks")
    assert sorted(each["id"] for each in bench.wait(asked).body["downlinks"]) == sorted(
        f"d{n}" for n in range(20)
    )
    for n in range(20, 60):
        bench.run(request(n))
        bench.run(report(State.SENT, f"d{n}"))

    near = [part for part in parts if part.startswith("downlink/")]
    assert sorted(near) == ["downlink/d58", "downlink/d59"]
    assert len([part for part in parts if part.startswith("!downlink/")]) == 18


def test_what_had_news_last_goes_last() -> None:
    """A downlink that the network server still tells of is not forgotten for later ones."""
    bench = Bench(synchronous=False)
    for n in range(20):
        bench.run(request(n))
        bench.run(report(State.SENT, f"d{n}"))
    bench.run(report(State.ACCEPTED, "d0"))
    for n in range(20, 30):
        bench.run(request(n))
        bench.run(report(State.SENT, f"d{n}"))

    assert states(bench.run(report(State.ACKNOWLEDGED, "d0"))) == ["acknowledged"]
    assert "downlink/d0" in bench.parts[KEY]
    assert "!downlink/d0" not in bench.parts[KEY]


def test_forget_takes_back_the_timers_of_what_ended_long_ago() -> None:
    """No timer of a forgotten device is left, wherever its downlinks were kept."""
    bench = Bench(synchronous=False)
    bench.run(request(0, expires_at_ms=10**12))
    bench.run(report(State.SENT, "d0"))
    assert bench.timers == {}
    bench.timers[KEY, "expire/d0"] = (10**12, None)  # of a log that an earlier program wrote
    for n in range(1, 4):
        bench.run(request(n))
        bench.run(report(State.SENT, f"d{n}"))
    assert "!downlink/d0" in bench.parts[KEY]

    bench.run(Forget(id="f", tenant="t", device="dev", time_ms=1, by="test"))
    assert bench.timers == {}
    assert not bench.parts[KEY]
