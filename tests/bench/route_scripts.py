"""The node `script` in batches and one by one: messages a second through route, one process.

    PYTHONPATH=. python tests/bench/route_scripts.py

1,000 devices, one message of each a batch; wall time, since the script runs in a child process.
Prints the median of 7 batches.
"""

from __future__ import annotations

import statistics
import time

from pipeline.metrics import Registry
from pipeline.ports import Batch, DeviceState
from pipeline.route.limits import Limits
from pipeline.route.stage import Route
from pipeline.script import ScriptLimits, ScriptProcesses
from tests.unit.route.bench import START_MS, record, rulebook, uplink

DEVICES = 1_000
HEAD = "chain: main\non: {messages: uplink}\nnodes:\n"
SEND = '  - {name: out, send: {to: archive, body: "${telemetry}"}}\n'
BODY = "msg.f = msg.temperature * 1.8 + 32; return {msg: msg, metadata: metadata};"
LUA = """function handle_message(message)
          message.telemetry.f = message.telemetry.temperature * 1.8 + 32
          return {telemetry = message.telemetry}
        end"""
CASES = {
    "JavaScript, in batches": (f'  - {{name: a, script: "{BODY}"}}\n', 3),
    "JavaScript, one by one": (f'  - {{name: a, script: "{BODY}"}}\n', 0),
    "Lua, in batches": (
        "  - name: a\n    script:\n      language: lua\n      source: |\n        " + LUA + "\n",
        3,
    ),
    "set by an expression": (
        '  - {name: a, set: {fields: {telemetry.f: "${telemetry.temperature * 1.8 + 32.0}"}}}\n',
        3,
    ),
}


def measure(nodes: str, batched: int, scripts: ScriptProcesses) -> float:
    """Return messages a second."""
    book = rulebook(HEAD + nodes + SEND)
    limits = Limits(scripts_batched_max=batched)
    stage = Route(lambda: {"t": book}, Registry(), scripts=scripts, limits=limits)
    taken = []
    for number in range(1, 9):
        messages = [uplink(number, id=f"u{number}-{n}.0", device=f"d{n}") for n in range(DEVICES)]
        batch = Batch(partition=0, records=[record(message) for message in messages])
        before = time.perf_counter()
        out = stage.handle(batch, DeviceState(lambda _key: {}), START_MS)
        taken.append(DEVICES / (time.perf_counter() - before))
        assert len(out) == DEVICES, out[0]
    return statistics.median(taken[1:])


def main() -> None:
    scripts = ScriptProcesses(ScriptLimits(), Registry())
    try:
        for name, (nodes, batched) in CASES.items():
            rate = measure(nodes, batched, scripts)
            print(f"{rate:10,.0f} messages/s  {name}")  # noqa: T201 - the bench's result
    finally:
        scripts.close()


if __name__ == "__main__":
    main()
