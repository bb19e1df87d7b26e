"""Which scripts' functions serve all calls: those that hold nothing, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.script.stateless import is_stateless

SOURCES = Path(__file__).parents[2] / "bench" / "codec_sources"
PLAIN = (
    "function decodeUplink(i) { return {data: {n: 1}} }",
    "'use strict';\nfunction decodeUplink(i) { return {data: {n: 1}} };",
    "// x\n/* y */ function decodeUplink(i) { return g(i) / 2 }\nfunction g(i) { return i.g.x }",
    "function decodeUplink(i) { var s = /[/'\"]/.test(i.s); return {data: {n: 4 / 2 / s}} }",
    "function decodeUplink(i) { if (i.a) { return f(i, 'f') } } function f(i, n) { return 1.5e3 }",
    "function decodeUplink(i) { var k = 0; function inner() { return k++ } return inner() }",
)  # fmt: skip
HOLDING = (
    "",
    "var n = 0; function decodeUplink(i) { return {data: {n: ++n}} }",
    "const T = [1]; function decodeUplink(i) { return {data: {n: T.push(1)}} }",
    "function decodeUplink(i) { decodeUplink.n = 1; return {data: {}} }",
    "function decodeUplink(i) { return f['n'] } function f() {}",
    "function decodeUplink(i) { return f } function f() {}",
    "function decodeUplink(i) { f = 1 } function f() {}",
    "function decodeUplink(i) { return new F() } function F() {}",
    "function decodeUplink(i) { arguments.callee.n = 1 }",
    "function decodeUplink(i) { return eval('decodeUplink').n }",
    "function decodeUplink(i) { with (i) { n = 1 } }",
    "function decodeUplink(i) { return `${decodeUplink.n}` }",
    "function decodeUplink(i) { return \\u0064ecodeUplink.n }",
    "function decodeUplink(i) { if (i) /'/.test(i); decodeUplink.n = 1; return '/' }",
    "function decodeUplink(i) { {} /'/.n; decodeUplink.n = 1; '/' }",
    "decodeUplink(1); function decodeUplink(i) { }",
    "let decodeUplink = (i) => 1",
    "async function decodeUplink(i) { }",
    "function* decodeUplink(i) { }",
    "class A {} function decodeUplink(i) { }",
    "function decodeUplink(i) { ",
    "function decodeUplink(i) } {",
)


@pytest.mark.parametrize("source", PLAIN)
def test_functions_alone(source: str) -> None:
    """Declarations of functions that are only called hold nothing."""
    assert is_stateless(source)


@pytest.mark.parametrize("source", HOLDING)
def test_what_may_hold_something(source: str) -> None:
    """A variable, a function that is a value, and whatever is not plain to see, may."""
    assert not is_stateless(source)


def test_real_codecs() -> None:
    """Among codecs as vendors write them there are both kinds."""
    found = {path.name: is_stateless(path.read_text()) for path in SOURCES.glob("*.js")}
    assert found["eight.js"]
    assert True in found.values()


@pytest.mark.parametrize("source", [*PLAIN, *HOLDING[1:]])
def test_no_call_sees_another(javascript_run: Any, source: str) -> None:
    """Kept or made anew, the same calls have the same outcomes each time, alone and together."""
    argument = {"bytes": "AQ==", "fPort": 1, "recvTime": 1, "variables": {}, "s": "x", "g": {}}
    (alone,) = javascript_run(source, argument)
    assert javascript_run(source, *[argument] * 3) == [alone] * 3
