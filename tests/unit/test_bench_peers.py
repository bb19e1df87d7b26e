from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.bench.compare import chosen, rows, table
from tests.bench.peers import by_hand
from tests.bench.peers.contestants import Contestant, Task
from tests.bench.peers.job import (
    Found,
    device_of,
    downlinks_of,
    faults,
    number_of,
    right,
    right_state,
    telemetry,
    uplink,
)
from tests.bench.peers.trial import Result

COUNT, DEVICES = 600, 40


def done_by_hand(count: int = COUNT, devices: int = DEVICES) -> Found:
    """Do the job as the programs in Python do it."""
    state: dict[str, dict[str, float]] = {}
    deliveries, downlinks = [], []
    for number in range(count):
        event = by_hand.decode(uplink(number, devices, "js").value)
        device = event["device"]
        state[device], delivery, down = by_hand.route(event, state.get(device))
        deliveries.append(delivery)
        if down is not None:
            downlinks.append((device, down))
    return Found(deliveries=deliveries, downlinks=downlinks, state=state)


def test_the_job_by_hand_is_right() -> None:
    """Decoding the bytes by hand gives what the job says without looking at them."""
    assert faults(done_by_hand(), COUNT, DEVICES, once=True) == []


def test_one_message_in_ten_makes_a_downlink() -> None:
    """A tenth of all uplinks, and of each device's, with few devices and with many."""
    for devices in (40, 2_000, 100_000):
        assert downlinks_of(20_000, devices) == 2_000
    assert sum(device == device_of(3, DEVICES) for device, _ in done_by_hand().downlinks or ()) in (
        1,
        2,
    )


def test_an_uplink_has_the_size_that_is_said() -> None:
    """About 670 bytes of JSON, whichever uplink it is."""
    sizes = [len(uplink(number, 2_000, "js").value) for number in (0, 1, 77_777, 999_999)]
    assert all(650 <= size <= 690 for size in sizes)


def test_uplinks_are_found_again_by_device_and_counter() -> None:
    """A delivery's device and counter say which uplink it came of."""
    for number in (0, 39, 40, 599):
        counter = telemetry(number, DEVICES)["counter"]
        assert number_of(device_of(number, DEVICES), counter, DEVICES) == number


def _without_last(found: Found) -> Found:
    assert found.deliveries is not None
    return found._replace(deliveries=found.deliveries[:-1])


def _doubled(found: Found) -> Found:
    assert found.deliveries is not None
    return found._replace(deliveries=[*found.deliveries, found.deliveries[-1]])


def _disordered(found: Found) -> Found:
    assert found.deliveries is not None
    return found._replace(deliveries=found.deliveries[DEVICES:] + found.deliveries[:DEVICES])


def _wrong_value(found: Found) -> Found:
    deliveries: list[dict[str, Any]] = copy.deepcopy(found.deliveries or [])
    deliveries[17]["warmest"] += 0.1
    return found._replace(deliveries=deliveries)


def _wrong_downlink(found: Found) -> Found:
    downlinks = list(found.downlinks or [])
    downlinks[0] = (downlinks[0][0], b"\0\0\0")
    return found._replace(downlinks=downlinks)


def _old_state(found: Found) -> Found:
    return found._replace(state=right_state(COUNT - DEVICES, DEVICES))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_without_last, "1 deliveries are missing"),
        (_doubled, "1 deliveries are doubled"),
        (_disordered, "deliveries are out of order"),
        (_wrong_value, "1 deliveries are wrong"),
        (_wrong_downlink, "1 downlinks are missing"),
        (_old_state, "the state of 40 devices is wrong"),
    ],
)
def test_what_is_wrong_is_found(harm: Any, said: str) -> None:
    """Each kind of wrong output is found, and said in words."""
    assert any(said in fault for fault in faults(harm(done_by_hand()), COUNT, DEVICES, once=True))


def test_at_least_once_may_repeat() -> None:
    """Repeats are no fault of who promises at least once; what is missing is one."""
    repeated = _doubled(done_by_hand())
    assert faults(repeated, COUNT, DEVICES, once=False) == []
    assert faults(_without_last(done_by_hand()), COUNT, DEVICES, once=False) != []


def test_events_are_checked_for_the_job_convert() -> None:
    """Telemetry that differs from the job's is found."""
    events = [{"device": each.device} | telemetry(n, DEVICES)
              for n, each in enumerate(right(COUNT, DEVICES))]  # fmt: skip
    assert faults(Found(events=events), COUNT, DEVICES, once=True) == []
    events[5]["humidity"] += 1
    assert faults(Found(events=events), COUNT, DEVICES, once=True) != []


class Someone(Contestant):
    """A contestant that is never run."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, task: Task, cache: object) -> list[str]:
        return []

    def version(self, cache: object) -> str:
        return "1"


def result(name: str, cpu_s: float, *wrong: str) -> Result:
    return Result(name, 1_000, 1.0, cpu_s, 10.0, wrong)


def test_ratios_are_of_the_same_round() -> None:
    """A ratio is the median of the rounds' own, so that a slow round harms both; wrong runs are
    left out, and counted.
    """
    rounds = [
        [result("funicular", 0.1), result("peer", 0.4)],
        [result("funicular", 0.3), result("peer", 1.2)],
        [result("funicular", 0.1), result("peer", 9.0, "wrong")],
    ]
    ours, peer = rows([Someone("funicular"), Someone("peer")], rounds)
    assert ours["times"] == 1
    assert peer["times"] == pytest.approx(4)
    assert (peer["right_runs"], peer["cpu_us"]) == (2, pytest.approx(800))
    assert "| 4.00 times | 10 | 2 of 3 |" in table([ours, peer], 3)


def test_a_peer_that_is_never_right_has_no_figures() -> None:
    """The table says so instead."""
    rounds = [[result("funicular", 0.1), result("peer", 0.1, "wrong")]]
    found = rows([Someone("funicular"), Someone("peer")], rounds)
    assert "WRONG in every run" in table(found, 1)


def test_peers_are_chosen_by_name_or_family() -> None:
    """Funicular always takes part in the jobs that are asked for; unknown names are said."""
    names = [each.name for each in chosen(["quix", "bare"], "")]
    assert names == ["funicular", "quix", "funicular-convert", "quix-convert", "bare"]
    assert [each.name for each in chosen(["faust"], "whole")][:2] == ["funicular", "faust"]
    with pytest.raises(SystemExit, match="nobody is called flink"):
        chosen(["flink"], "")
