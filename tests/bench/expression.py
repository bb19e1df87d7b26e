"""Evaluations a second: our compiled expressions beside Google's C++ runtime.

    python tests/bench/expression.py

Medians of five alternating runs, on a message of 50 fields that is new JSON each time, as a stage
has it: Google's runtime converts what it is handed, ours reads it as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from cel_expr_python import cel

sys.path.insert(0, str(Path(__file__).parents[2]))

from pipeline.expression import compile_expression

RUNS = 5
SECONDS = 0.3  # a run
EXPRESSIONS = (
    'telemetry.temperature > 30 && attributes.shared.fan != "on"',
    "telemetry.temperature > attributes.shared.target",
    'has(attributes.shared.fan) ? attributes.shared.fan : "off"',
    "telemetry.missing > 1 || telemetry.temperature > 30",
    "telemetry.sensor_1 + telemetry.sensor_2 * 3 < 100",
    'attributes.shared.fan.startsWith("o") && attributes.shared.fan.matches("^o(n|ff)$")',
    "attributes.shared.limits.all(x, x < 100.0)",
)
MESSAGE: dict[str, Any] = {
    "telemetry": {f"sensor_{number}": number for number in range(45)} | {"temperature": 31.5},
    "attributes": {"shared": {"fan": "off", "target": 21.5, "limits": [1.5, 20.5, 99.5]}},
}


def rate(evaluate: Callable[[], Any]) -> float:
    """Return how often `evaluate` runs in a second."""
    count, batch = 0, 100
    start = perf_counter()
    while (spent := perf_counter() - start) < SECONDS:
        for _ in range(batch):
            evaluate()
        count += batch
    return count / spent


def compare(source: str) -> tuple[float, float]:
    """Return the medians of both, ours first."""
    mine = compile_expression(source)
    environment = cel.NewEnv(variables=dict.fromkeys(MESSAGE, cel.Type.DYN))
    other = environment.compile(source)
    expected = other.eval(data=MESSAGE).plain_value()
    assert mine(MESSAGE) == expected, source
    ours, googles = [], []
    for _ in range(RUNS):
        ours.append(rate(lambda: mine(MESSAGE)))
        googles.append(rate(lambda: other.eval(data=MESSAGE)))
    return median(ours), median(googles)


def main() -> None:
    """Print a line an expression."""
    print(f"{'ours/s':>12} {'Google/s':>12} {'ratio':>6}  expression")  # noqa: T201 - a benchmark's figures go to the terminal
    for source in EXPRESSIONS:
        ours, googles = compare(source)
        print(f"{ours:>12,.0f} {googles:>12,.0f} {ours / googles:>6.1f}  {source}")  # noqa: T201 - see above


if __name__ == "__main__":
    main()
