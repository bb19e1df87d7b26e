"""Calls of applications: a downlink asked for, and its reply told to who waits."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.downlink import DownlinkRequest, State
from pipeline.model.event import (
    CallEnded,
    DeviceCall,
    DownlinkReport,
    Forget,
    Idempotency,
    Query,
    Window,
)
from pipeline.model.record import REPLY_TO
from pipeline.model.reply import Reply
from pipeline.model.uplink import Report
from pipeline.route.limits import Limits
from tests.unit.route.bench import KEY, LINK, START_MS, Bench, Made, record, rulebook, uplink

CHAIN = "chain: main\non: {messages: uplink}\nnodes:\n  - {name: a, log: {message: x}}\n"
MATCH = "telemetry.number == metadata.call.number"


def waits(request: str) -> dict[str, str]:
    """The header of a request that waits at the door."""
    return {REPLY_TO: f'{{"instance":"i1","request":"{request}","deadline_ms":9,"partition":2}}'}


def heard(**limits: int) -> Bench:
    """A stage that has had one uplink of the device."""
    bench = Bench(rulebook(CHAIN), limits=Limits(**limits))
    bench.take(record(uplink(1)))
    return bench


def asked(bench: Bench, call: str = "c1", **fields: Any) -> Made:
    event = DeviceCall(
        **{
            "id": call,
            "tenant": "t",
            "device": "dev",
            "time_ms": bench.now_ms,
            "request": DownlinkRequest(fields={"ask": "position"}, f_port=4),
            "timeout_ms": 10_000,
            "by": "key k1",
            **fields,
        }
    )
    return bench.take(record(event, **waits(f"r-{call}")))


def says(bench: Bench, nth: int, window: Window | None = None, **telemetry: Any) -> Made:
    return bench.take(record(uplink(nth, telemetry=telemetry, window=window)))


def question(bench: Bench, call: str = "") -> Reply:
    what: Any = "call" if call else "calls"
    event = Query("q", "t", "dev", START_MS, what, downlink_id=call)
    (reply,) = bench.take(record(event, **waits("q"))).replies
    return reply


def nothing_waits(bench: Bench) -> bool:
    left = [part for part in bench.parts[KEY] if part.startswith(("call/", "calls", "timer/"))]
    return left == [] and bench.timers == {}


def test_reply_by_a_later_uplink() -> None:
    """The downlink carries the call's number; the uplink with that number is the reply, and the
    second part of the answer.
    """
    bench = heard()

    begun = asked(bench, reply=MATCH, number_field="number")
    other = says(bench, 2, number=9)
    made = says(bench, 3, number=1, position=70)
    later = says(bench, 4, number=1)

    (downlink,) = begun.downlinks
    assert downlink.request.fields == {"ask": "position", "number": 1}
    assert (downlink.answer_parts, downlink.link, downlink.integration) == (2, LINK, "lora")
    assert downlink.request.expires_at_ms == START_MS + 10_000
    assert begun.replies == other.replies == later.replies == []
    (reply,) = made.replies
    assert (reply.request, reply.part, reply.of, reply.status) == ("r-c1", 2, 2, 200)
    assert (reply.body["id"], reply.body["state"]) == (downlink.id, "replied")
    assert reply.body["reply"]["telemetry"] == {"number": 1, "position": 70}
    (out,) = made.of("reply")
    assert (out.key, out.partition) == ("i1", 2)
    assert nothing_waits(bench)


def test_next_uplink_is_the_reply_by_default() -> None:
    """Without `reply` each further uplink answers the oldest call that is open."""
    bench = heard()
    asked(bench, "c1")
    asked(bench, "c2")

    replies = [reply.request for n in (2, 3, 4) for reply in says(bench, n, n=n).replies]

    assert replies == ["r-c1", "r-c2"]


def test_uplink_that_carries_the_call_is_no_reply() -> None:
    """Where the downlink leaves in the answer to an uplink, the one after it is the reply; an
    uplink whose answer carries nothing lets it wait.
    """
    bench = heard()
    asked(bench)

    deaf = says(bench, 2, Window("k2", carries=False), n=2)
    carrying = says(bench, 3, Window("k3"), n=3)
    made = says(bench, 4, Window("k4"), n=4)

    assert deaf.replies == carrying.replies == []
    assert made.replies[0].body["reply"]["telemetry"] == {"n": 4}


def test_no_reply_in_time() -> None:
    """The call ends as `timeout`; who asks later is told so."""
    bench = heard()
    (downlink,) = asked(bench).downlinks

    made = bench.wait(10_000)
    later = says(bench, 2)

    (reply,) = made.replies
    assert (reply.status, reply.body["error"]["code"]) == (504, "timeout")
    assert later.replies == []
    assert question(bench, downlink.id).body["state"] == "timeout"
    assert nothing_waits(bench)


def test_persistent_call_goes_on() -> None:
    """The downlink stays, and a reply after the time can be asked for; without an end of its own
    a call ends by the limit.
    """
    bench = heard(call_open_ms=60_000)
    (downlink,) = asked(bench, persistent=True).downlinks
    (ends,) = asked(bench, "c2", persistent=True, reply="telemetry.never == 1").downlinks

    bench.wait(59_000)
    waiting = question(bench, downlink.id)
    says(bench, 2, position=70)
    bench.wait(1_000)

    assert downlink.request.expires_at_ms is None
    assert (waiting.status, waiting.body["state"]) == (200, "waiting")
    replied = question(bench, downlink.id).body
    assert (replied["state"], replied["reply"]["telemetry"]) == ("replied", {"position": 70})
    assert question(bench, ends.id).body["state"] == "timeout"
    assert nothing_waits(bench)


@pytest.mark.parametrize(
    ("until", "state", "status"),
    [
        ("sent", State.SENT, 200),
        ("acknowledged", State.ACKNOWLEDGED, 200),
        ("acknowledged", State.NOT_ACKNOWLEDGED, 502),
        ("reply", State.FAILED, 502),
        ("reply", State.SENT, None),
        ("acknowledged", State.SENT, None),
    ],
)
def test_news_of_the_downlink(until: str, state: State, status: int | None) -> None:
    """How far the downlink has come ends the call, good or bad."""
    bench = heard()
    (downlink,) = asked(bench, until=until).downlinks
    report = DownlinkReport("r", "t", "dev", START_MS, Report(state, downlink.id, reason="why"))

    made = bench.take(record(report))

    assert [reply.status for reply in made.replies] == ([] if status is None else [status])


def test_downlink_that_cannot_be_made() -> None:
    """The door's news ends the call, so that no later uplink is taken for its reply; a second
    request with its key is told the same.
    """
    bench = heard()
    key = Idempotency("k", "digest")
    (downlink,) = asked(bench, idempotency=key).downlinks
    ended = CallEnded("e", "t", "dev", START_MS, downlink.id, "failed", reason="no_encoder",
                      message="there is none", detail={"status": 422})  # fmt: skip
    bench.take(record(ended))

    later = says(bench, 2)
    (again,) = asked(bench, "c2", idempotency=key).replies

    assert later.replies == []
    assert (again.part, again.of, again.status) == (1, 1, 422)
    assert again.body["error"]["code"] == "no_encoder"
    assert nothing_waits(bench)


def test_second_request_with_the_key_waits_for_the_same_reply() -> None:
    """One downlink leaves; both requests get the reply, and a third one gets it at once."""
    bench = heard()
    key = Idempotency("k", "digest")
    first = asked(bench, "c1", idempotency=key)

    second = asked(bench, "c2", idempotency=key)
    made = says(bench, 2, position=70)
    third = asked(bench, "c3", idempotency=key)

    assert (len(first.downlinks), second.downlinks, third.downlinks) == (1, [], [])
    (joined,) = second.replies
    assert (joined.part, joined.of, joined.status, joined.body["state"]) == (1, 2, 202, "waiting")
    assert [(each.request, each.status) for each in made.replies] == [("r-c1", 200), ("r-c2", 200)]
    (kept,) = third.replies
    assert (kept.part, kept.of, kept.body) == (1, 1, made.replies[0].body)
    assert len({out.headers["id"] for out in made.of("reply")}) == 2


def test_key_of_another_request_is_refused() -> None:
    """The same key with another body is a mistake, and no downlink leaves."""
    bench = heard()
    asked(bench, idempotency=Idempotency("k", "digest"))

    made = asked(bench, "c2", idempotency=Idempotency("k", "other"))

    assert made.downlinks == []
    assert made.replies[0].body["error"]["code"] == "idempotency_key_reused"


def test_key_is_forgotten_with_time() -> None:
    """After `calls_kept_ms` a key is new again."""
    bench = heard(calls_kept_ms=1_000)
    key = Idempotency("k", "digest")
    asked(bench, idempotency=key)
    says(bench, 2)
    bench.now_ms += 1_001

    assert len(asked(bench, "c2", idempotency=key).downlinks) == 1


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"reply": "telemetry."}, 400, "reply"),
        ({"reply": "1 + 1"}, 400, "reply"),
        ({"reply": "nowhere.x == 1"}, 400, "reply"),
        ({"device": "other"}, 404, "device_unknown"),
    ],
)
def test_call_that_cannot_begin(fields: dict[str, Any], status: int, code: str) -> None:
    """It is refused with a reason, and leaves nothing behind."""
    bench = heard()
    before = dict(bench.parts[KEY])

    made = asked(bench, **fields)

    (reply,) = made.replies
    assert (reply.status, reply.body["error"]["code"]) == (status, code)
    assert made.work == []
    assert bench.parts[KEY] == before


def test_limits_of_calls() -> None:
    """Open calls of a device, requests that wait for one, and ended calls that are kept."""
    bench = heard(calls_max=2, call_waiters_max=2, calls_kept_max=2)
    key = Idempotency("k", "digest")
    asked(bench, "c1", idempotency=key)
    for number in range(3):
        asked(bench, f"w{number}", idempotency=key)
    asked(bench, "c2")

    (refused,) = asked(bench, "c3").replies
    told = [reply.request for reply in says(bench, 2).replies]
    says(bench, 3)
    asked(bench, "c4")
    says(bench, 4)

    assert (refused.status, refused.body["error"]["code"]) == (429, "calls")
    assert told == ["r-w1", "r-w2"]
    assert len(question(bench).body["calls"]) == 2


def test_reply_too_long_to_keep() -> None:
    """Who waits gets it whole; later it is told that it was left out."""
    bench = heard(call_answer_bytes_max=500)
    (downlink,) = asked(bench).downlinks

    made = says(bench, 2, text="x" * 600)

    assert made.replies[0].body["reply"]["telemetry"]["text"] == "x" * 600
    kept = question(bench, downlink.id).body
    assert (kept["state"], kept["reply"], kept["reply_left_out"]) == ("replied", None, True)


def test_calls_are_listed() -> None:
    """Those that wait come first, then the ended ones, newest first; an unknown one is 404."""
    bench = heard()
    for call in ("c1", "c2", "c3"):
        asked(bench, call)
    says(bench, 2)
    bench.now_ms += 1
    says(bench, 3)

    calls = question(bench).body["calls"]

    shown = [(call["id"], call["state"], call["number"], call["by"]) for call in calls]
    assert shown == [
        ("c3.downlink", "waiting", 3, "key k1"),
        ("c2.downlink", "replied", 2, "key k1"),
        ("c1.downlink", "replied", 1, "key k1"),
    ]
    assert question(bench, "c9").status == 404


def test_call_after_a_restart() -> None:
    """Another process with the same state takes the reply."""
    bench = heard()
    asked(bench, reply=MATCH)
    after = heard()
    after.parts, after.timers = bench.parts, bench.timers

    made = says(after, 2, number=1)

    assert [reply.request for reply in made.replies] == ["r-c1"]


def test_forgotten_device_has_no_calls() -> None:
    """Forgetting a device takes back its calls, and forgets the ended ones."""
    bench = heard()
    asked(bench)

    bench.take(record(Forget("f", "t", "dev", START_MS)))

    assert bench.timers == {}
    assert bench.parts[KEY] == {}
