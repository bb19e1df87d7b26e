"""Nodes that ask and wait for the reply: remote_call, call_device."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.downlink import State
from pipeline.model.event import CallEnded, DownlinkReport, Forget, Window
from pipeline.model.record import TRACE_ID
from pipeline.model.uplink import Report
from pipeline.route.limits import Limits
from tests.unit.route.bench import KEY, START_MS, Bench, Made, problems_of, record, rulebook, uplink

SERVICE = """
chain: main
on: {messages: uplink}
nodes:
  - {name: wanted, filter: has(telemetry.ask)}
  - {name: ask, remote_call: {to: application, body: {q: "${telemetry.ask}"}, timeout: 10s}WAYS}
  - name: got
    send: {to: archive, body: [reply, "${telemetry.ask}", "${metadata.reply}"]}
    then: stop
  - {name: lost, send: {to: archive, body: [failed, "${metadata.reply}"]}, then: stop}
  - {name: late, send: {to: archive, body: [timeout, "${metadata.reply.reason}"]}, then: stop}
"""
WAYS = ", failed: lost, timeout: late"


def service(ways: str = WAYS, **limits: int) -> Bench:
    text = SERVICE.replace("WAYS", ways)
    if not ways:
        text = text[: text.index("  - {name: lost")]
    return Bench(rulebook(text), limits=Limits(**limits))


def ask(bench: Bench, number: int = 1) -> Made:
    return bench.take(record(uplink(number, telemetry={"ask": number})))


def ended(call: str, how: Any = "replied", **fields: Any) -> CallEnded:
    return CallEnded(f"{call}.ended", "t", "dev", START_MS + 5_000, call, how, **fields)


def nothing_waits(bench: Bench) -> bool:
    """Whether nothing of a call is left in the state."""
    left = [part for part in bench.parts[KEY] if part.startswith(("call", "timer/"))]
    return left == [] and bench.timers == {}


def test_request_and_reply() -> None:
    """The request leaves by the sink, the message waits, and goes on with the answer."""
    bench = service()

    asked = ask(bench)
    (delivery,) = asked.deliveries
    made = bench.take(record(ended(delivery.id, answer={"status": 200, "body": {"a": 1}})))

    assert (delivery.destination, delivery.body) == ("application", {"q": 1})
    assert (delivery.awaited, delivery.expires_at_ms) == (True, START_MS + 10_000)
    assert made.bodies == [["reply", 1, {"status": 200, "body": {"a": 1}}]]
    assert nothing_waits(bench)


def test_reply_after_a_restart() -> None:
    """Another process with the same state takes the reply; the trace is that of the request."""
    bench = service()
    (delivery,) = ask(bench).deliveries
    after = service()
    after.parts, after.timers = bench.parts, bench.timers

    event = ended(delivery.id, answer={"status": 204, "body": None})
    made = after.take(record(event, **{TRACE_ID: "u1"}))

    assert made.bodies == [["reply", 1, {"status": 204, "body": None}]]
    assert {out.headers[TRACE_ID] for out in made} == {"u1"}


def test_timeout_then_reply() -> None:
    """What comes after the time has no effect but a line in the log."""
    bench = service()
    (delivery,) = ask(bench).deliveries

    late = bench.wait(10_000)
    made = bench.take(record(ended(delivery.id, answer={"status": 200, "body": 1})))

    assert late.bodies == [["timeout", "timeout"]]
    assert made == []
    assert [line.message for line in bench.lines] == ["the end of a call came too late: replied"]
    assert nothing_waits(bench)


def test_reply_then_nothing_more() -> None:
    """A reply takes the timer back; the same outcome told again has no effect."""
    bench = service()
    (delivery,) = ask(bench).deliveries
    event = ended(delivery.id, answer={"status": 200, "body": 1})

    first = bench.take(record(event), record(event))
    later = bench.wait(60_000)

    assert len(first.bodies) == 1
    assert later == []


def test_refusal() -> None:
    """What the sink says of a refused request stands with the message."""
    bench = service()
    (delivery,) = ask(bench).deliveries

    made = bench.take(
        record(
            ended(delivery.id, "failed", reason="rejected", message="it answered 404",
                  detail={"status": 404})
        )
    )  # fmt: skip

    assert made.bodies == [
        [
            "failed",
            {
                "reason": "rejected",
                "message": "it answered 404",
                "detail": {"status": 404},
            },
        ]
    ]


@pytest.mark.parametrize("how", ["failed", "timeout"])
def test_end_that_nobody_takes(how: str) -> None:
    """Where the outlet is not named the node fails: the message is a dead letter, not lost."""
    bench = service("")
    (delivery,) = ask(bench).deliveries
    if how == "timeout":
        made = bench.wait(10_000)
    else:
        made = bench.take(record(ended(delivery.id, "failed", reason="rejected", message="no")))

    (letter,) = made.letters
    assert letter.reason == f"call_{how}"
    assert letter.detail["node"] == "ask"
    assert b'"ask":1' in (letter.value or b"")


def test_others_go_on_meanwhile() -> None:
    """Messages of the device do not wait for those that do; each reply finds its own."""
    bench = service()
    first, second = (ask(bench, number).deliveries[0] for number in (1, 2))

    made = bench.take(
        record(ended(second.id, answer={"status": 200, "body": "b"})),
        record(ended(first.id, answer={"status": 200, "body": "a"})),
    )

    assert [(body[1], body[2]["body"]) for body in made.bodies] == [(2, "b"), (1, "a")]


def test_too_many_calls() -> None:
    """Over the limit of one device the node fails, and no request leaves."""
    bench = service(calls_max=2)
    for number in (1, 2):
        ask(bench, number)

    made = ask(bench, 3)

    assert [letter.reason for letter in made.letters] == ["calls"]
    assert made.deliveries == []


def test_node_is_gone() -> None:
    """A reply, or the end of the time, for a node that was edited away: a dead letter."""
    bench = service()
    (first,) = ask(bench, 1).deliveries
    ask(bench, 2)
    bench.books["t"] = rulebook(SERVICE.replace("WAYS", WAYS).replace("name: ask", "name: other"))

    replied = bench.take(record(ended(first.id, answer=None)))
    late = bench.wait(10_000)

    for made, number in ((replied, 1), (late, 2)):
        (letter,) = made.letters
        assert (letter.reason, letter.detail["node"]) == ("node_gone", "ask")
        assert f'"ask":{number}'.encode() in (letter.value or b"")
    assert nothing_waits(bench)


def test_another_kind_of_node() -> None:
    """A node of that name that calls nobody takes no reply."""
    bench = service()
    (delivery,) = ask(bench).deliveries
    bench.books["t"] = rulebook(
        "chain: main\non: {messages: uplink}\nnodes:\n  - {name: ask, log: {message: x}}\n"
    )

    made = bench.take(record(ended(delivery.id, answer=None)))

    assert [letter.reason for letter in made.letters] == ["node"]


def test_forgotten_device_waits_for_nothing() -> None:
    """Forgetting a device takes back its calls."""
    bench = service()
    (delivery,) = ask(bench).deliveries

    bench.take(record(Forget("f", "t", "dev", START_MS)))
    made = bench.wait(60_000) + bench.take(record(ended(delivery.id, answer=None)))

    assert [out for out in made if out.topic != "reply"] == []


def test_unknown_sink() -> None:
    """A sink that is not there is said before it runs."""
    text = SERVICE.replace("WAYS", WAYS).replace("to: application", "to: aplication")

    (problem,) = problems_of(text)

    assert problem.path == ("nodes", 1, "remote_call", "to")
    assert problem.suggestion == "did you mean `application`?"


VALVE = """
chain: main
on: {messages: uplink}
nodes:
  - {name: asks, filter: has(telemetry.ask), otherwise: seen}
  - name: ask
    call_device:
      f_port: 4
      payload: {number: "${metadata.call.number}"}
      timeout: 1hMORE
    failed: lost
    timeout: late
  - name: got
    send: {to: archive, body: [reply, "${telemetry.ask}", "${metadata.reply}"]}
    then: stop
  - {name: lost, send: {to: archive, body: [failed, "${metadata.reply.reason}"]}, then: stop}
  - {name: late, send: {to: archive, body: [timeout, "${telemetry.ask}"]}, then: stop}
  - {name: seen, send: {to: archive, body: [seen, "${telemetry}"]}, then: stop}
"""
MATCH = "\n      reply: telemetry.number == metadata.call.number"


def valve(more: str = MATCH) -> Bench:
    return Bench(rulebook(VALVE.replace("MORE", more)))


def says(bench: Bench, nth: int, **telemetry: Any) -> Made:
    return bench.take(record(uplink(nth, telemetry=telemetry)))


def test_device_replies_by_a_later_uplink() -> None:
    """The downlink carries the call's number; the uplink with that number is the reply. It enters
    the chains itself too.
    """
    bench = valve()

    asked = says(bench, 1, ask="where")
    other = says(bench, 2, number=9)
    made = says(bench, 3, number=1, position=70)

    (downlink,) = asked.downlinks
    assert (downlink.request.fields, downlink.request.f_port) == ({"number": 1}, 4)
    assert downlink.request.expires_at_ms == START_MS + 3_600_000
    assert other.bodies == [["seen", {"number": 9}]]
    telemetry = {"number": 1, "position": 70}
    reply = {
        "id": "u3.0", "time": "2025-11-21T08:00:03.000Z", "f_port": None, "telemetry": telemetry
    }  # fmt: skip
    assert made.bodies == [["seen", telemetry], ["reply", "where", reply]]
    assert nothing_waits(bench)


def test_each_reply_finds_its_call() -> None:
    """Two calls are under way; replies come in the other order."""
    bench = valve()
    says(bench, 1, ask="a")
    says(bench, 2, ask="b")

    made = [*says(bench, 3, number=2).bodies, *says(bench, 4, number=1).bodies]

    assert [body[1] for body in made if body[0] == "reply"] == ["b", "a"]


def test_next_uplink_is_the_reply_by_default() -> None:
    """Without `reply` the next uplink answers the oldest call, and only that one."""
    bench = valve("")
    says(bench, 1, ask="a")

    made = [*says(bench, 2, x=1).bodies, *says(bench, 3, x=2).bodies]

    assert [body[1] for body in made if body[0] == "reply"] == ["a"]


def test_uplink_that_carries_the_call_is_no_reply() -> None:
    """A call that nobody's answer has carried yet, as one that a timer began, leaves in the answer
    to the next uplink; the one after that is the reply.
    """
    bench = valve("")
    says(bench, 1, ask="a")  # its own request waits for no answer

    waiting = uplink(2, telemetry={"x": 1}, window=Window("k2"))
    carried = bench.take(record(waiting))
    made = bench.take(record(uplink(3, telemetry={"x": 2}, window=Window("k3"))))

    assert [body[0] for body in carried.bodies] == ["seen"]
    assert [body[0] for body in made.bodies] == ["seen", "reply"]
    assert made.bodies[1][2]["telemetry"] == {"x": 2}


def test_the_message_that_asks_is_no_reply() -> None:
    """Neither the asking message nor the repeat of it ends the call."""
    bench = valve("")

    made = says(bench, 1, ask="a")

    assert made.bodies == []
    assert not nothing_waits(bench)


def test_numbers_fit_a_byte() -> None:
    """Calls are numbered 1 to 255, then from 1 again."""
    bench = valve()
    numbers = []
    for number in range(1, 258):
        numbers.append(says(bench, number, ask=1).downlinks[0].request.fields["number"])
        says(bench, 1_000 + number, number=numbers[-1])

    assert numbers == [*range(1, 256), 1, 2]


def test_no_reply_in_time() -> None:
    """The message leaves by `timeout`, once; the downlink expires with it."""
    bench = valve()
    says(bench, 1, ask="a")

    made = bench.wait(3_600_000)
    later = says(bench, 2, number=1)

    assert made.bodies == [["timeout", "a"]]
    assert later.bodies == [["seen", {"number": 1}]]
    assert nothing_waits(bench)


def test_persistent_downlink_outlives_the_wait() -> None:
    """`persistent` leaves the downlink in the queue; `expires_in` says another end."""
    stays = valve("\n      persistent: true")
    ends = valve("\n      expires_in: 2h")

    (first,) = says(stays, 1, ask="a").downlinks
    (second,) = says(ends, 1, ask="a").downlinks

    assert first.request.expires_at_ms is None
    assert second.request.expires_at_ms == START_MS + 7_200_000


def report(call: str, state: State, reason: str = "") -> Any:
    event = DownlinkReport(f"r-{call}-{state}", "t", "dev", START_MS + 2_000,
                           Report(state, call, reason=reason))  # fmt: skip
    return record(event)


@pytest.mark.parametrize(
    ("until", "states", "end"),
    [
        ("sent", [State.SENT], "reply"),
        ("sent", [State.QUEUED, State.ACKNOWLEDGED], "reply"),
        ("acknowledged", [State.SENT, State.ACKNOWLEDGED], "reply"),
        ("acknowledged", [State.SENT, State.NOT_ACKNOWLEDGED], "failed"),
        ("sent", [State.FAILED], "failed"),
        ("reply", [State.SENT, State.EXPIRED], "failed"),
        ("reply", [State.SENT, State.ACKNOWLEDGED], ""),
        ("acknowledged", [State.SENT], ""),
    ],
)
def test_call_one_way(until: str, states: list[State], end: str) -> None:
    """How far the downlink has come ends the call, good or bad; all news is handed on as well."""
    bench = valve(f"\n      until: {until}")
    (downlink,) = says(bench, 1, ask="a").downlinks

    made = Made()
    for state in states:
        made += bench.take(report(downlink.id, state))

    assert [body[0] for body in made.bodies] == ([end] if end else [])
    assert len(made.work) == len(states)


def test_acknowledgement_without_an_id() -> None:
    """A network server that cannot name the downlink means the last one."""
    bench = valve("\n      until: acknowledged")
    says(bench, 1, ask="a")

    made = bench.take(report("", State.ACKNOWLEDGED))

    assert made.bodies == [["reply", "a", {"state": "acknowledged", "reason": ""}]]


def test_reply_of_a_device_after_a_restart() -> None:
    """Another process with the same state takes the device's reply, and the end of the time."""
    bench = valve()
    says(bench, 1, ask="a")
    says(bench, 2, ask="b")
    after = valve()
    after.parts, after.timers, after.now_ms = bench.parts, bench.timers, bench.now_ms

    made = [*says(after, 3, number=1).bodies, *after.wait(3_600_000).bodies]

    assert [body[:2] for body in made if body[0] != "seen"] == [
        ["reply", "a"],
        ["timeout", "b"],
    ]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("{payload: {}, timeout: 1h, until: sent, reply: 'true'}", "until"),
        ("{timeout: 1h}", "payload"),
        ("{payload: {}}", "timeout"),
        ("{payload: {}, timeout: 1h, until: never}", "until"),
        ("{payload: {}, timeout: 1h, reply: 1 + 1}", "must be true or false"),
    ],
)
def test_faults_of_a_call(config: str, said: str) -> None:
    """What cannot be meant is said before it runs."""
    text = (
        f"chain: main\non: {{messages: uplink}}\nnodes:\n  - name: a\n    call_device: {config}\n"
    )

    problems = [problem for problem in problems_of(text) if not problem.warns]

    assert any(said in problem.message + str(problem.path) for problem in problems), problems
