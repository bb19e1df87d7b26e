"""A node that waits: timers, node state, several messages; with a node of the test's own."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import pytest

from pipeline.errors import MessageError
from pipeline.model.event import Forget
from pipeline.model.record import REPLAY, REPLAY_CHAIN, Record
from pipeline.route import node as node_module
from pipeline.route import parse
from pipeline.route.limits import Limits
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit
from tests.unit.route.bench import KEY, START_MS, Bench, record, rulebook, uplink


class Wait(Onward):
    """Sends a message on after some seconds, and counts how many it has had of the device."""

    verb: ClassVar[str] = "wait"
    outlets: ClassVar[tuple[str, ...]] = ("then", "early")

    wait: int
    early: str | None = None

    def apply(self, visit: Visit) -> Outcome:
        count = (visit.recall() or 0) + 1
        visit.remember(count)
        visit.wake(visit.message.id, visit.now_ms + self.wait * 1_000, {"count": count})
        return [("early", visit.message)] if self.early else []

    def apply_timer(self, visit: Visit, data: Any) -> Outcome:
        if data["count"] == 13:
            raise MessageError("unlucky", code="thirteen")
        message = msgspec.structs.replace(visit.message, metadata=data)
        return [("then", message), ("then", visit.message)]


@pytest.fixture(autouse=True)
def with_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    every = {**node_module.nodes(), "wait": Wait}
    monkeypatch.setattr(parse, "nodes", lambda: every)


WAITING = """
chain: main
on: {messages: uplink}
nodes:
  - {name: rest, wait: 10}
  - {name: archive, send: {to: archive, body: ["${metadata}", "${attributes.server}"]}}
  - {name: done, set_attributes: {scope: server, values: {done: true}}}
"""


def test_message_goes_on_when_its_time_has_come() -> None:
    """A timer takes the message up at its node, with what it was given, and both messages that
    the node makes go to the end one after the other.
    """
    bench = Bench(rulebook(WAITING))

    assert list(bench.take(record(uplink()))) == []
    assert list(bench.wait(9_999)) == []
    made = bench.wait(1)

    assert made.bodies == [[{"count": 1}, {}], [{"rssi": -80}, {"done": True}]]
    assert len({delivery.id for delivery in made.deliveries}) == 2
    assert made[0].headers["trace"] == "u1"
    assert bench.timers == {}
    assert not [part for part in bench.parts[KEY] if part.startswith("timer/")]


def test_each_timer_causes_its_own_ids() -> None:
    """What a timer causes has other ids than what the message caused before."""
    text = WAITING.replace("wait: 10}", "wait: 10, early: archive}")
    bench = Bench(rulebook(text))

    before = bench.take(record(uplink()))
    after = bench.wait(10_000)

    ids = [delivery.id for delivery in (*before.deliveries, *after.deliveries)]
    assert len(ids) == len(set(ids)) == 3


def test_node_keeps_state_by_device() -> None:
    """What a node remembers is of one device."""
    bench = Bench(rulebook(WAITING))
    bench.take(record(uplink(1)), record(uplink(2)), record(uplink(1, device="two")))

    assert bench.parts[KEY]["node/main/rest"] == 2
    assert bench.parts["t/two"]["node/main/rest"] == 1


def test_position_holds_no_secret() -> None:
    """What waits in the state is the message without its link."""
    bench = Bench(rulebook(WAITING))
    bench.take(record(uplink()))

    assert "s3cret" not in str(bench.timers)


@pytest.mark.parametrize(
    "text", [WAITING.replace("rest", "pause"), WAITING.replace("chain: main", "chain: other")]
)
def test_node_that_is_gone(text: str) -> None:
    """A message whose node or chain was removed meanwhile is a dead letter that can be replayed."""
    bench = Bench(rulebook(WAITING))
    bench.take(record(uplink()))
    bench.books["t"] = rulebook(text, version="v2")

    made = bench.wait(10_000)

    (letter,) = made.letters
    assert letter.reason == "node_gone"
    assert letter.detail == {"chain": "main", "node": "rest", "rules": "v1"}
    bench.books["t"] = rulebook(WAITING, version="v3")
    headers = {**letter.headers, REPLAY: letter.id, REPLAY_CHAIN: "main"}
    again = bench.take(Record(letter.topic, 3, 1, START_MS, letter.key, letter.value, headers))
    assert again.letters == []
    assert len(bench.timers) == 1


def test_node_that_is_another_now() -> None:
    """A timer of a node that has become another kind without timers is a dead letter."""
    bench = Bench(rulebook(WAITING))
    bench.take(record(uplink()))
    bench.books["t"] = rulebook(WAITING.replace("wait: 10", 'log: {message: "x"}'), version="v2")

    made = bench.wait(10_000)

    assert [letter.reason for letter in made.letters] == ["node"]


def test_tenant_without_rules_when_a_timer_is_due() -> None:
    """Where the tenant's rules are gone, so is the node."""
    bench = Bench(rulebook(WAITING))
    bench.take(record(uplink()))
    bench.books.clear()

    assert [letter.reason for letter in bench.wait(10_000).letters] == ["node_gone"]


def test_failure_of_a_timer_is_undone_and_buried() -> None:
    """A node that fails when its timer is due leaves a dead letter of the message."""
    bench = Bench(rulebook(WAITING))
    bench.parts[KEY] = {"node/main/rest": 12}
    bench.take(record(uplink()))

    (letter,) = bench.wait(10_000).letters

    assert (letter.reason, letter.detail["node"]) == ("thirteen", "rest")


def test_timers_have_a_limit() -> None:
    """A device has so many timers and no more; replacing one counts once."""
    bench = Bench(rulebook(WAITING), limits=Limits(timers_max=2))

    made = bench.take(*(record(uplink(n)) for n in (1, 1, 2, 3)))

    assert [letter.reason for letter in made.letters] == ["timers"]
    assert len(bench.timers) == 2


def test_forget_cancels_timers() -> None:
    """A forgotten device's messages do not come back."""
    bench = Bench(rulebook(WAITING))
    bench.take(record(uplink()))

    bench.take(record(Forget(id="f", tenant="t", device="dev", time_ms=START_MS)))

    assert bench.timers == {}
    assert bench.parts[KEY] == {}


def test_node_state_has_a_limit() -> None:
    """A node that would keep too much of a device fails on the message."""
    bench = Bench(rulebook(WAITING), limits=Limits(node_state_bytes_max=0))

    assert [letter.reason for letter in bench.take(record(uplink())).letters] == ["node_state"]
