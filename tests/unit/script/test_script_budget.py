"""A tenant's budget of script time in a batch, and how the tenants of one batch share it."""

from __future__ import annotations

from collections import Counter
from time import perf_counter

import pytest

from pipeline.errors import ScriptError
from pipeline.metrics import Registry
from pipeline.ports import Script, ScriptCall
from pipeline.script import ScriptLimits, ScriptProcesses

# Each call takes about 10 ms of CPU time, well under what a call may take.
SLOW = Script(
    "slow.js",
    "javascript",
    "function decodeUplink() { const end = Date.now() + 10; let n = 0;"
    " while (Date.now() < end) n++; return {data: {n: 1}} }",
)
SLOW_LUA = Script(
    "slow.lua",
    "lua",
    "function decode_uplink() local stop = os.clock() + 0.01 while os.clock() < stop do end"
    " return {data = {n = 1}} end",
)
QUICK = Script("quick.js", "javascript", "function decodeUplink() { return {data: {n: 2}} }")


def calls(tenant: str, script: Script, count: int) -> list[ScriptCall]:
    argument = {"bytes": "AA==", "fPort": 1, "variables": {}}
    return [ScriptCall(tenant, script, "decode_uplink", argument)] * count


def counts(results: list[object]) -> Counter[str]:
    return Counter(result.code if isinstance(result, ScriptError) else "fine" for result in results)


@pytest.mark.parametrize("slow", [SLOW, SLOW_LUA], ids=lambda script: script.language)
def test_a_slow_tenant_uses_up_its_own_share_alone(slow: Script) -> None:
    """Scripts that are each under the limit are cut off at their tenant's share; the other
    tenant's calls, behind them in the batch, all run.
    """
    limits = ScriptLimits(slice_ms=5, batch_beside_ms_max=150, batch_all_ms_max=400)
    scripts = ScriptProcesses(limits, Registry())
    try:
        scripts.call([*calls("slow", slow, 1), *calls("quick", QUICK, 1)])
        began = perf_counter()
        results = scripts.call([*calls("slow", slow, 200), *calls("quick", QUICK, 50)])
        took_s = perf_counter() - began
    finally:
        scripts.close()
    assert counts(results[200:]) == {"fine": 50}
    found = counts(results[:200])
    assert found["fine"] + found["script_budget"] == 200
    assert 1 <= found["fine"] <= 60, "150 ms at about 10 ms each"
    assert took_s < 200 * 0.01, "not the two seconds that they would take"
    (refused,) = {result.message for result in results[:200] if isinstance(result, ScriptError)}
    assert "not tried" in refused
    assert "150 ms of CPU" in refused


def test_slow_tenants_share_alike() -> None:
    """What all tenants of a batch have together is shared out: none is left with nothing."""
    limits = ScriptLimits(slice_ms=5, batch_beside_ms_max=1_000, batch_all_ms_max=300)
    scripts = ScriptProcesses(limits, Registry())
    try:
        results = scripts.call([call for name in "abc" for call in calls(name, SLOW, 60)])
    finally:
        scripts.close()
    fine = [counts(results[at : at + 60])["fine"] for at in (0, 60, 120)]
    assert all(3 <= each <= 40 for each in fine), fine


def test_a_script_that_ends_its_process_pays_for_it() -> None:
    """A call that only the end of its process stops costs its tenant what it may have taken."""
    stuck = Script(
        "stuck.js",
        "javascript",
        "function decodeUplink() { 'a'.repeat(4e6).indexOf('a'.repeat(2e6) + 'b') }",
    )
    limits = ScriptLimits(call_ms=20, slice_ms=5, batch_ms_max=150, overruns_max=100)
    scripts = ScriptProcesses(limits, Registry())
    try:
        found = counts(scripts.call(calls("t", stuck, 30)))
    finally:
        scripts.close()
    assert found["script_budget"] >= 20
    assert found["script_time"] >= 1


def test_the_next_batch_has_a_budget_of_its_own() -> None:
    """A tenant that was over its budget in one batch is served in the next."""
    limits = ScriptLimits(slice_ms=5, batch_ms_max=30)
    scripts = ScriptProcesses(limits, Registry())
    try:
        first = counts(scripts.call(calls("t", SLOW, 50)))
        second = counts(scripts.call(calls("t", QUICK, 50)))
    finally:
        scripts.close()
    assert first["script_budget"] > 0
    assert second == {"fine": 50}
