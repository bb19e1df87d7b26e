"""What is asked for: several at once, once a key, by priority; and the queue over there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline import topics
from pipeline.downlink.limits import Limits
from pipeline.model.downlink import DownlinkRequest, Priority, State
from pipeline.model.event import Cancel, Idempotency, Query, RequestedDownlinks
from pipeline.model.uplink import Link
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


def several(*values: int, work_id: str = "many", **asked: Any) -> RequestedDownlinks:
    """Return a request for downlinks of one byte each."""
    return RequestedDownlinks(
        id=work_id,
        tenant="t",
        device="dev",
        integration=asked.pop("integration", "link"),
        time_ms=1,
        requests=tuple(
            DownlinkRequest(fields={"v": value} if value >= 0 else {"bad": True}, queue="last")
            for value in values
        ),
        link=Link(device_id="dev"),
        **asked,
    )


def order(bench: Bench) -> list[str]:
    waiting: list[str] = bench.parts[KEY].get("order", {}).get("waiting", [])
    return waiting


def test_several_are_queued_in_their_order() -> None:
    """Downlinks that are asked for together wait in their order behind the others, and the answer
    has each of them.
    """
    bench = Bench()
    bench.run(request(9, queue="last"))

    said = bench.wait(several(1, 2))

    assert order(bench) == ["d9", "many.0", "many.1"]
    assert (said.status, [one["state"] for one in said.body["downlinks"]]) == (200, ["queued"] * 2)


def test_one_that_fails_fails_all() -> None:
    """Where one of several cannot be, none is queued: each is kept as failed, and the answer says
    which one was at fault.
    """
    bench = Bench()

    said = bench.wait(several(1, -1, 2))

    assert (said.status, said.body["error"]["code"], said.body["error"]["index"]) == (
        422,
        "script_threw",
        1,
    )
    assert order(bench) == []
    assert [status(bench, f"many.{n}").reason for n in range(3)] == [
        "rejected_together",
        "script_threw",
        "rejected_together",
    ]


def test_too_many_are_refused_together() -> None:
    """What would be over the queue's limit is refused as a whole; what waits stays."""
    bench = Bench(queue_max=2)
    bench.run(request(9, queue="last"))

    said = bench.wait(several(1, 2))

    assert said.body["error"]["code"] == "queue_full"
    assert order(bench) == ["d9"]
    assert bench.wait(several(1, 2, replace=True, work_id="r")).status == 200, "room was made"
    assert order(bench) == ["r.0", "r.1"]


def test_replace_takes_the_place_of_all_that_wait() -> None:
    """`replace` with several: what waited is superseded by the first of them."""
    bench = Bench()
    bench.run(request(8, queue="last"), request(9, queue="last"))

    bench.wait(several(1, 2, replace=True))

    assert order(bench) == ["many.0", "many.1"]
    assert (status(bench, "d8").state, status(bench, "d8").by) == (State.SUPERSEDED, "many.0")


def test_replace_with_nothing_empties_both_queues() -> None:
    """`replace` with nothing cancels what waits, and asks the network server to empty its own
    queue, behind what is on its way to it.
    """
    bench = Bench(synchronous=False)
    bench.run(request(1), request(2))

    out = bench.run(several(replace=True, by="key 1"))

    assert (status(bench, "d2").state, status(bench, "d2").by) == (State.CANCELLED, "key 1")
    (delivery,) = deliveries(out)
    assert (delivery.clear, delivery.downlink, delivery.link) == (True, None, Link(device_id="dev"))
    assert delivery.destination == "downlink-link"


def test_the_network_server_says_that_it_was_emptied() -> None:
    """What it had taken and not sent says so; what was transmitted, and other integrations', stay
    as they are.
    """
    bench = Bench(synchronous=False)
    bench.run(request(1), report(State.SENT, "d1"), request(2), report(State.ACCEPTED, "d2"))
    bench.run(report(State.ACCEPTED, "d2", detail={"transmitted": True}))
    bench.run(request(3, integration="twin"), report(State.SENT, "d3"))

    bench.run(msgspec.structs.replace(report(State.SENT, cleared=True), integration="link"))

    assert [status(bench, one).reason for one in ("d1", "d2", "d3")] == ["cleared", "", ""]


def test_transmission_is_told_after_acceptance() -> None:
    """The Things Stack says queued, then sent: both are `accepted`, and the second adds that it
    was transmitted; the same news again adds nothing.
    """
    bench = Bench(synchronous=False)
    bench.run(request(1), report(State.SENT, "d1"))
    sent = report(State.ACCEPTED, "d1", detail={"event": "downlink_sent", "transmitted": True})
    out = bench.run(report(State.ACCEPTED, "d1", detail={"event": "downlink_queued"}), sent, sent)

    assert states(out) == ["accepted", "accepted"]
    assert status(bench, "d1").detail["transmitted"] is True
    assert letters(out) == []


def test_second_request_with_a_key_gets_the_first_answer() -> None:
    """The same idempotency key and request: one downlink, and the first one's answer, also when
    that downlink is elsewhere by now.
    """
    bench = Bench()
    again = Idempotency("k1", "digest")
    first = bench.wait(msgspec.structs.replace(request(1), idempotency=again))
    bench.run(Cancel("c", "t", "dev", 1))

    second = bench.wait(
        msgspec.structs.replace(request(2, queue="last", work_id="other"), idempotency=again)
    )

    assert (second.status, second.body) == (first.status, first.body)
    assert order(bench) == []


def test_key_of_several() -> None:
    """A repeated request for several downlinks is answered as the first, refusals too."""
    bench = Bench()
    again = Idempotency("k1", "digest")
    first = bench.wait(several(1, -1, idempotency=again))
    second = bench.wait(several(1, 2, work_id="other", idempotency=again))

    assert (second.status, second.body) == (first.status, first.body)
    assert order(bench) == []


def test_key_of_another_request_is_refused() -> None:
    """A key that was used for another request is a mistake, and says so."""
    bench = Bench()
    bench.wait(msgspec.structs.replace(request(1), idempotency=Idempotency("k", "a")))

    said = bench.wait(msgspec.structs.replace(request(2), idempotency=Idempotency("k", "b")))

    assert (said.status, said.body["error"]["code"]) == (422, "idempotency_key_reused")
    assert order(bench) == ["d1"]


def test_kept_answers_are_bounded() -> None:
    """Answers are forgotten when they are too many, too old or too long."""
    limits = Limits(
        idempotency_keys_max=4, idempotency_ms=1_000, idempotency_answer_bytes_max=1_000
    )
    bench = Bench(limits=limits, dialect=FakeDialect(takes_fields=True), encoder=None)
    for n in range(10):
        bench.now_ms += 1
        long = request(n, fields={"v": "x" * 900})
        bench.wait(msgspec.structs.replace(long, idempotency=Idempotency(f"k{n}", "a")))
    kept = [value for part, value in bench.parts[KEY].items() if part.startswith("idem/")]

    assert len(kept) == 4
    assert kept[0]["body"]["id"] == "d6"
    assert "fields" not in kept[0]["body"]
    bench.now_ms += 2_000
    last = msgspec.structs.replace(request(99), idempotency=Idempotency("k9", "other"))
    assert bench.wait(last).status == 202, "the key is free again"
    assert len([part for part in bench.parts[KEY] if part.startswith("idem/")]) == 1


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ([("a", None), ("b", "high"), ("c", "high"), ("d", "low"), ("e", None)], "bcaed"),
        ([("a", "highest"), ("b", "lowest"), ("c", "normal")], "acb"),
        ([("a", None), ("b", None)], "ab"),
    ],
)
def test_priority_orders_the_queue(asked: list[tuple[str, Priority | None]], left: str) -> None:
    """A higher priority leaves first; equals in the order in which they were asked for."""
    bench = Bench()
    for number, (name, priority) in enumerate(asked):
        bench.run(request(number, work_id=name, queue="last", priority=priority))

    assert "".join(order(bench)) == left
    bench.run(request(50, work_id="z", queue="first", priority="lowest"))
    assert order(bench)[0] == "z", "`first` is before all"


def test_report_without_id_is_about_its_own_integration() -> None:
    """Sigfox's ACKNOWLEDGE says nothing of a downlink that another integration sent since."""
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("a"))
    bench.run(report(State.SENT, "d1"))
    bench.run(request(2, integration="moved"), report(State.SENT, "d2"))

    news = msgspec.structs.replace(report(State.ACKNOWLEDGED), integration="link")
    assert states(bench.run(news), "d1") == ["acknowledged"]
    stray = msgspec.structs.replace(report(State.ACKNOWLEDGED), integration="twin")
    assert [letter.reason for letter in letters(bench.run(stray))] == ["unknown_downlink"]
    assert status(bench, "d2").state is State.SENT


def test_correlation_ids_stay_with_the_downlink() -> None:
    """An application's own correlation ids are in the downlink's life."""
    bench = Bench()
    bench.run(request(1, correlation_ids=("mine:1",)))

    assert status(bench, "d1").correlation_ids == ("mine:1",)


def test_who_looks_learns_the_way_to_the_network_server() -> None:
    """A question for the network server's queue is answered with the ways of asynchronous links;
    others are not told, and no answer's body has them.
    """
    bench = Bench(synchronous=False)
    bench.run(request(1), request(2, integration="moved"))
    ask = Query("q", "t", "dev", 1, "downlinks", network_server=True)

    told = bench.wait(msgspec.structs.replace(ask, integration="twin", link=Link(device_id="x")))

    assert told.links == {"link": Link(device_id="dev"), "twin": Link(device_id="x")}
    assert bench.wait(msgspec.structs.replace(ask, network_server=False)).links == {}


def test_cancelling_all_can_empty_the_network_server() -> None:
    """The command names the integrations that are asked; each gets one delivery."""
    bench = Bench(synchronous=False)
    bench.run(request(1), request(2))
    wish = Cancel("c", "t", "dev", 1, by="ann", network_server=True)

    said = bench.wait(wish)

    assert said.body == {"cancelled": ["d2"], "clearing": ["link"]}
    cleared = [one for one in deliveries(bench.out) if one.clear]
    assert [one.destination for one in cleared] == ["downlink-link"]
    assert len({one.id for one in cleared}) == len(cleared)


def test_repeats_past_the_old_limit_are_known() -> None:
    """A device with more than 64 answered requests in the window: the first one's repeat still
    gets its answer.
    """
    bench = Bench()
    bench.run(request(1))
    bench.wait(window("first"))
    bench.run(report(State.SENT, "d1"))
    for number in range(200):
        bench.now_ms += 1_000
        bench.wait(window(f"k{number}"))

    assert bench.wait(window("first", repeated=True)).downlink_id == "d1"


def test_statuses_name_their_topic() -> None:
    """Each move of each of several downlinks is told on `downlink.status`."""
    bench = Bench()
    out = bench.run(several(1, 2))

    told = [one for one in out if one.topic == topics.DOWNLINK_STATUS]
    assert len({one.headers["id"] for one in told}) == len(told) == 6
