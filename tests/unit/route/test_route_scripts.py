"""Scripts in chains: run in batches, each turn as if it had been walked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pipeline.errors import RetryableError, ScriptError
from pipeline.model.event import AttributesChange
from pipeline.model.record import Record
from pipeline.ports import ScriptCall
from pipeline.route.limits import Limits
from tests.unit.route.bench import START_MS, Bench, record, rulebook, uplink

Answer = Callable[[dict[str, Any]], Any]


class Engine:
    """A script engine that answers as the test says, and remembers its batches."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.batches: list[list[ScriptCall]] = []
        self.away = False

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        if self.away:
            raise RetryableError("the engine does not start")
        self.batches.append(list(calls))
        return [self.answer(call.argument) for call in calls]

    def close(self) -> None:
        """Nothing is open."""


def bench_of(answer: Answer, *chains: str, **limits: int) -> tuple[Bench, Engine]:
    engine = Engine(answer)
    book = rulebook(*(chains or (LEAN,)))
    return Bench(book, scripts=engine, limits=Limits(**limits)), engine


LEAN = """
chain: main
on: {messages: uplink}
nodes:
  - {name: a, script: x, otherwise: other}
  - {name: archive, send: {to: archive, body: ["${device.name}", "${telemetry}", "${message.id}"]}}
  - {name: end, log: {message: end}, then: stop}
  - {name: other, send: {to: archive, body: ["${device.name}", otherwise]}}
"""


def of_device(name: str, number: int = 1, **fields: Any) -> Record:
    return record(uplink(number, id=f"{name}-{number}.0", device=name, **fields))


def doubled(argument: dict[str, Any]) -> Any:
    return {"telemetry": {"n": argument["telemetry"]["n"] * 2}}


def test_one_batch_of_calls_for_all_devices() -> None:
    """Messages of many devices need one call of the engine; the outputs are those of walking each
    by itself.
    """
    bench, engine = bench_of(doubled)

    made = bench.take(*(of_device(f"d{n}", telemetry={"n": n}) for n in range(5)))

    assert [len(batch) for batch in engine.batches] == [5]
    assert made.bodies == [[f"d{n}", {"n": 2 * n}, f"d{n}-1.0"] for n in range(5)]


def test_order_of_one_device_holds() -> None:
    """Messages of one device wait for each other, and stay in order."""
    bench, _ = bench_of(doubled)

    made = bench.take(
        of_device("a", 1, telemetry={"n": 1}),
        of_device("b", 1, telemetry={"n": 10}),
        of_device("a", 2, telemetry={"n": 2}),
        of_device("a", 3, telemetry={"n": 3}),
    )

    assert [body[1]["n"] for body in made.bodies if body[0] == "a"] == [2, 4, 6]
    assert [body[1]["n"] for body in made.bodies if body[0] == "b"] == [20]


def test_what_came_before_the_script_happens_once() -> None:
    """A turn that is taken again counts, remembers and logs once."""
    bench, _ = bench_of(
        doubled,
        """
        chain: main
        on: {messages: uplink}
        nodes:
          - {name: total, accumulate: {into: metadata.all, values: {n: {sum: telemetry.n}}}}
          - {name: say, log: {message: "${metadata.all.n}"}}
          - {name: before, send: {to: archive, body: before}}
          - {name: a, script: x}
          - {name: b, script: y}
          - {name: after, send: {to: archive, body: "${telemetry.n}"}}
        """,
    )

    made = bench.take(*(of_device(name, telemetry={"n": 1}) for name in ("a", "b")))

    assert made.bodies == ["before", 4, "before", 4]
    assert [line.message for line in bench.lines] == ["1", "1"]
    fired = bench.metrics.values("funicular_rule_nodes_total")
    assert set(fired.values()) == {2}, "each node has sent on one message of each device"


@pytest.mark.parametrize("batched", [0, 1, 3])
def test_many_scripts_on_one_way(batched: int) -> None:
    """A message that passes more scripts than `scripts_batched_max` gets the same result."""
    nodes = "".join(f"  - {{name: s{n}, script: x}}\n" for n in range(6))
    text = f"chain: main\non: {{messages: uplink}}\nnodes:\n{nodes}"
    send = '  - {name: out, send: {to: archive, body: "${telemetry.n}"}}\n'
    bench, engine = bench_of(doubled, text + send, scripts_batched_max=batched)

    made = bench.take(*(of_device(name, telemetry={"n": 1}) for name in ("a", "b")))

    assert made.bodies == [64, 64]
    assert sum(map(len, engine.batches)) == 12, "no script runs twice"


def test_one_message_alone_is_walked_once() -> None:
    """A batch of one message asks the engine at once, and its turn is not taken again."""
    bench, engine = bench_of(doubled)

    made = bench.take(of_device("a", telemetry={"n": 1}))

    assert [len(batch) for batch in engine.batches] == [1]
    assert made.bodies == [["a", {"n": 2}, "a-1.0"]]


def test_engine_that_does_not_start() -> None:
    """The whole batch is tried again, and has its effects once."""
    bench, engine = bench_of(doubled)
    records = [of_device(name, telemetry={"n": 1}) for name in ("a", "b")]
    engine.away = True
    with pytest.raises(RetryableError):
        bench.take(*records)
    engine.away = False

    made = bench.take(*records)

    assert [body[0] for body in made.bodies] == ["a", "b"]


def test_failure_of_a_script_is_the_nodes() -> None:
    """A script's error makes a dead letter with its code and place; other messages go on."""
    wrong = ScriptError("x:3: no good", code="script_threw", script="x", line=3)
    bench, _ = bench_of(lambda argument: wrong if argument["telemetry"]["n"] else True)

    made = bench.take(*(of_device(f"d{n}", telemetry={"n": n}) for n in range(2)))

    (letter,) = made.letters
    assert (letter.reason, letter.detail["line"], letter.detail["node"]) == ("script_threw", 3, "a")
    assert [body[0] for body in made.bodies] == ["d0"]


def test_script_after_a_timer() -> None:
    """A message that waited goes on through a script, with others that are due."""
    bench, engine = bench_of(
        doubled,
        """
        chain: main
        on: {messages: uplink}
        nodes:
          - {name: wait, delay: 10s}
          - {name: a, script: x}
          - {name: out, send: {to: archive, body: "${telemetry.n}"}}
        """,
    )
    bench.take(*(of_device(name, telemetry={"n": 1}) for name in ("a", "b")))

    made = bench.wait(10_000)

    assert made.bodies == [2, 2]
    assert [len(batch) for batch in engine.batches] == [2]
    assert bench.timers == {}


def test_cascade_through_a_script() -> None:
    """A change of attributes enters its chain's script; the change is made once."""
    bench, engine = bench_of(
        lambda argument: {"telemetry": {"seen": argument["attributes"]["shared"]["target"]}},
        """
        chain: main
        on: {messages: attributes_updated}
        nodes:
          - {name: a, script: x}
          - {name: out, send: {to: archive, body: "${telemetry.seen}"}}
        """,
    )
    changes = [
        AttributesChange(f"c{n}", "t", f"d{n}", "shared", START_MS, {"target": n}) for n in (1, 2)
    ]

    made = bench.take(*map(record, changes))

    assert made.bodies == [1, 2]
    assert [len(batch) for batch in engine.batches] == [2]


@pytest.mark.parametrize(
    ("returned", "bodies"),
    [
        (True, [["d", {"n": 1}, "d-1.0"]]),
        (False, [["d", "otherwise"]]),
        ("otherwise", [["d", "otherwise"]]),
        (["then", "otherwise"], [["d", {"n": 1}, "d-1.0"], ["d", "otherwise"]]),
        (None, []),
        ([], []),
        ({"msg": {"m": 1}, "metadata": {}, "msgType": "POST_TELEMETRY_REQUEST"},
         [["d", {"m": 1}, "d-1.0"]]),
        ({"telemetry": {"m": 1}, "outlet": "otherwise"}, [["d", "otherwise"]]),
        ({"metadata": {"x": 1}, "device": {}, "attributes": {}, "time": ""},
         [["d", {"n": 1}, "d-1.0"]]),
    ],
)  # fmt: skip
def test_what_a_script_may_return(returned: Any, bodies: list[Any]) -> None:
    """A message, true or false, texts, a list, or nothing says where the message goes."""
    bench, _ = bench_of(lambda _argument: returned)

    made = bench.take(of_device("d", telemetry={"n": 1}))

    assert made.letters == []
    assert made.bodies == bodies


def test_several_messages_have_ids_of_their_own() -> None:
    """Each message of a list goes on by itself."""
    bench, _ = bench_of(lambda _argument: [{"msg": {"n": 1}}, {"msg": {"n": 2}}])

    made = bench.take(of_device("d"))

    assert [body[1] for body in made.bodies] == [{"n": 1}, {"n": 2}]
    assert len({body[2] for body in made.bodies}) == 2


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (7, "script_result"),
        ([7], "script_result"),
        ([{}] * 501, "script_result"),
        ({"temprature": 1}, "script_result"),
        ({"telemetry": [1]}, "script_result"),
        ({"metadata": None}, "script_result"),
        ({"type": ""}, "script_result"),
        ({"type": "x" * 65}, "script_result"),
        ({"msgType": 5}, "script_result"),
        ("nowhere", "script_outlet"),
        ({"outlet": "nowhere"}, "script_outlet"),
    ],
)
def test_what_a_script_may_not_return(returned: Any, reason: str) -> None:
    """What cannot go on becomes a dead letter that says why."""
    bench, _ = bench_of(lambda _argument: returned)

    made = bench.take(of_device("d"))

    assert [letter.reason for letter in made.letters] == [reason]
    assert made.bodies == []


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"msgType": "POST_TELEMETRY_REQUEST"}, "uplink"),
        ({"msgType": "MY_TYPE"}, "MY_TYPE"),
        ({"type": "status"}, "status"),
        ({"type": "uplink", "msgType": "ATTRIBUTES_UPDATED"}, "attributes_updated"),
    ],
)
def test_type_of_a_message(said: dict[str, Any], kind: str) -> None:
    """A script may change the type, by our word or ThingsBoard's."""
    bench, _ = bench_of(
        lambda _argument: said,
        """
        chain: main
        on: {messages: uplink}
        nodes:
          - {name: a, script: x}
          - {name: out, send: {to: archive, body: "${message.type}"}}
        """,
    )

    assert bench.take(of_device("d")).bodies == [kind]


def test_what_a_script_is_given() -> None:
    """The message, its device and attributes, and ThingsBoard's word for the type."""
    bench, engine = bench_of(lambda _argument: True)

    bench.take(of_device("d", telemetry={"n": 1}, metadata={"rssi": -80}))

    (call,) = engine.batches[0]
    assert (call.tenant, call.operation, call.script.language) == ("t", "handle_message",
                                                                   "javascript")  # fmt: skip
    argument = call.argument
    assert argument["telemetry"] == {"n": 1}
    assert argument["metadata"] == {"rssi": -80}
    assert (argument["type"], argument["msgType"]) == ("uplink", "POST_TELEMETRY_REQUEST")
    assert (argument["time_ms"], argument["time"]) == (START_MS + 1_000, "2025-11-21T08:00:01.000Z")
    assert argument["device"]["name"] == "d"
    assert argument["attributes"] == {"client": {}, "shared": {}, "server": {}}
