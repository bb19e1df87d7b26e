"""Windows that stay open: downlinks leave at once, one after the other, and wait when none is."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from pipeline import topics
from pipeline.model.downlink import State
from pipeline.model.event import Forget
from pipeline.model.record import Outgoing
from pipeline.model.reply import Reply, ReplyTo
from tests.unit.downlink.bench import (
    ANSWER_GRACE_MS,
    KEY,
    Bench,
    letters,
    report,
    request,
    states,
    status,
    window,
)

ANSWER_TIMEOUT_MS = 9_000  # that of the bench's integration


@dataclass(frozen=True)
class Connection:
    """An integration's connection that stays open."""

    stays_open: bool = True


def open_bench(**more: object) -> Bench:
    return Bench(connection=Connection(), **more)  # type: ignore[arg-type]


def opened(
    bench: Bench, name: str = "w1", *, key: str = "a", lasts_ms: int = 60_000
) -> list[Reply]:
    """Let an uplink come whose way back is the window `name`; return what leaves by it."""
    reply_to = ReplyTo(f"door-{name}", name, bench.now_ms + lasts_ms, mode="open")
    return replies(bench.run(window(key), reply_to=reply_to))


def replies(out: list[Outgoing]) -> list[Reply]:
    found = [
        (each.key, msgspec.json.decode(each.value or b"", type=Reply))
        for each in out
        if each.topic == topics.REPLY
    ]
    assert all(key == f"door-{reply.request}" for key, reply in found)
    return [reply for _, reply in found]


def test_what_is_asked_for_later_leaves_at_once() -> None:
    """A downlink that is asked for while the window is open leaves without an uplink."""
    bench = open_bench()
    assert opened(bench) == []

    (reply,) = replies(bench.run(request(1)))

    assert (reply.request, reply.downlink_id, reply.payload) == ("w1", "d1", b"\x01")
    assert status(bench, "d1").state is State.ANSWERING
    assert states(bench.run(report(State.SENT, "d1"))) == ["sent"]
    assert not bench.timers


def test_what_waits_leaves_when_the_window_opens() -> None:
    """A downlink that found no window leaves by the next one."""
    bench = open_bench()
    bench.run(request(1))

    assert [reply.downlink_id for reply in opened(bench)] == ["d1"]


def test_one_after_the_other() -> None:
    """The next one leaves when it is known what became of the one before, in order; none takes the
    place of another unless it is asked to.
    """
    bench = open_bench()
    opened(bench)

    assert [each.downlink_id for each in replies(bench.run(*map(request, (1, 2, 3))))] == ["d1"]
    assert [e.downlink_id for e in replies(bench.run(report(State.SENT, "d1")))] == ["d2"]
    assert [e.downlink_id for e in replies(bench.run(report(State.SENT, "d2")))] == ["d3"]


def test_a_window_that_is_gone() -> None:
    """The worker says that the window was closed: the downlink waits for the next one, unflagged,
    and no other is tried by the old one.
    """
    bench = open_bench()
    opened(bench)
    bench.run(request(1))

    assert states(bench.run(report(State.QUEUED, "d1", reason="too_late"))) == ["queued"]
    assert not status(bench, "d1").possibly_delivered
    assert replies(bench.run(request(2))) == []
    assert [each.downlink_id for each in opened(bench, "w2", key="b")] == ["d1"]


def test_a_downlink_that_perhaps_arrived() -> None:
    """What was written on a connection that then broke goes again, marked."""
    bench = open_bench()
    opened(bench)
    bench.run(request(1))
    bench.run(report(State.QUEUED, "d1", reason="not_answered"))

    assert status(bench, "d1").possibly_delivered
    assert [each.downlink_id for each in opened(bench, "w2", key="b")] == ["d1"]


def test_a_worker_that_died_says_nothing() -> None:
    """Without a report in time the downlink waits again, marked, and the window counts no more."""
    bench = open_bench()
    opened(bench, lasts_ms=3_600_000)
    bench.run(request(1))

    out = bench.advance(bench.now_ms + ANSWER_TIMEOUT_MS + ANSWER_GRACE_MS)

    assert states(out) == ["queued"]
    assert replies(out) == []
    assert status(bench, "d1").possibly_delivered
    assert replies(bench.run(request(2))) == []


def test_the_integration_may_rather_fail_it() -> None:
    """`unanswered: fail` ends what perhaps arrived, and the next one goes on when it can."""
    bench = open_bench(unanswered="fail")
    opened(bench)
    bench.run(request(1), request(2))

    assert states(bench.run(report(State.QUEUED, "d1", reason="not_answered"))) == ["failed"]
    assert [each.downlink_id for each in opened(bench, "w2", key="b")] == ["d2"]


def test_a_window_lasts_as_long_as_it_says() -> None:
    """After its deadline nothing is tried; the next uplink opens it anew."""
    bench = open_bench()
    opened(bench, lasts_ms=1_000)
    bench.now_ms += 1_000

    assert replies(bench.run(request(1))) == []
    assert "open/link" not in bench.parts[KEY]
    assert [each.downlink_id for each in opened(bench, key="b")] == ["d1"]


def test_the_newest_window_counts() -> None:
    """A device that connects again is reached there; what failed on the old connection goes out on
    the new one at once.
    """
    bench = open_bench()
    opened(bench, "w1")
    bench.run(request(1))
    assert opened(bench, "w2", key="b") == [], "one is under way"

    (reply,) = replies(bench.run(report(State.QUEUED, "d1", reason="too_late")))

    assert (reply.request, reply.downlink_id) == ("w2", "d1")
    assert replies(bench.run(report(State.SENT, "d1"))) == []
    assert [reply.request for reply in replies(bench.run(request(2)))] == ["w2"]


def test_a_repeated_uplink_opens_its_window() -> None:
    """A network server's repeat shows where the device is as well as the first message did."""
    bench = open_bench()
    bench.run(request(1))
    reply_to = ReplyTo("door-w1", "w1", bench.now_ms + 1_000, mode="open")

    out = bench.run(window("a", repeated=True), reply_to=reply_to)

    assert [reply.downlink_id for reply in replies(out)] == ["d1"]


def test_what_the_connection_cannot_say_fails() -> None:
    """A worker that cannot frame a downlink ends it, and the next one leaves."""
    bench = open_bench()
    opened(bench)
    bench.run(request(1), request(2))

    out = bench.run(report(State.FAILED, "d1", reason="not_framable"))

    assert states(out, "d1") == ["failed"]
    assert [reply.downlink_id for reply in replies(out)] == ["d2"]
    assert letters(out) == []


def test_a_request_that_waits_and_a_window_side_by_side() -> None:
    """A device that posts while its window is open: one downlink is under way at a time, and one
    that failed in the answer leaves by the window, which stays.
    """
    bench = open_bench()
    bench.run(request(1))
    assert bench.wait(window("a")).downlink_id == "d1"
    assert opened(bench, key="b") == []

    (reply,) = replies(bench.run(report(State.QUEUED, "d1", reason="too_late")))

    assert (reply.request, reply.downlink_id) == ("w1", "d1")


def test_an_answered_link_ignores_windows() -> None:
    """Where rules were edited so that a device is not answered any more, no window is kept."""
    bench = open_bench(synchronous=False)
    opened(bench)

    assert not bench.parts.get(KEY)


def test_a_forgotten_device_has_no_window() -> None:
    """Forgetting a device forgets the way to it."""
    bench = open_bench()
    opened(bench)
    bench.run(Forget(id="f", tenant="t", device="dev", time_ms=1))

    assert replies(bench.run(request(1))) == []
