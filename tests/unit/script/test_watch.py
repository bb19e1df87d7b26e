"""What a script altered is found by looking at what it can reach, and put back."""

from __future__ import annotations

from typing import Any

import pytest

TWO = ({"bytes": "AQ==", "fPort": 1}, {"bytes": "AQ==", "fPort": 2})


@pytest.mark.parametrize(
    ("write", "read"),
    [
        ("'x'.constructor.n = 1", "'x'.constructor.n"),
        ("i.bytes.__proto__.n = 1", "[].n"),
        ("i['__pro' + 'to__'].n = 1", "i.n"),
        ("i['constr' + 'uctor'].n = 1", "i['constr' + 'uctor'].n"),
        ("(() => {}).constructor('return this')().n = 1", "typeof n == 'undefined' ? void 0 : n"),
        ("caught(() => null.x).__proto__.n = 1", "caught(() => null.x).n"),
        ("Object.getPrototypeOf(caught(() => atob('%'))).n = 1", "caught(() => atob('%')).n"),
        ("[].keys().__proto__.n = 1", "[].keys().n"),
        ("/x/.__proto__.n = 1", "/y/.n"),
        ("i.recvTime.__proto__.n = 1", "i.recvTime.n"),
        ("(1).__proto__.n = 1", "(2).n"),
        ("(async () => {})().__proto__.n = 1", "(async () => {})().n"),
        ("Object.assign(Array.prototype, {n: 1})", "[].n"),
        ("Array.prototype[Symbol.for('n')] = 1", "[][Symbol.for('n')]"),
        ("Error.captureStackTrace(Array.prototype)", "[].stack"),
        ("delete Map.prototype.size", "new Map().size === 0 ? void 0 : 1"),
        ("Math.max = null", "Math.max ? void 0 : 1"),
        ("Set.prototype.has = null", "new Set().has ? void 0 : 1"),
        ("Uint8Array.prototype.n = 1", "new Uint8Array(1).n"),
        ("eval('Mat' + 'h.n = 1')", "eval('Mat' + 'h.n')"),
        ("this['Ma' + 'th'].n = 1", "this['Ma' + 'th'].n"),
        ("Object.defineProperty(globalThis, 'n', {value: 1})", "typeof n == 'number' || void 0"),
    ],
)  # fmt: skip
def test_all_that_a_script_reaches_is_watched(javascript_run: Any, write: str, read: str) -> None:
    """However a script comes by what its calls share, a change of it is gone at the next call."""
    source = (
        "function caught(f) { try { f() } catch (e) { return e } }\n"
        f"function decodeUplink(i) {{ i.recvTime = new Date(0); var seen = {read}; {write};"
        " return {data: {seen: seen}} }"
    )
    for _ in range(2):
        outcomes = javascript_run(source, *TWO)
        assert [each["value"]["data"]["seen"] for each in outcomes] == [None, None]


def test_what_is_never_named_is_not_looked_at(javascript_run: Any) -> None:
    """A script that names little has less looked at after each batch, and all else stays whole."""
    javascript_run("function decodeUplink(i) { return {data: {n: Math.round(i.fPort)}} }", *TWO)
    (world,) = javascript_run.engine._worlds.values()
    watched = "(function () { Atomics.n = 1; return 1 })()"
    assert world._context.eval(watched) == 1
    assert not world.is_altered()
    world._context.eval("Math.n = 1")
    assert world.is_altered()
