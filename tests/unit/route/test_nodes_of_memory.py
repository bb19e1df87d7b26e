"""Nodes that remember: changes, differences, counts, sums, duplicates, rates."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.route.limits import Limits
from tests.unit.route.bench import START_MS, problems_of
from tests.unit.route.talk import Talk, chain, outlets, reasons, telemetry


def test_on_change_lets_news_through() -> None:
    """What is equal to the last that went on is no news; a value that is missing stays."""
    talk = Talk("on_change: {of: [telemetry.a, telemetry.b]}", "otherwise")
    said: list[dict[str, Any]] = [
        {"a": 1, "b": "x"}, {"a": 1, "b": "x"}, {"a": 1}, {"a": 1.0}, {"a": True}, {"b": "x"},
        {"b": [1]}, {"c": 1},
    ]  # fmt: skip

    went = [outlets(talk.at(number, values)) for number, values in enumerate(said, 1)]

    assert went == [[name] for name in (
        "then", "otherwise", "otherwise", "otherwise", "then", "otherwise", "then", "otherwise",
    )]  # fmt: skip


def test_on_change_measures_from_what_went_on() -> None:
    """A slow drift is news when it has gone far enough since the last news."""
    talk = Talk("on_change: {of: [telemetry.a], by: 0.5}", "otherwise")

    went = [outlets(talk.at(n, {"a": a}))[0] for n, a in enumerate((20, 20.3, 20.5, 20.8, 20.0))]

    assert went == ["then", "otherwise", "then", "otherwise", "then"]


def test_on_change_says_so_at_least_every() -> None:
    """After `at_least_every` the same value goes on; an older message never does."""
    talk = Talk("on_change: {of: [telemetry.a], at_least_every: 10s}", "otherwise")

    assert outlets(talk.at(1, {"a": 1})) == ["then"]
    assert outlets(talk.at(10, {"a": 1})) == ["otherwise"]
    assert outlets(talk.at(11, {"a": 1})) == ["then"]
    assert outlets(talk.at(12, {"a": 2}, time_ms=START_MS + 5_000)) == ["otherwise"]
    assert outlets(talk.at(30, {"b": 1})) == ["otherwise"]


def test_clock_that_was_ahead_locks_nothing() -> None:
    """A message from the future counts as of now, so that later ones are still news."""
    talk = Talk("on_change: {of: [telemetry.a]}", "otherwise")
    year_ms = 365 * 86_400_000
    ahead = {"time_ms": START_MS + year_ms, "received_ms": START_MS + year_ms}

    assert outlets(talk.at(1, {"a": 1}, **ahead)) == ["then"]
    assert outlets(talk.at(2, {"a": 2})) == ["then"]


def test_delta_subtracts_the_last() -> None:
    """The difference and the seconds between stand in the message; whole numbers stay whole."""
    talk = Talk("delta: {of: telemetry.n.a, elapsed_s: metadata.s}", "otherwise")

    assert outlets(talk.at(1, {"n": {"a": 10}})) == ["otherwise"]
    assert outlets(talk.at(2, {"b": 1})) == ["otherwise"]
    made = talk.at(3.5, {"n": {"a": 7}})
    assert telemetry(made) == [{"n": {"a": 7, "a_delta": -3}}]
    assert made.bodies[0][2]["s"] == 2.5
    assert outlets(talk.at(4, {"n": {"a": 99}}, time_ms=START_MS)) == ["otherwise"]
    assert telemetry(talk.at(5, {"n": {"a": 7}})) == [{"n": {"a": 7, "a_delta": 0}}]


@pytest.mark.parametrize(
    ("more", "after", "delta"),
    [
        ("wraps_at: 65536", 5, 15),
        ("wraps_at: 65536", 65_530, 4),
        ("restarts: true", 5, 5),
        ("restarts: true", 65_530, 4),
    ],
)
def test_delta_of_counters(more: str, after: int, delta: int) -> None:
    """A counter that wraps or restarts gives what was really counted."""
    talk = Talk(f"delta: {{of: telemetry.a, into: telemetry.d, {more}}}")
    talk.at(1, {"a": 65_526})

    assert telemetry(talk.at(2, {"a": after})) == [{"a": after, "d": delta}]


@pytest.mark.parametrize("value", ["7", True, [1], {"x": 1}])
def test_delta_of_no_number(value: Any) -> None:
    """A value that is no number fails the message and leaves what was kept."""
    talk = Talk("delta: {of: telemetry.a}")
    talk.at(1, {"a": 1})

    assert reasons(talk.at(2, {"a": value})) == ["number"]
    assert telemetry(talk.at(3, {"a": 3})) == [{"a": 3, "a_delta": 2}]


def test_edit_begins_anew() -> None:
    """A node that became another, or watches another place, reads nothing of what was there."""
    talk = Talk("delta: {of: telemetry.a}", "otherwise")
    talk.at(1, {"a": 1, "b": 5})
    talk.change("delta: {of: telemetry.b}", "otherwise")
    assert outlets(talk.at(2, {"a": 1, "b": 5})) == ["otherwise"]
    talk.change("count: {into: telemetry.n}")
    assert telemetry(talk.at(3, {})) == [{"n": 1}]
    talk.bench.parts["t/dev"]["node/main/a"] = [1, 2]
    assert telemetry(talk.at(4, {})) == [{"n": 1}]


def test_count_numbers_the_messages() -> None:
    """Each `every`-th goes on; where `restart` is true, the count begins anew."""
    talk = Talk("count: {into: telemetry.n, every: 2, restart: has(telemetry.new)}", "otherwise")

    made = [talk.at(n, values) for n, values in enumerate(({}, {}, {}, {"new": 1}, {}), 1)]

    assert [(body[0], body[1]["n"]) for one in made for body in one.bodies] == [
        ("otherwise", 1), ("then", 2), ("otherwise", 3), ("otherwise", 1), ("then", 2),
    ]  # fmt: skip


def test_accumulate_sums_up() -> None:
    """All functions over what came until now; messages without a value do not count."""
    talk = Talk(
        "accumulate: {into: metadata.t, restart: has(telemetry.new), values: {"
        "n: {count: telemetry.a}, s: {sum: telemetry.a}, lo: {min: telemetry.a}, "
        "hi: {max: telemetry.a}, m: {mean: telemetry.a}, f: {first: telemetry.d}, "
        "l: {last: telemetry.d}, d: {distinct: telemetry.d}}}"
    )
    talk.at(1, {"a": 4, "d": "x"})
    talk.at(2, {"a": -1, "d": {"k": 1, "j": 2}})
    talk.at(3, {"a": None})
    made = talk.at(4, {"a": 6, "d": {"j": 2, "k": 1}})
    late = talk.at(5, {"a": 0, "d": "y"}, time_ms=START_MS)
    again = talk.at(6, {"a": 2, "new": True})

    assert made.bodies[0][2]["t"] == {
        "n": 3, "s": 9, "lo": -1, "hi": 6, "m": 3.0, "f": "x", "l": {"j": 2, "k": 1}, "d": 2,
    }  # fmt: skip
    assert late.bodies[0][2]["t"]["f"] == "y"
    assert late.bodies[0][2]["t"]["l"] == {"j": 2, "k": 1}
    assert again.bodies[0][2]["t"] == {"n": 1, "s": 2, "lo": 2, "hi": 2, "m": 2.0}


def test_accumulate_of_too_many_distinct_values() -> None:
    """What is kept has an end, and says so."""
    talk = Talk("accumulate: {values: {d: {distinct: telemetry.a}}}")
    talk.at(1, {"a": 0})
    kept = talk.kept()
    (mark,) = kept["kept"]
    kept["kept"][mark] = {f"{number:012x}": 1 for number in range(1_000)}

    assert reasons(talk.at(2, {"a": "new"})) == ["distinct"]


def test_accumulate_of_huge_numbers() -> None:
    """A sum that no state can keep fails the message, not the worker."""
    talk = Talk("accumulate: {values: {s: {sum: telemetry.a}}}")
    talk.at(1, {"a": 2**62})
    talk.at(2, {"a": 2**62})

    assert reasons(talk.at(3, {"a": 2**63})) == ["state"]


def test_deduplicate_knows_like_messages() -> None:
    """The first of like messages goes on, until its time is over; order of keys does not matter."""
    talk = Talk("deduplicate: {by: '${telemetry}', within: 10s}", "otherwise")

    assert outlets(talk.at(1, {"a": 1, "b": 2})) == ["then"]
    assert outlets(talk.at(5, {"b": 2, "a": 1})) == ["otherwise"]
    assert outlets(talk.at(6, {"a": 1})) == ["then"]
    assert outlets(talk.at(11, {"a": 1, "b": 2})) == ["then"]
    assert outlets(talk.at(12, {"a": 1})) == ["otherwise"]


def test_deduplicate_has_a_limit() -> None:
    """Over `keys_max` the oldest is forgotten."""
    talk = Talk("deduplicate: {by: '${telemetry.a}', within: 1h, keys_max: 2}", "otherwise")
    for number in (1, 2, 3):
        talk.at(number, {"a": number})

    assert len(talk.kept()["seen"]) == 2
    assert outlets(talk.at(4, {"a": 3})) == ["otherwise"]
    assert outlets(talk.at(5, {"a": 1})) == ["then"]


def test_throttle_lets_so_many_through() -> None:
    """So many go on in each span, counted from its first message."""
    talk = Talk("throttle: {messages: 2, per: 10s}", "otherwise")

    went = [outlets(talk.at(at))[0] for at in (1, 2, 3, 10, 11, 12, 20.9, 21)]

    assert went == ["then", "then", "otherwise", "otherwise", "then", "then", "otherwise", "then"]


def test_throttle_counts_by_arrival() -> None:
    """A worker that catches up lets through what came in its own time."""
    talk = Talk("throttle: {per: 10s}", "otherwise")
    arrived = [
        talk.at(100 + n / 1_000, received_ms=START_MS + n * 5_000)
        for n in range(4)
    ]  # fmt: skip

    assert [outlets(made)[0] for made in arrived] == ["then", "otherwise", "then", "otherwise"]


def test_nothing_is_written_where_nothing_is_new() -> None:
    """A throttled message costs no write."""
    talk = Talk("throttle: {per: 10s}", "otherwise")
    talk.at(1)
    talk.at(2)

    assert ("t/dev", "node/main/a") not in talk.bench.writes


def test_memory_has_a_limit() -> None:
    """What a device sends cannot make a node keep more than its limit."""
    talk = Talk("on_change: {of: [telemetry.a]}", limits=Limits(node_state_bytes_max=100))

    assert reasons(talk.at(1, {"a": "x" * 100})) == ["node_state"]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("on_change: {of: []}", "must not be empty"),
        ("on_change: {of: [telemetry.a], by: -1}", "must be at least 0"),
        ("on_change: {of: [telemetry.a], at_least_every: 0}", "must be a duration from"),
        ("delta: {of: telemetry.a, wraps_at: 0}", "must be greater than 0"),
        ("delta: {of: telemetry.a, wraps_at: 9, restarts: true}", "a number either wraps"),
        ("count: {into: telemetry}", "`telemetry` is no place"),
        ("count: {into: telemetry.n, every: 0}", "must be at least 1"),
        ("accumulate: {values: {}}", "must not be empty"),
        ("accumulate: {values: {a: {men: telemetry.a}}}", "there is no function `men`"),
        ("accumulate: {values: {a: {max: a}}}", "`a` is no place"),
        ("accumulate: {values: {a: telemetry.a}}", "must be a function of a place"),
        ("deduplicate: {by: x, within: 400d}", "must be a duration from"),
        ("throttle: {per: 1m, messages: 0}", "must be at least 1"),
        ("throttle: {per: 1m, messages: 2, take: last}", "`take: last` sends one"),
    ],
)
def test_check_says_what_is_wrong_with_a_memory(node: str, message: str) -> None:
    """What can be known without a message is a problem."""
    assert problems_of(chain(node))[0].message.startswith(message)
