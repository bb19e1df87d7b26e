"""The route stage alone: CPU time a message, by what its chain does.

    PYTHONPATH=. python tests/bench/route.py

2,000 devices, one message of each a batch, state kept as an engine's cache would. Prints the median
of 9 batches in microseconds of CPU, and shows that chains which do not match cost nothing.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from pipeline.metrics import Registry
from pipeline.model.record import REPEAT_KEY, Record
from pipeline.ports import Batch, DeviceState
from pipeline.route.stage import Route
from tests.unit.route.bench import START_MS, record, rulebook, uplink

DEVICES = 2_000
HEAD = "chain: {name}\non: {{messages: uplink, device_type: {type}}}\nnodes:\n"
FILTERS = """
  - {name: a, filter: telemetry.temperature > 30}
  - {name: b, filter: 'telemetry.temperature > 30 && attributes.shared.fan != "on"'}
  - {name: c, filter: telemetry.battery > 3}
"""
SEND = "  - {name: send, send: {to: archive}}\n"
REMEMBER = """
  - name: remember
    set_attributes:
      scope: shared
      values: {warm: "${telemetry.temperature > 35}", last: "${telemetry.temperature}"}
"""
CASES: dict[str, tuple[str, int, bool]] = {
    "no chain matches": ("", 0, False),
    "three filters": (FILTERS, 0, False),
    "three filters, a delivery": (FILTERS + SEND, 0, False),
    "the same beside 200 chains that do not match": (FILTERS + SEND, 200, False),
    "and two attributes written": (FILTERS + REMEMBER + SEND, 0, False),
    "and the repeat check": (FILTERS + REMEMBER + SEND, 0, True),
}


def messages(number: int, repeat: bool) -> list[Record]:
    return [
        record(
            uplink(
                number,
                id=f"0197{number:08x}{device:020x}.0",
                device=f"dev{device}",
                telemetry={"temperature": 31 + number % 7, "battery": 90, "flags": 1},
            ),
            **({REPEAT_KEY: f"dev{device}-{number}"} if repeat else {}),
        )
        for device in range(DEVICES)
    ]


def measure(nodes: str, others: int, repeat: bool) -> float:
    chains = [HEAD.format(name=f"x{n}", type="other") + FILTERS for n in range(others)]
    if nodes:
        chains.append(HEAD.format(name="main", type="thermostat") + nodes)
    book = rulebook(*chains)
    stage = Route(lambda: {"t": book}, Registry())
    fan = {"attributes/shared": {"values": {"fan": "off"}, "times": {"fan": 0}}}
    parts: dict[str, dict[str, Any]] = {f"t/dev{n}": dict(fan) for n in range(DEVICES)}
    taken = []
    for number in range(1, 11):
        batch = Batch(partition=0, records=messages(number, repeat))
        state = DeviceState(lambda key: parts[key])
        before = time.process_time()
        stage.handle(batch, state, START_MS + number * 1_000)
        taken.append((time.process_time() - before) / DEVICES * 1e6)
        for (key, part), value in state.changes.items():
            parts[key][part] = value
    return statistics.median(taken[1:])


def main() -> None:
    for name, case in CASES.items():
        print(f"{measure(*case):6.1f} µs  {name}")  # noqa: T201 - the bench's result


if __name__ == "__main__":
    main()
