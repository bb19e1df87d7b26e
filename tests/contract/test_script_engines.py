"""The contract of `ports.ScriptPort`, held by every engine: the same cases in each language."""

from __future__ import annotations

import base64
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.errors import ScriptError
from pipeline.metrics import Registry
from pipeline.ports import Script, ScriptCall
from pipeline.script import ScriptLimits, ScriptProcesses

LIMITS = ScriptLimits(call_ms=60, memory_bytes=16 << 20, slice_ms=10)
RESTARTS = "funicular_script_restarts_total"


@dataclass(frozen=True)
class Language:
    """How each case is said in one language. `decode` bodies see `input`, or `i`."""

    name: str
    decode: str
    echo: str
    encode: str
    threw: str
    loop: str
    hog: str
    bomb: str
    globals: str
    library: str
    nonsense: tuple[tuple[str, str], ...]
    bad_bytes: tuple[tuple[str, str], ...]


JAVASCRIPT = Language(
    name="javascript",
    decode="function decodeUplink(i) {{ {} }}",
    echo="return {data: {first: i.bytes[0], port: i.fPort}, warnings: ['w']}",
    encode="function encodeDownlink(i) {{ return {{bytes: {}, fPort: i.fPort}} }}",
    threw="\n\n  throw new Error('no good')",
    loop="try { while (true) {} } finally { while (true) {} }",
    hog="var a = []; while (true) a.push('x'.repeat(100000) + a.length)",
    bomb="return {data: {b: /^(a+)+$/.test('a'.repeat(50) + 'b')}}",
    globals="n = (typeof n == 'undefined' ? 0 : n) + 1; return {data: {n: n}}",
    library="String.prototype.n = (''.n || 0) + 1; return {data: {n: ''.n}}",
    nonsense=(
        ("return null", "null"),
        ("", "undefined"),
        ("return 'text'", "a string"),
        ("return {data: [1]}", "an array"),
        ("return {data: {x: NaN}}", "data.x is NaN"),
        ("return {data: {x: [1, -Infinity]}}", "data.x[1] is -Infinity"),
        ("return {data: {f: function () {}}}", "data.f is a function"),
        ("return {data: {b: 10n}}", "data.b is a bigint"),
        ("var d = {}; d.d = d; return {data: d}", "refers to itself"),
        ("var d = {}; for (var k = 0; k < 5000; k++) d = {d: d}; return {data: d}", "deeper"),
        ("return {temperature: 1}", "no `data`"),
        ("return {data: {s: 'x'.repeat(2000000)}}", "at most"),
    ),
    bad_bytes=(
        ("[1, 2.5]", "bytes[1] is 2.5"),
        ("[256]", "bytes[0] is 256"),
        ("[1, 2, -1]", "bytes[2] is -1"),
        ("[0, 'a']", 'bytes[1] is "a"'),
        ("'text'", "bytes is a string"),
        ("null", "bytes is null"),
        ("new Array(256).fill(0)", "256 bytes; at most 255"),
    ),
)
LUA = Language(
    name="lua",
    decode="function decode_uplink(i) {} end",
    echo="return {data = {first = i.bytes:byte(1), port = i.f_port}, warnings = {'w'}}",
    encode="function encode_downlink(i) return {{bytes = {}, f_port = i.f_port}} end",
    threw="\n\n  error('no good')",
    loop="while true do pcall(function() while true do end end) end",
    hog="local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end",
    bomb="return {data = {b = ('a'):rep(20000):find(('.-'):rep(20) .. 'b')}}",
    globals="n = (n or 0) + 1 return {data = {n = n}}",
    library="string.n = (string.n or 0) + 1 return {data = {n = string.n}}",
    nonsense=(
        ("return nil", "nil"),
        ("", "nil"),
        ("return 'text'", "a string"),
        ("return {data = {1}}", "data is not a table with names"),
        ("return {data = {x = 0 / 0}}", "nan"),
        ("return {data = {x = {1, -math.huge}}}", "data.x[2] is -inf"),
        ("return {data = {f = print}}", "data.f is a function"),
        ("return {data = {x = {[true] = 1, 2}}}", "data.x has a key that is neither text"),
        ("return {[true] = 1, data = {}, 2}", "the result has a key"),
        ("return {data = {[2.5] = 1}}", "neither text nor a whole number"),
        ("return {data = {s = '\\xff'}}", "data.s is not UTF-8"),
        ("local d = {} d.d = d return {data = d}", "refers to itself"),
        ("local d = {} for k = 1, 5000 do d = {d = d} end return {data = d}", "deeper"),
        ("return {temperature = 1}", "no `data`"),
        ("local s = ('x'):rep(1000000) return {data = {s = s .. s}}", "at most"),
    ),
    bad_bytes=(
        ("{1, 2.5}", "bytes[2] is 2.5"),
        ("{256}", "bytes[1] is 256"),
        ("{1, 2, -1}", "bytes[3] is -1"),
        ("{0, 'a'}", "bytes[2] is a string"),
        ("{a = 1}", "a table with names"),
        ("nil", "bytes is nil"),
        ("('x'):rep(256)", "256 bytes; at most 255"),
    ),
)


@pytest.fixture(params=[JAVASCRIPT, LUA], ids=lambda language: language.name)
def language(request: pytest.FixtureRequest) -> Language:
    return request.param


@pytest.fixture(scope="module")
def metrics() -> Registry:
    return Registry()


@pytest.fixture(scope="module")
def engines(metrics: Registry) -> Iterator[ScriptProcesses]:
    engines = ScriptProcesses(LIMITS, metrics)
    yield engines
    engines.close()


def script(language: Language, source: str) -> Script:
    return Script(path="acme/x", language=language.name, source=source)


def decoding(
    language: Language, body: str, payload: bytes = b"\x01", tenant: str = "t", **more: Any
) -> ScriptCall:
    argument = {"bytes": base64.b64encode(payload).decode(), "fPort": 3, **more}
    source = language.decode.format(body)
    return ScriptCall(tenant, script(language, source), "decode_uplink", argument)


def encoding(language: Language, expression: str, **argument: Any) -> ScriptCall:
    source = language.encode.format(expression)
    given = {"data": {}, "fPort": 9, **argument}
    return ScriptCall("t", script(language, source), "encode_downlink", given)


def fails(result: Any, code: str, *words: str) -> ScriptError:
    assert isinstance(result, ScriptError), result
    assert result.code == code, result
    for word in words:
        assert word in result.message
    assert result.detail["script"] == "acme/x"
    return result


def test_decodes_in_order_of_the_calls(engines: ScriptProcesses, language: Language) -> None:
    """A big batch gives each call its own value, in the order of the calls."""
    calls = [decoding(language, language.echo, bytes([n % 256])) for n in range(500)]
    results = engines.call(calls)
    assert [value["data"]["first"] for value in results] == [n % 256 for n in range(500)]
    assert results[0] == {"data": {"first": 0, "port": 3}, "warnings": ["w"]}


def test_encodes(engines: ScriptProcesses, language: Language) -> None:
    """An encoder's bytes come as a list of whole numbers, with the port it chose."""
    array = "[0, 255]" if language is JAVASCRIPT else "{0, 255}"
    expected = {"bytes": [0, 255], "fPort": 9, "warnings": []}
    assert engines.call([encoding(language, array)]) == [expected]


def test_no_calls_no_process(language: Language) -> None:
    """An empty batch has an empty result and starts nothing."""
    engines = ScriptProcesses(LIMITS, Registry())
    assert engines.call([]) == []
    engines.close()


def test_one_throws_with_its_line(engines: ScriptProcesses, language: Language) -> None:
    """An error names the script and the line in the user's own file."""
    (result,) = engines.call([decoding(language, language.threw)])
    error = fails(result, "script_threw", "no good", "acme/x:3")
    assert error.detail["line"] == 3


def test_bad_calls_touch_no_other(engines: ScriptProcesses, language: Language) -> None:
    """Of a batch of good and bad calls, of one script, each has the result it has alone."""
    if language is JAVASCRIPT:
        body = (
            "switch (i.bytes[0]) { case 1: throw new Error('x'); case 2: while (true) {} "
            "case 3: var a = []; while (true) a.push('x'.repeat(100000) + a.length); "
            "case 4: return null; case 5: return (function f() { return f() + 1 })(); "
            "default: return {data: {n: i.bytes[0]}} }"
        )
    else:
        body = (
            "local n = i.bytes:byte(1) if n == 1 then error('x') elseif n == 2 then "
            "while true do end elseif n == 3 then local t = {} while true do "
            "t[#t + 1] = ('x'):rep(100000) .. #t end elseif n == 4 then return nil "
            "elseif n == 5 then local function f() return f() + 1 end return f() end "
            "return {data = {n = n}}"
        )
    order = [9, 1, 8, 2, 7, 3, 9, 4, 8, 5, 7, 3, 2, 9]
    results = engines.call([decoding(language, body, bytes([n])) for n in order])
    codes = {1: "script_threw", 2: "script_time", 3: "script_memory", 4: "script_result"}
    # Lua's stack is limited by the memory alone, when that is small.
    codes[5] = "script_threw" if language is JAVASCRIPT else "script_memory"
    for n, result in zip(order, results, strict=True):
        if n in codes:
            fails(result, codes[n])
        else:
            assert result == {"data": {"n": n}, "warnings": []}


def test_a_loop_is_stopped(engines: ScriptProcesses, language: Language) -> None:
    """A script that catches everything still ends with its time."""
    (result,) = engines.call([decoding(language, language.loop)])
    fails(result, "script_time", "60 ms")


def test_memory_is_limited(engines: ScriptProcesses, language: Language) -> None:
    """A script that takes more memory than it may loses its call only."""
    hog, good = decoding(language, language.hog), decoding(language, language.echo)
    first, second, third = engines.call([good, hog, good])
    fails(second, "script_memory")
    assert first == third == {"data": {"first": 1, "port": 3}, "warnings": ["w"]}


def test_a_pattern_bomb_is_stopped(engines: ScriptProcesses, language: Language) -> None:
    """A regular expression or pattern that backtracks for ever costs its own call only."""
    bomb, good = decoding(language, language.bomb), decoding(language, language.echo)
    results = engines.call([good, bomb, good])
    fails(results[1], "script_time")
    assert results[0] == results[2]
    assert isinstance(results[0], dict)


def test_nonsense_is_refused(engines: ScriptProcesses, language: Language) -> None:
    """What is no object of JSON values is refused, and the error says where and why."""
    results = engines.call([decoding(language, body) for body, _ in language.nonsense])
    for (_, words), result in zip(language.nonsense, results, strict=True):
        fails(result, "script_result", words)


def test_bad_bytes_are_refused(engines: ScriptProcesses, language: Language) -> None:
    """An encoder's bytes are whole numbers of a byte, or the error says which is not."""
    results = engines.call([encoding(language, text) for text, _ in language.bad_bytes])
    for (_, words), result in zip(language.bad_bytes, results, strict=True):
        fails(result, "script_result", words)


def test_a_bad_port_is_refused(engines: ScriptProcesses, language: Language) -> None:
    """A port must be a whole number that fits a byte."""
    array = "[1]" if language is JAVASCRIPT else "{1}"
    for port in (1.5, 256, -1, "1"):
        (result,) = engines.call([encoding(language, array, fPort=port)])
        fails(result, "script_result", "ort is ")


def test_errors_of_the_script_itself(engines: ScriptProcesses, language: Language) -> None:
    """A script's own errors are joined into one ScriptError, though it gave data too."""
    table = "errors: ['a', 'b']" if language is JAVASCRIPT else "errors = {'a', 'b'}"
    (result,) = engines.call([decoding(language, f"return {{{table}}}")])
    fails(result, "script_errors", "a, b")


def test_no_data_but_a_warning(engines: ScriptProcesses, language: Language) -> None:
    """A decoder that only warns gives empty data, as in The Things Stack."""
    table = "warnings: ['w']" if language is JAVASCRIPT else "warnings = {'w'}"
    (result,) = engines.call([decoding(language, f"return {{{table}}}")])
    assert result == {"data": {}, "warnings": ["w"]}


@pytest.mark.parametrize("leak", ["globals", "library"])
def test_nothing_leaks_between_calls(
    engines: ScriptProcesses, language: Language, leak: str
) -> None:
    """Globals, and what a script adds to the libraries, are gone at the next call."""
    call = decoding(language, getattr(language, leak))
    for _ in range(2):
        assert engines.call([call] * 5) == [{"data": {"n": 1}, "warnings": []}] * 5


def test_top_level_state_is_fresh(engines: ScriptProcesses, language: Language) -> None:
    """What stands outside the functions is run anew for every call."""
    if language is JAVASCRIPT:
        source = "var n = 0; let m = 0; function decodeUplink(i) { return {data: {n: ++n + ++m}} }"
    else:
        source = "local n = 0 function decode_uplink(i) n = n + 2 return {data = {n = n}} end"
    call = ScriptCall("t", script(language, source), "decode_uplink", {"bytes": "", "fPort": 1})
    assert engines.call([call] * 3) == [{"data": {"n": 2}, "warnings": []}] * 3


def test_syntax_error_has_its_place(engines: ScriptProcesses, language: Language) -> None:
    """A script that does not compile fails each of its calls, with the line."""
    body = "\n\n  let x = ;" if language is JAVASCRIPT else "\n\n  local x = = 1"
    results = engines.call([decoding(language, body)] * 2)
    for result in results:
        assert fails(result, "script_syntax", "acme/x:3").detail["line"] == 3


def test_a_missing_function_is_said(engines: ScriptProcesses, language: Language) -> None:
    """A call of a function that the script does not define says which it wants."""
    call = encoding(language, "nil" if language is LUA else "null")
    asked = ScriptCall("t", call.script, "decode_downlink", {"bytes": "", "fPort": 1})
    (result,) = engines.call([asked])
    fails(result, "script_missing", "ecode")


def test_a_child_killed_from_outside_loses_nothing(
    engines: ScriptProcesses, language: Language, metrics: Registry
) -> None:
    """SIGKILL of the child in the middle of a batch, several times, costs no call."""
    burn = (
        "var t = 0; for (var k = 0; k < 20000; k++) t += k; return {data: {n: i.bytes[0]}}"
        if language is JAVASCRIPT
        else "local t = 0 for k = 1, 60000 do t = t + k end return {data = {n = i.bytes:byte(1)}}"
    )
    calls = [decoding(language, burn, bytes([n])) for n in range(200)]
    engines.call(calls[:1])
    seat = engines._seats._seats["t", language.name]
    before = sum(metrics.values(RESTARTS).values())
    stop = threading.Event()

    def kill() -> None:
        for _ in range(3):
            stop.wait(0.02)
            process = seat._process
            if process is not None and not stop.is_set():
                os.kill(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    results = engines.call(calls)
    stop.set()
    killer.join()
    assert [result["data"]["n"] for result in results] == list(range(200))
    assert sum(metrics.values(RESTARTS).values()) > before


def test_an_idle_child_killed_from_outside(engines: ScriptProcesses, language: Language) -> None:
    """A child that died between two batches is replaced without a loss."""
    calls = [decoding(language, language.echo)] * 3
    expected = engines.call(calls)
    os.kill(engines._seats._seats["t", language.name]._process.pid, signal.SIGKILL)
    assert engines.call(calls) == expected


def test_the_budget_of_a_batch(language: Language) -> None:
    """When one tenant's scripts have used up their time, its other calls say so; another
    tenant's calls run.
    """
    engines = ScriptProcesses(ScriptLimits(call_ms=60, batch_beside_ms_max=150), Registry())
    loops = [decoding(language, language.loop, tenant="slow")] * 20
    results = engines.call([*loops, decoding(language, language.echo, tenant="fast")])
    engines.close()
    codes = [result.code for result in results[:20]]
    assert codes[0] == "script_time"
    assert codes[-1] == "script_budget"
    assert results[20]["data"] == {"first": 1, "port": 3}


def test_input_too_big_for_the_script(engines: ScriptProcesses, language: Language) -> None:
    """Inputs of any size in one batch go to the child in parts, and none is lost."""
    calls = [decoding(language, language.echo, bytes(500_000)) for _ in range(14)]
    assert [value["data"]["first"] for value in engines.call(calls)] == [0] * 14


def test_an_argument_that_is_no_json(engines: ScriptProcesses, language: Language) -> None:
    """An input that cannot be written as JSON fails its own call only."""
    good = decoding(language, language.echo)
    bad = decoding(language, language.echo, variables={"x": "\ud800"})
    first, second = engines.call([bad, good])
    fails(first, "script_result", "input")
    assert second["data"] == {"first": 1, "port": 3}


def test_values_pass_unchanged(engines: ScriptProcesses, language: Language) -> None:
    """Text, numbers, booleans, lists and objects go in and come out as they are."""
    data = {"s": "ü€😀\u0000", "i": 7, "f": 2.5, "t": True, "l": [1, [2], {"a": "b"}], "n": -3}
    if language is JAVASCRIPT:
        body = "return {data: {got: i.variables}}"
    else:
        body = "return {data = {got = i.variables}}"
    (result,) = engines.call([decoding(language, body, variables=data)])
    assert result["data"]["got"] == data


def test_source_over_the_limit(language: Language) -> None:
    """A script that is too long says so, and starts no process."""
    engines = ScriptProcesses(ScriptLimits(source_bytes_max=10), Registry())
    (result,) = engines.call([decoding(language, language.echo)])
    fails(result, "script_syntax", "at most 10")
    assert not engines._seats._seats
    engines.close()
