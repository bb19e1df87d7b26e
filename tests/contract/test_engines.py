"""What every engine promises its stages; an engine is plugged in by `engine_harness`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import RetryableError
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState
from tests.contract.clock import START_MS
from tests.contract.engine_harness import (
    FunctionStage,
    Harness,
    MemoryHarness,
    SqliteHarness,
    copy,
    engines,
    record,
    tally,
    values,
)


@pytest.fixture
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    """One engine of the suite, stopped at the end."""
    found: Harness = request.param(tmp_path)
    yield found
    found.stop()


@engines()
def test_each_record_is_handled_exactly_once_in_order(harness: Harness) -> None:
    """Whatever the size of batches, a stage sees each record once, in the order of appending."""
    stage = FunctionStage(copy)
    harness.start([stage], records_max=7)
    expected = [f"v{number}" for number in range(100)]
    for start in range(0, 100, 10):
        harness.append([record(f"k{start % 3}", value) for value in expected[start : start + 10]])
    harness.run()
    seen = [found for batch in stage.batches for found in batch.records]
    assert values(seen) == expected
    assert [found.offset for found in seen] == list(range(100))
    assert max(len(batch.records) for batch in stage.batches) <= 7
    assert values(harness.records("out")) == expected
    assert harness.lag() == 0


@engines()
def test_a_record_comes_as_it_was_appended(harness: Harness) -> None:
    """Topic, key, value, headers and the time of appending arrive unchanged, None and empty too."""
    sent = [
        Outgoing("in", "t/dévice:1#x", bytes(range(256)), {"trace": "ü", "rules": ""}),
        Outgoing("in", "", None, {}),
        Outgoing("in", "k", b"", {}, 0),
    ]
    stage = FunctionStage(copy)
    harness.start([stage])
    harness.append(sent)
    harness.run()
    seen = [found for batch in stage.batches for found in batch.records]
    assert [(r.topic, r.key, r.value, r.headers, r.partition, r.time_ms) for r in seen] == [
        (r.topic, r.key, r.value, r.headers, 0, START_MS) for r in sent
    ]


@engines()
def test_stages_feed_each_other(harness: Harness) -> None:
    """What one stage puts out is what the next one handles, in the same order."""

    def pass_on(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        return [Outgoing("in", found.key, found.value, {}) for found in batch.records]

    first = FunctionStage(pass_on, name="first", topic="door")
    second = FunctionStage(copy, name="second")
    harness.start([first, second], records_max=3)
    harness.append([record("k", str(number), "door") for number in range(20)])
    harness.run()
    assert values(harness.records("out")) == [str(number) for number in range(20)]


@engines()
def test_a_stage_that_raises_commits_nothing(harness: Harness) -> None:
    """A bug in a stage leaves no output, state or timer, and the error reaches whoever runs it."""

    def broken(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        tally(batch, state, now_ms)
        # Any but the first: two that are appended together may still be two batches.
        if any(found.value != b"good" for found in batch.records):
            raise ZeroDivisionError
        return copy(batch, state, now_ms)

    harness.start([FunctionStage(broken)])
    harness.append([record("k", "good")])
    harness.run()
    harness.append([record("k", "timer 5"), record("k", "bad")])
    with pytest.raises(ZeroDivisionError):
        harness.run()
    assert values(harness.records("out")) == ["good"]
    assert harness.state("stage") == {"k": {"count": 1, "last": ["good"]}}
    assert harness.timers("stage") == []
    assert harness.lag() == 2


@engines()
def test_an_output_that_cannot_be_kept_commits_nothing(harness: Harness) -> None:
    """A value that is no JSON ends the engine before anything of the batch is committed."""

    def broken(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        state.put("k", "count", object())
        return copy(batch, state, now_ms)

    harness.start([FunctionStage(broken)])
    harness.append([record("k", "v")])
    with pytest.raises(TypeError):
        harness.run()
    assert harness.records("out") == []
    assert harness.lag() == 1


@engines()
def test_a_retryable_error_repeats_the_same_batch(harness: Harness) -> None:
    """After RetryableError the stage gets the same batch again, with the state as it was."""
    tries: list[int] = []

    def flaky(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        tries.append(state.get("k", "count") or 0)
        outputs = tally(batch, state, now_ms)
        if len(tries) < 4:
            raise RetryableError("the script engine is away", retry_after_s=0.001)
        return outputs

    stage = FunctionStage(flaky)
    harness.start([stage])
    harness.append([record("k", "a"), record("k", "b")])
    harness.run()
    assert tries == [0, 0, 0, 0]
    assert all(batch == stage.batches[0] for batch in stage.batches)
    assert values(harness.records("out")) == ["1 a", "2 b"]


@engines()
def test_what_was_rolled_back_is_not_committed(harness: Harness) -> None:
    """State and timers that a stage undid to a savepoint are as if they had never been."""

    def careful(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        for found in batch.records:
            savepoint = state.savepoint()
            tally(Batch(0, [found]), state, now_ms)
            state.put(found.key, "seen", found.value == b"bad")
            if found.value == b"bad":
                state.cancel_timer(found.key, "timer 5")
                state.rollback(savepoint)
        return []

    harness.start([FunctionStage(careful)])
    harness.append([record("k", "timer 5"), record("k", "bad"), record("other", "bad")])
    harness.run()
    assert harness.state("stage") == {"k": {"count": 1, "last": ["timer 5"], "seen": False}}
    assert [timer[2] for timer in harness.timers("stage")] == ["timer 5"]


@engines()
def test_state_is_kept_in_parts_and_deleted(harness: Harness) -> None:
    """A part that is deleted is gone, the key's other parts stay, and later batches see that."""
    seen: list[list[tuple[str, object]]] = []

    def parts(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        for found in batch.records:
            seen.append(list(state.scan("k")))
            text = (found.value or b"").decode()
            if text.startswith("-"):
                state.delete("k", text[1:])
            else:
                state.put("k", text, {"at": found.offset})
        return []

    harness.start([FunctionStage(parts)], records_max=1)
    harness.append([record("k", text) for text in ("a", "b", "-a", "-none", "c")])
    harness.run()
    assert seen[-1] == [("b", {"at": 1})]
    assert harness.state("stage") == {"k": {"b": {"at": 1}, "c": {"at": 4}}}


@engines()
def test_parts_aside_are_there_when_asked_for(harness: Harness) -> None:
    """What is aside is read, listed, written, deleted and rolled back as any part, also by later
    batches, and by its own name and prefix only.
    """
    seen: list[object] = []

    def aside(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        for found in batch.records:
            word, _, name = (found.value or b"").decode().partition(" ")
            if word == "put":
                state.put("k", name, {"at": found.offset})
            elif word == "undo":
                savepoint = state.savepoint()
                state.put("k", name, "undone")
                state.delete("k", "!a/1")
                state.rollback(savepoint)
            elif word == "delete":
                state.delete("k", name)
            elif word == "get":
                seen.append(state.get("k", name))
            else:
                seen.append([part for part, _ in state.scan("k", name)])
        return []

    asked = ["put !a/1", "put !a/10", "put !b", "put near", "put ä", "undo !a/1", "get !a/1"]
    asked += ["scan !a/", "scan n", "scan", "delete !a/1", "get !a/1", "scan !a/", "get !a/10"]
    harness.start([FunctionStage(aside)], records_max=1)
    harness.append([record("k", text) for text in asked])
    harness.append([record("other", "get !a/1")])
    harness.run()
    in_one_batch = ["scan !", "delete !b", "get !b", "scan !", "put !b", "get !b"]
    harness.append([record("k", text) for text in in_one_batch])
    harness.run()
    assert seen == [
        {"at": 0}, ["!a/1", "!a/10"], ["near"], ["!a/1", "!a/10", "!b", "near", "ä"],
        None, ["!a/10"], {"at": 1}, None,
        ["!a/10", "!b"], None, ["!a/10"], {"at": 19},
    ]  # fmt: skip
    assert harness.state("stage")["k"] == {
        "!a/10": {"at": 1}, "!b": {"at": 19}, "near": {"at": 3}, "ä": {"at": 4},
    }  # fmt: skip


@engines()
def test_timers_fire_in_order_once_and_without_traffic(harness: Harness) -> None:
    """Timers fire when their time has come, by due time, then key and name, and never again."""
    stage = FunctionStage(tally)
    harness.start([stage])
    harness.append(
        [record("b", "timer 30"), record("a", "timer 30"), record("b", "timer 10"),
         record("a", "timer 99")]
    )  # fmt: skip
    harness.run()
    before = len(stage.batches)
    harness.clock.now_ms = START_MS + 30
    harness.run()
    fired = [timer for batch in stage.batches[before:] for timer in batch.timers]
    assert [(timer.key, timer.name, timer.due_ms) for timer in fired] == [
        ("b", "timer 10", START_MS + 10),
        ("a", "timer 30", START_MS + 30),
        ("b", "timer 30", START_MS + 30),
    ]
    assert fired[1].data == {"offset": 1}
    assert not any(batch.records for batch in stage.batches[before:])
    harness.clock.now_ms = START_MS + 60
    harness.run()
    assert [timer[2] for timer in harness.timers("stage")] == ["timer 99"]
    assert len(values(harness.records("out"))) == 4 + 3


@engines()
def test_a_timer_is_replaced_by_name_and_can_be_taken_back(harness: Harness) -> None:
    """Of two timers of one name the later stands; one that was cancelled does not fire."""

    def timed(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        for found in batch.records:
            if found.value == b"cancel":
                state.cancel_timer("k", "x")
            else:
                state.set_timer("k", "x", int(found.value or b"0"), found.offset)
        return [Outgoing("out", "k", str(timer.data).encode(), {}) for timer in batch.timers]

    harness.start([FunctionStage(timed)], records_max=1)
    harness.append([record("k", str(START_MS + 10)), record("k", str(START_MS + 20))])
    harness.run()
    harness.clock.now_ms = START_MS + 15
    harness.run()
    assert harness.records("out") == []
    harness.clock.now_ms = START_MS + 20
    harness.run()
    assert values(harness.records("out")) == ["1"]
    harness.append([record("k", str(START_MS + 30)), record("k", "cancel")])
    harness.run()
    harness.clock.now_ms = START_MS + 40
    harness.run()
    assert values(harness.records("out")) == ["1"]


@engines()
def test_a_timer_that_sets_itself_anew_goes_on(harness: Harness) -> None:
    """A timer that is set again while it fires is not removed by the commit of its firing."""

    def ticking(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        for timer in batch.timers:
            state.set_timer(timer.key, timer.name, timer.due_ms + 10, timer.data + 1)
        for found in batch.records:
            state.set_timer(found.key, "tick", now_ms + 10, 1)
        return [Outgoing("out", "k", str(timer.data).encode(), {}) for timer in batch.timers]

    harness.start([FunctionStage(ticking)])
    harness.append([record("k", "go")])
    harness.run()
    for tick in range(1, 4):
        harness.clock.now_ms = START_MS + 10 * tick
        harness.run()
    assert values(harness.records("out")) == ["1", "2", "3"]
    assert harness.timers("stage") == [(START_MS + 40, "k", "tick", 4)]


@engines()
def test_many_due_timers_come_in_batches(harness: Harness) -> None:
    """More timers than a batch may have come in several, in order, before time goes on."""
    stage = FunctionStage(tally)
    harness.start([stage], timers_max=4)
    harness.append([record(f"k{number:02}", "timer 5") for number in range(10)])
    harness.run()
    harness.clock.now_ms = START_MS + 5
    harness.run()
    fired = [batch.timers for batch in stage.batches if batch.timers]
    assert [len(timers) for timers in fired] == [4, 4, 2]
    keys = [timer.key for timers in fired for timer in timers]
    assert keys == [f"k{number:02}" for number in range(10)]


@engines()
def test_now_never_goes_back(harness: Harness) -> None:
    """A clock that jumps back does not reach the stage."""
    stage = FunctionStage(copy)
    harness.start([stage])
    for now_ms in (START_MS + 50, START_MS + 20, START_MS + 60):
        harness.clock.now_ms = now_ms
        harness.append([record("k", "v")])
        harness.run()
    assert stage.times == [START_MS + 50, START_MS + 50, START_MS + 60]


@engines("restart")
def test_all_is_there_after_a_restart(harness: Harness) -> None:
    """Position, state, timers and the stage's time outlive the process; nothing comes twice."""
    harness.start([FunctionStage(tally)])
    harness.clock.now_ms = START_MS + 10
    harness.append([record("k", "a"), record("k", "timer 50")])
    harness.run()
    harness.stop()
    harness.clock.now_ms = START_MS - 1_000
    again = FunctionStage(tally)
    harness.start([again])
    harness.append([record("k", "b")])
    harness.run()
    assert values([found for batch in again.batches for found in batch.records]) == ["b"]
    assert again.times == [START_MS + 10]
    assert harness.state("stage") == {"k": {"count": 3, "last": ["a", "timer 50", "b"]}}
    harness.clock.now_ms = START_MS + 60
    harness.run()
    assert values(harness.records("out"))[-1] == "fired timer 50 {'offset': 1}"


@engines("restart")
def test_timers_that_came_due_while_stopped_fire_at_the_start(harness: Harness) -> None:
    """A timer whose time passed while nothing ran fires once, as soon as the engine runs."""
    harness.start([FunctionStage(tally)])
    harness.append([record("k", "timer 50")])
    harness.run()
    harness.stop()
    harness.clock.now_ms = START_MS + 1_000
    harness.start([FunctionStage(tally)])
    harness.run()
    assert values(harness.records("out")) == ["1 timer 50", "fired timer 50 {'offset': 0}"]
    assert harness.timers("stage") == []


@engines("restart")
def test_a_failed_stage_goes_on_where_it_was(harness: Harness) -> None:
    """After a bug was mended the batch is handled as if it had never been tried."""

    def broken(batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        tally(batch, state, now_ms)
        raise ZeroDivisionError

    harness.start([FunctionStage(broken)])
    harness.append([record("k", "a")])
    with pytest.raises(ZeroDivisionError):
        harness.run()
    harness.stop()
    harness.start([FunctionStage(tally)])
    harness.run()
    assert values(harness.records("out")) == ["1 a"]


_INPUT = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c/d#e"]),
        st.one_of(
            st.sampled_from(["delete", "timer 0", "timer 3"]), st.text(min_size=1, max_size=5)
        ),
        st.integers(0, 4),
    ),
    max_size=30,
)


@pytest.mark.parametrize("kind", [SqliteHarness, MemoryHarness])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=_INPUT, first_max=st.integers(1, 5), second_max=st.integers(1, 40))
def test_a_replay_gives_the_same_state(
    kind: type[SqliteHarness | MemoryHarness],
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, str, int]],
    first_max: int,
    second_max: int,
) -> None:
    """The recorded input, run again from an empty state in other batches, gives the same state
    and, for each key, the same outputs in the same order.
    """
    results = []
    for records_max in (first_max, second_max):
        found = kind(tmp_path_factory.mktemp("replay"))
        try:
            found.start([FunctionStage(tally)], records_max=records_max)
            if records_max == first_max:
                for key, text, later_ms in steps:
                    found.append([record(key, text)])
                    found.run()
                    found.clock.now_ms += later_ms
            else:
                found.append([record(key, text) for key, text, _ in steps])
            found.run()
            found.clock.now_ms += 1_000
            found.run()
            by_key: dict[str, list[str]] = {}
            for out in found.records("out"):
                text = (out.value or b"").decode()
                if not text.startswith("fired"):
                    by_key.setdefault(out.key, []).append(text)
            results.append((found.state("stage"), by_key, found.timers("stage")))
        finally:
            found.stop()
    assert results[0] == results[1]


@settings(max_examples=15, deadline=None)
@given(steps=_INPUT, records_max=st.integers(1, 10))
def test_engines_agree(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, str, int]],
    records_max: int,
) -> None:
    """The same input at the same times gives the same topics, state and timers on every engine."""
    results = []
    for kind in (SqliteHarness, MemoryHarness):
        found: SqliteHarness | MemoryHarness = kind(tmp_path_factory.mktemp("agree"))
        try:
            found.start([FunctionStage(tally)], records_max=records_max)
            for key, text, later_ms in steps:
                found.append([record(key, text)])
                found.run()
                found.clock.now_ms += later_ms
            found.run()
            results.append((found.records("out"), found.state("stage"), found.timers("stage")))
        finally:
            found.stop()
    assert results[0] == results[1]
