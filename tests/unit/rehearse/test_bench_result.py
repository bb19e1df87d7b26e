"""What a bench counts, and how it tells it."""

from __future__ import annotations

import asyncio

import msgspec

from pipeline.ingest.ids import time_ordered_ids
from pipeline.model.delivery import Delivery
from pipeline.model.record import derive_id
from pipeline.rehearse.bench_result import BenchResult, lines, percentiles
from pipeline.rehearse.bench_sink import Counted, CountingTransport, door_time_ms
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Context, Verdict

RESULT = BenchResult(
    log="the embedded log",
    rate=0.0,
    seconds=10.0,
    devices=5,
    uplinks=1_000,
    refused={},
    uplinks_a_second=100.0,
    handled_s=10.5,
    handled_a_second=95.2,
    drained=True,
    deliveries={"archive": 1_000},
    downlinks=0,
    dead_letters={},
    cpu_us=80.0,
    door_ms={"p50": 1.0},
    door_to_sink_ms={},
    funicular="0",
    python="3",
    machine="m",
)


def test_percentiles_are_values_that_were_seen() -> None:
    """Of 1 to 100, each once, p50 is 50 and p99 is 99; of nothing there are none."""
    found = percentiles(dict.fromkeys(range(1, 101), 1))

    assert found == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 100.0, "max": 100.0}
    assert percentiles({}) == {}
    assert percentiles({7: 3}) == dict.fromkeys(("p50", "p90", "p99", "p99.9", "max"), 7.0)


def test_ids_of_effects_tell_when_the_door_took_their_uplink() -> None:
    """The time of a door's id is read from what derives from it, and from nothing else."""
    identity = time_ordered_ids(lambda: 1_767_225_600_123)()

    assert door_time_ms(derive_id(derive_id(identity, "0"), "archive-1")) == 1_767_225_600_123
    assert door_time_ms(identity) is None
    assert door_time_ms("uplink.received-0-17.0") is None
    assert door_time_ms("z" * 32 + ".0") is None


def test_the_counting_sink_counts_and_delivers_all() -> None:
    """Each delivery is counted by destination, with its time since the door where that is known
    and not before `since_ms`.
    """
    counted = Counted(lambda: 1_000_050)
    counted.since_ms = 1_000_000
    transport = CountingTransport(Context("t", "archive", SinkSettings(), lambda: 0), counted)
    known = time_ordered_ids(lambda: 1_000_020)() + ".0.a"
    early = time_ordered_ids(lambda: 999_999)() + ".0.a"
    batch = [Delivery(each, "t", "d", "archive", 0) for each in (known, early, "other")]

    results = asyncio.run(transport.deliver(batch))

    assert [result.verdict for result in results] == [Verdict.DELIVERED] * 3
    assert counted.deliveries == {"archive": 3}
    assert counted.took_ms == {30: 1}


def test_a_result_is_clean_only_where_all_was_handled() -> None:
    """Refusals, dead letters, work that was left, or no uplink at all make it a failure."""
    replaced = msgspec.structs.replace

    assert RESULT.is_clean
    assert not replaced(RESULT, refused={"401": 1}).is_clean
    assert not replaced(RESULT, dead_letters={"convert: not_json": 1}).is_clean
    assert not replaced(RESULT, drained=False).is_clean
    assert not replaced(RESULT, uplinks=0).is_clean


def test_what_went_wrong_is_told() -> None:
    """Refused requests, dead letters and work that was left stand in the lines."""
    bad = msgspec.structs.replace(
        RESULT, refused={"401": 2, "0": 1}, dead_letters={"route: steps": 3}, drained=False
    )
    text = "\n".join(lines(bad))

    assert "answered 401" in text
    assert "without an answer" in text
    assert "route: steps" in text
    assert "not all" in text
