"""Ids of uplinks and commands."""

from __future__ import annotations

from pipeline.ingest.ids import time_ordered_ids


def test_ids_grow_with_the_clock_standing_back_and_forth() -> None:
    """Each id is greater than the one before, whatever the clock does."""
    times = iter([5, 5, 5, 9, 3, 3, 9, 10])
    new_id = time_ordered_ids(lambda: next(times))

    ids = [new_id() for _ in range(8)]

    assert ids == sorted(set(ids))
    assert {len(one) for one in ids} == {32}
    assert ids[0].startswith(f"{5:012x}")


def test_sources_do_not_meet() -> None:
    """Two processes that start at the same millisecond give different ids."""
    first, second = time_ordered_ids(lambda: 1), time_ordered_ids(lambda: 1)

    assert not {first() for _ in range(1_000)} & {second() for _ in range(1_000)}
