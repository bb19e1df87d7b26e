"""A script that loops, or gives endless results, is not tried without end in one batch."""

from __future__ import annotations

from base64 import b64encode
from time import monotonic

from pipeline.errors import ScriptError
from pipeline.metrics import Registry
from pipeline.ports import Script, ScriptCall
from pipeline.script import ScriptLimits, ScriptProcesses

LOOPS = Script(
    "t/loops.js",
    "javascript",
    "function decodeUplink(input) { if (input.bytes[0]) for (;;) {} return {data: {n: 0}}; }",
)
GOOD = Script("t/good.js", "javascript", "function decodeUplink(input) { return {data: {n: 1}}; }")


def call(script: Script, first: int) -> ScriptCall:
    argument = {
        "bytes": b64encode(bytes([first])).decode(),
        "fPort": 1,
        "recvTime": "2026-11-21T10:00:00Z",
        "variables": {},
    }
    return ScriptCall("t", script, "decode_uplink", argument)


def codes(results: list[object]) -> list[str]:
    return [result.code if isinstance(result, ScriptError) else "fine" for result in results]


def test_a_script_that_loops_is_given_up_for_the_batch() -> None:
    """Two hundred calls that loop take as long as the few that are tried; what is not tried says
    so, and another script of the same batch is not touched.
    """
    scripts = ScriptProcesses(ScriptLimits(call_ms=20, overruns_max=3), Registry())
    try:
        scripts.call([call(GOOD, 0), call(LOOPS, 0)])
        began = monotonic()
        results = scripts.call([*(call(LOOPS, 1) for _ in range(200)), call(GOOD, 1)])
        took_s = monotonic() - began
    finally:
        scripts.close()

    found = codes(results)
    assert found[-1] == "fine"
    stopped = found.count("script_time")
    assert 3 <= stopped <= 10, "those of the slice that was under way may be among them"
    assert found.count("script_budget") == 200 - stopped
    assert took_s < 200 * 0.02


def test_a_few_stops_touch_no_other_call() -> None:
    """Below the limit each call that loops is lost alone, and those after it run."""
    scripts = ScriptProcesses(ScriptLimits(call_ms=20, overruns_max=3), Registry())
    try:
        results = scripts.call([call(LOOPS, first) for first in (1, 0, 1, 0)])
    finally:
        scripts.close()

    assert codes(results) == ["script_time", "fine", "script_time", "fine"]


def test_results_of_a_batch_have_a_size() -> None:
    """Many results that are each allowed do not fill the parent's memory: past the batch's limit
    no more are asked for.
    """
    source = "function decodeUplink() { return {data: {s: 'x'.repeat(100000)}}; }"
    large = Script("t/large.js", "javascript", source)
    scripts = ScriptProcesses(ScriptLimits(batch_result_bytes_max=1_000_000), Registry())
    try:
        found = codes(scripts.call([call(large, 0) for _ in range(100)]))
    finally:
        scripts.close()

    assert 10 <= found.count("fine") <= 30, "what came in one slice with the last is kept"
    assert found.count("script_budget") == 100 - found.count("fine")
