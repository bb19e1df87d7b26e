"""The JavaScript engine: contracts, places of errors, and what a script may not leave behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def decode(body: str) -> str:
    return f"function decodeUplink(i) {{ {body} }}"


def test_input_of_decode_uplink(javascript_run: Any) -> None:
    """A decoder gets a plain Array, the port, a Date and the variables, as in The Things Stack."""
    body = (
        "return {data: {array: Array.isArray(i.bytes), bytes: i.bytes, port: i.fPort, "
        "date: i.recvTime instanceof Date, year: i.recvTime.getUTCFullYear(), "
        "v: i.variables.x, keys: Object.keys(i)}}"
    )
    argument = {
        "bytes": "AP8=",
        "fPort": 2,
        "recvTime": "2026-11-21T09:00:00.123456789Z",
        "variables": {"x": 5},
    }
    assert javascript_run.value(decode(body), argument)["data"] == {
        "array": True,
        "bytes": [0, 255],
        "port": 2,
        "date": True,
        "year": 2026,
        "v": 5,
        "keys": ["bytes", "fPort", "recvTime", "variables"],
    }


def test_results_as_json(javascript_run: Any) -> None:
    """An undefined value is null and keeps its name; Dates and typed arrays are JSON."""
    body = (
        "return {data: {u: undefined, n: null, a: [undefined, 1], d: new Date(0), "
        "t: new Uint8Array([1, 2]), s: 'a\\ud800b', z: -0, w: 1.50}}"
    )
    assert javascript_run.value(decode(body))["data"] == {
        "u": None,
        "n": None,
        "a": [None, 1],
        "d": "1970-01-01T00:00:00.000Z",
        "t": [1, 2],
        "s": "a�b",
        "z": 0,
        "w": 1.5,
    }


def test_nesting_up_to_the_limit(javascript_run: Any) -> None:
    """64 levels are fine, the 65th is refused, in objects and arrays."""
    body = (
        "var d = {v: 1}; for (var k = 0; k < %d; k++) d = k %% 2 ? {d: d} : [d]; "
        "return {data: {d: d}}"
    )
    assert "data" in javascript_run.value(decode(body % 62))
    assert "deeper" in javascript_run.error(decode(body % 63))["message"]


def test_warnings_of_any_kind(javascript_run: Any) -> None:
    """Warnings become texts, be they one text, a list, or Errors."""
    assert javascript_run.value(decode("return {data: {}, warnings: 'w'}"))["warnings"] == ["w"]
    body = "return {data: {}, warnings: ['a', 1, new Error('e'), {x: 1}]}"
    assert javascript_run.value(decode(body))["warnings"] == ["a", "1", "Error: e", '{"x":1}']


def test_the_older_contract(javascript_run: Any) -> None:
    """Decoder, then Converter, then Validator, each with the port, as in TTN v2."""
    source = (
        "function Decoder(bytes, port) { return {n: bytes.length, port: port} }\n"
        "function Converter(decoded, port) { decoded.n += port; return decoded }\n"
    )
    value = javascript_run.value(source)
    assert value == {"data": {"n": 3, "port": 1}, "warnings": []}
    refuses = source + "function Validator(converted, port) { return converted.n !== 3 }"
    error = javascript_run.error(refuses)
    assert (error["code"], error["message"]) == ("script_errors", "the Validator refused it")
    vague = source + "function Validator() { return 'yes' }"
    assert "not true or false" in javascript_run.error(vague)["message"]
    passes = source + "function Validator() { return true }"
    assert javascript_run.value(passes) == value


@pytest.mark.parametrize("name", ["Decoder", "Converter"])
def test_the_older_contract_wants_objects(javascript_run: Any, name: str) -> None:
    """Decoder and Converter must return an object."""
    source = f"function Decoder() {{ return {{}} }}\nfunction {name}() {{ return 3 }}"
    assert javascript_run.error(source)["message"].startswith(f"{name} returned a number")


def test_new_name_wins_over_the_older(javascript_run: Any) -> None:
    """A script with decodeUplink and Decoder is called by decodeUplink."""
    source = decode("return {data: Decoder(i.bytes)}") + "function Decoder(b) { return {b: b[1]} }"
    assert javascript_run.value(source)["data"] == {"b": 2}


def test_functions_in_variables(javascript_run: Any) -> None:
    """const, let and implicit globals hold functions as well as declarations do."""
    for keyword in ("const ", "let ", "var ", ""):
        source = f"{keyword}decodeUplink = (i) => ({{data: {{n: 1}}}})"
        assert javascript_run.value(source)["data"] == {"n": 1}


def test_sloppy_and_strict_scripts(javascript_run: Any) -> None:
    """Octal numbers, `with` and implicit globals work; 'use strict' is obeyed."""
    sloppy = decode("q = 010; with ({r: 1}) { q += r } return {data: {q: q}}")
    assert javascript_run.value(sloppy)["data"] == {"q": 9}
    strict = '"use strict";\n' + decode("q = 1; return {data: {}}")
    error = javascript_run.error(strict)
    assert error["message"].startswith("ReferenceError")
    assert error["line"] == 2


def test_what_is_offered(javascript_run: Any) -> None:
    """The console is silent, atob and btoa work, and there is no module and no require."""
    body = (
        "console.log('x'); console.error(i); console.debug(); console.info(); console.warn(); "
        "return {data: {b: btoa(atob('AQI=')), m: typeof module, e: typeof exports, "
        "r: typeof require, p: typeof process, f: typeof performance}}"
    )
    assert javascript_run.value(decode(body))["data"] == {
        "b": "AQI=",
        "m": "undefined",
        "e": "undefined",
        "r": "undefined",
        "p": "undefined",
        "f": "undefined",
    }


def test_thingsboard_decoder(javascript_run: Any, encode_base64: Callable[[bytes], str]) -> None:
    """Decoder(payload, metadata) has its helpers, and its result passes whole, arrays too."""
    source = (
        "function Decoder(payload, metadata) { var d = decodeToJson(payload); "
        "return [{deviceName: metadata.name + d.k, telemetry: [{ts: 1, values: {t: d.t}}], "
        "text: decodeToString(payload), first: payload[0]}] }"
    )
    text = '{"k":"ü€😀","t":1.5}'
    argument = {"payload": encode_base64(text.encode()), "metadata": {"name": "n"}}
    assert javascript_run.value(source, argument, contract="thingsboard") == [
        {
            "deviceName": "nü€😀",
            "telemetry": [{"ts": 1, "values": {"t": 1.5}}],
            "text": text,
            "first": 123,
        }
    ]


def test_thingsboard_text_that_is_not_utf8(
    javascript_run: Any, encode_base64: Callable[[bytes], str]
) -> None:
    """Broken UTF-8 becomes U+FFFD, as in every text decoder of the web."""
    source = "function Decoder(p) { return {s: decodeToString(p)} }"
    for data in (
        b"a\xffb",
        b"\xc3",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xc0\xaf",
        b"\xf5\x80",
        b"\xf0\x80\x80\x80",
    ):
        argument = {"payload": encode_base64(data), "metadata": {}}
        text = javascript_run.value(source, argument, contract="thingsboard")["s"]
        assert "\ufffd" in text
        text.encode()


def test_thingsboard_encoder(javascript_run: Any) -> None:
    """Encoder gets the message, its metadata and type, and the integration's metadata."""
    source = (
        "function Encoder(msg, metadata, msgType, integrationMetadata) { return {contentType: "
        "'JSON', data: JSON.stringify(msg), "
        "metadata: [metadata.a, msgType, integrationMetadata.b]} }"
    )
    argument = {
        "msg": {"x": 1},
        "metadata": {"a": 2},
        "msgType": "ATTRIBUTES_UPDATED",
        "integrationMetadata": {"b": 3},
    }
    value = javascript_run.value(
        source, argument, operation="encode_downlink", contract="thingsboard"
    )
    assert value == {
        "contentType": "JSON",
        "data": '{"x":1}',
        "metadata": [2, "ATTRIBUTES_UPDATED", 3],
    }


def test_thingsboard_with_the_newer_names(javascript_run: Any) -> None:
    """The newer names serve the contract where the older ones are missing."""
    source = decode("return {deviceName: i.metadata.n, first: i.bytes[0], port: i.fPort}")
    argument = {"payload": "AQ==", "metadata": {"n": "d", "fPort": 4}}
    value = javascript_run.value(source, argument, contract="thingsboard")
    assert value == {"deviceName": "d", "first": 1, "port": 4}
    refused = decode("return {errors: ['no']}")
    assert javascript_run.error(refused, argument, contract="thingsboard")["message"] == "no"
    older = "function Decoder() { return {errors: [1]} }"
    assert javascript_run.value(older, argument, contract="thingsboard") == {"errors": [1]}
    assert javascript_run.error("", argument, contract="thingsboard")["code"] == "script_missing"


@pytest.mark.parametrize("result", ["null", "undefined", "'text'", "5"])
def test_thingsboard_nonsense(javascript_run: Any, result: str) -> None:
    """A ThingsBoard decoder that returns no object is refused."""
    source = f"function Decoder() {{ return {result} }}"
    argument = {"payload": "", "metadata": {}}
    assert javascript_run.error(source, argument, contract="thingsboard")["code"] == "script_result"


def test_encoders(javascript_run: Any) -> None:
    """Both encodeDownlink and Encoder give the same shape; typed arrays are bytes."""
    asked = {"data": {"on": True}, "fPort": None}
    source = "function encodeDownlink(i) { return {bytes: new Uint8Array([i.data.on ? 1 : 0])} }"
    value = javascript_run.value(source, asked, operation="encode_downlink")
    assert value == {"bytes": [1], "fPort": None, "warnings": []}
    older = "function Encoder(object, port) { return [port, object.on ? 1 : 0] }"
    value = javascript_run.value(older, {**asked, "fPort": 7}, operation="encode_downlink")
    assert value == {"bytes": [7, 1], "fPort": None, "warnings": []}


def test_decode_downlink(javascript_run: Any) -> None:
    """A decodeDownlink gets bytes and port and returns data."""
    source = "function decodeDownlink(i) { return {data: {b: i.bytes, p: i.fPort}} }"
    value = javascript_run.value(source, operation="decode_downlink")
    assert value["data"] == {"b": [1, 2], "p": 1}


@pytest.mark.parametrize(
    ("source", "line", "column"),
    [
        ("function decodeUplink(i) { return i.a.b }", 1, 35),
        ("function decodeUplink(i) {\n  return i.a.b\n}", 2, 10),
        ("function f(i) {\n\n return JSON.parse('{') }\n" + decode("f(i)"), 3, 14),
        ("\n\nnull.x;", 3, 1),
    ],
)
def test_places_of_errors(javascript_run: Any, source: str, line: int, column: int) -> None:
    """Line and column are those of the user's own text, on the first line too."""
    error = javascript_run.error(source)
    assert error["code"] == "script_threw"
    assert (error["line"], error["column"]) == (line, column)


def test_place_of_an_error_within_a_helper(javascript_run: Any) -> None:
    """An error inside what is offered stands at the script's line that called it."""
    source = "function Decoder(p) {\n  return decodeToJson(p) }"
    error = javascript_run.error(
        source, {"payload": "eA==", "metadata": {}}, contract="thingsboard"
    )
    assert error["message"].startswith("SyntaxError")
    assert error["line"] == 2


@pytest.mark.parametrize(
    ("source", "line", "column"),
    [
        ("let x = ;", 1, 9),
        ("\nfunction decodeUplink( {", 2, 24),
        ("function decodeUplink(i) {\n  return 1", 2, 11),
        ("function decodeUplink(i) { }\n}", 2, 1),
        ("export function decodeUplink() {}", 1, 1),
        ("}) ; (function () {", 1, 1),
        ("/* open", 1, 1),
    ],
)
def test_places_of_syntax_errors(javascript_run: Any, source: str, line: int, column: int) -> None:
    """A script that is none by itself is refused with its place, also one that closes what
    stands around it.
    """
    error = javascript_run.error(source)
    assert error["code"] == "script_syntax"
    assert error["line"] == line
    assert abs(error["column"] - column) <= 2


def test_a_nul_in_the_source(javascript_run: Any) -> None:
    """A NUL character, at which the engine would stop reading, is a syntax error."""
    assert javascript_run.error("\0")["code"] == "script_syntax"


@pytest.mark.parametrize(
    ("thrown", "message"),
    [
        ("'text'", "text"),
        ("{code: 3}", '{"code":3}'),
        ("undefined", "undefined"),
        ("12", "12"),
        ("new TypeError('t')", "TypeError: t"),
        ("{get message() { throw 1 }}", "an error that cannot be shown was thrown"),
        ("'x'.repeat(5000)", "x" * 1000),
        ("Symbol('s')", "Symbol(s)"),
    ],
)
def test_whatever_is_thrown(javascript_run: Any, thrown: str, message: str) -> None:
    """Anything thrown becomes an error of limited length; the next call is unharmed."""
    first, second = javascript_run(
        decode(f"if (i.fPort === 1) throw {thrown}; return {{data: {{}}}}"),
        {"bytes": "", "fPort": 1},
        {"bytes": "", "fPort": 2},
    )
    assert first["error"]["code"] == "script_threw"
    assert first["error"]["message"] == message
    assert second == {"value": {"data": {}, "warnings": []}}


def test_a_promise_is_refused(javascript_run: Any) -> None:
    """An async function cannot wait for anything, so its result is refused, saying so."""
    error = javascript_run.error("async " + decode("return {data: {}}"))
    assert "Promise" in error["message"]


def test_jobs_left_behind_are_dropped(javascript_run: Any) -> None:
    """A promise that a call left behind never runs into another call."""
    body = (
        "Promise.resolve().then(function () { String.n = 1 }); return {data: {n: typeof String.n}}"
    )
    for _ in range(3):
        assert javascript_run.value(decode(body))["data"] == {"n": "undefined"}


@pytest.mark.parametrize(
    ("write", "read"),
    [
        ("Array.prototype.n = 1", "[].n"),
        ("Math.floor = function () { return 7 }", "Math.floor(1.5) === 7 || undefined"),
        ("JSON.n = 1", "JSON.n"),
        ("console.n = 1", "console.n"),
        ("globalThis.n = 1", "globalThis.n"),
        ("this.n = 1", "globalThis.n"),
        ("(0, eval)('var n = 1')", "globalThis.n"),
        ("Object.defineProperty(globalThis, 'n', {value: 1, configurable: true})", "globalThis.n"),
        ("Object.defineProperty(globalThis, 'n', {value: 1})", "globalThis.n"),
        ("Object.defineProperty(Date, 'n', {value: 1})", "Date.n"),
        ("delete globalThis.escape", "typeof escape === 'function' ? undefined : 1"),
        ("Object.setPrototypeOf(Array.prototype, {n: 1})", "[].n"),
        ("decodeToJson = 1", "decodeToJson === 1 || undefined"),
        ("undefined_ = i; Object.prototype.n = 1", "({}).n"),
    ],
)
def test_nothing_is_left_for_the_next_call(javascript_run: Any, write: str, read: str) -> None:
    """What a call changes in its world, built-in objects included, no later call sees."""
    body = f"var before = {read}; {write}; return {{data: {{before: before}}}}"
    for _ in range(2):
        outcomes = javascript_run(decode(body), *[{"bytes": "", "fPort": 1}] * 3)
        assert outcomes == [{"value": {"data": {"before": None}, "warnings": []}}] * 3


def test_polyfills_work(javascript_run: Any) -> None:
    """A script that adds to the built-in objects at its top finds them in each of its calls."""
    source = "String.prototype.twice = function () { return this + this };\n" + decode(
        "return {data: {s: 'a'.twice()}}"
    )
    outcomes = javascript_run(source, *[{"bytes": "", "fPort": 1}] * 3)
    assert outcomes == [{"value": {"data": {"s": "aa"}, "warnings": []}}] * 3


def test_what_was_taken_away_is_whole_again(javascript_run: Any) -> None:
    """A built-in function that a call deleted can be deleted by the next call too."""
    body = "var had = typeof escape; delete globalThis.escape; return {data: {had: had}}"
    for _ in range(3):
        assert javascript_run.value(decode(body))["data"] == {"had": "function"}


def test_input_that_a_script_changed_is_whole_again(javascript_run: Any) -> None:
    """When calls run again because a script altered its world, they get their input anew."""
    body = "Array.n = 1; var n = i.variables.n; i.variables.n = 9; return {data: {n: n}}"
    argument = {"bytes": "", "fPort": 1, "variables": {"n": 5}}
    outcomes = javascript_run(decode(body), argument, argument)
    assert [outcome["value"]["data"] for outcome in outcomes] == [{"n": 5}, {"n": 5}]


def test_scripts_do_not_see_each_other(javascript_run: Any) -> None:
    """Two scripts have a world each."""
    javascript_run(decode("Array.prototype.n = 1; return {data: {}}"))
    assert javascript_run.value(decode("return {data: {n: typeof [].n}}"))["data"] == {
        "n": "undefined"
    }


def test_worlds_are_few(javascript_run: Any) -> None:
    """No more scripts are kept ready than the limit says; the least recently used one goes."""
    for n in (1, 2, 1, 3):
        javascript_run(f"// {n}")
    assert list(javascript_run.engine._worlds) == [b"// 1", b"// 3"]


def test_careful_requests_answer_each_call_at_once(javascript_run: Any) -> None:
    """A careful request's outcomes come one by one, others in one part."""
    arguments = [{"bytes": "", "fPort": n} for n in range(4)]
    source = decode("return {data: {n: i.fPort}}")
    assert len(javascript_run(source, *arguments)) == 4
    assert len(javascript_run.parts) == 1
    assert len(javascript_run(source, *arguments, careful=True)) == 4
    assert len(javascript_run.parts) == 4


def test_time_is_counted_for_each_call(javascript_run: Any) -> None:
    """Many calls that each take a part of the limit are no fault, however long they take
    together; one that takes more is.
    """
    body = "var end = Date.now() + i.fPort;\n while (Date.now() < end) {}\n return {data: {}}"
    arguments = [{"bytes": "", "fPort": ms} for ms in (15, 15, 15, 15, 15, 15, 900, 15)]
    outcomes = javascript_run(decode(body), *arguments)
    errors = [outcome.get("error", {}).get("code") for outcome in outcomes]
    assert errors == [None] * 6 + ["script_time", None]


def test_check_names_the_functions(javascript_run: Any) -> None:
    """A check compiles, runs the top and names what a converter may call; it calls nothing."""
    source = decode("while (true) {}") + "const Encoder = () => [];"
    assert javascript_run(source, operation="check") == [{"value": ["decodeUplink", "Encoder"]}]
    assert javascript_run.error("\nthrow new Error('top')", operation="check")["line"] == 2
    assert javascript_run.error("while (1) {}", operation="check")["code"] == "script_time"
    assert javascript_run.error("x = = 1", operation="check")["code"] == "script_syntax"
