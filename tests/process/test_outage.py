"""Outages with real sockets: what is lost, what comes twice or too early, what others feel."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import uvloop

from tests.bench.isolation import rounds_of, unrest
from tests.bench.outage import measure

pytestmark = pytest.mark.process
HOUR_S = 3_600
OUTAGE_S = 6.0
RATE = 150.0
CONCURRENCY = 8  # of an http sink, by default
MACHINE_S = 15  # what a busy machine may add
UNREST_S = 0.01
LONGEST_WAIT_S = 300  # between two tries, by default


def test_an_hours_outage_loses_nothing(tmp_path: Path) -> None:
    """Through an outage of an hour, as retries count it, under load that goes on: nothing is lost
    or comes too early, the backlog goes out by itself, and never more at once than ever.
    """
    compress = HOUR_S / OUTAGE_S
    figures = uvloop.run(
        measure(tmp_path, rate=RATE, before_s=2, outage_s=OUTAGE_S, compress=compress)
    )
    assert (figures.lost, figures.out_of_order) == (0, 0)
    assert figures.backlog > 0.9 * RATE * OUTAGE_S
    assert figures.noticed_s < LONGEST_WAIT_S / compress + MACHINE_S
    assert figures.at_once_max <= CONCURRENCY


def test_bad_destinations_delay_only_themselves() -> None:
    """The p99 of a sink is not a quarter more while four others are dead, slow or answer 10 GB than
    while they are well, one run after the other by turns.

    A machine that is busy with other things delays either at random: the medians of three rounds
    or more must show it, and less than what runs of one kind are apart is no difference.
    """
    found: list[tuple[float, float]] = []
    for each in rounds_of(rate=80, seconds=3, rounds=8):
        found.append(each)
        if len(found) < 3:
            continue
        wells, bads = zip(*found, strict=True)
        well, bad = statistics.median(wells), statistics.median(bads)
        if bad <= max(well * (1 + max(0.25, unrest(wells))), well + UNREST_S):
            return
    pytest.fail(f"it was slower beside the bad ones, in seconds: {found}")
