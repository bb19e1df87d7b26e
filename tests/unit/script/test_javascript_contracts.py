"""The contracts of other places: ChirpStack's two, the normalizer, `module`, and the console."""

from __future__ import annotations

from typing import Any

import pytest


def decode(body: str) -> str:
    return f"function decodeUplink(i) {{ {body} }}"


def test_chirpstack_v3(javascript_run: Any) -> None:
    """Decode(fPort, bytes, variables) gives the data, Encode(fPort, obj, variables) the bytes."""
    source = (
        "function Decode(fPort, bytes, variables) { return {p: fPort, b: bytes, v: variables.x} }\n"
        "function Encode(fPort, obj, variables) { return [fPort, obj.on, variables.x] }"
    )
    argument = {"bytes": "AQI=", "fPort": 3, "variables": {"x": 7}}
    value = javascript_run.value(source, argument)
    assert value == {"data": {"p": 3, "b": [1, 2], "v": 7}, "warnings": []}
    asked = {"data": {"on": 1}, "fPort": 3, "variables": {"x": 7}}
    value = javascript_run.value(source, asked, operation="encode_downlink")
    assert value == {"bytes": [3, 1, 7], "fPort": None, "warnings": []}


def test_chirpstack_v3_is_asked_last(javascript_run: Any) -> None:
    """A script that also has a newer or TTN's function is called by that one."""
    source = "function Decode(p, b) { return {by: 'Decode'} }\n"
    assert javascript_run.value(source)["data"] == {"by": "Decode"}
    source += "function Decoder(b, p) { return {by: 'Decoder'} }\n"
    assert javascript_run.value(source)["data"] == {"by": "Decoder"}
    source += decode("return {data: {by: 'decodeUplink'}}")
    assert javascript_run.value(source)["data"] == {"by": "decodeUplink"}


@pytest.mark.parametrize(
    ("returned", "data"),
    [
        ("{data: {air: {temperature: i.data.t}}}", [{"air": {"temperature": 5}}]),
        ("{data: [{a: 1}, {b: undefined}]}", [{"a": 1}, {"b": None}]),
        ("{data: []}", []),
        ("{}", []),
    ],
)
def test_the_normalizer(javascript_run: Any, returned: str, data: list[Any]) -> None:
    """The normalizer takes the decoded data, and gives a list of measurements."""
    source = f"function normalizeUplink(i) {{ return {returned} }}"
    value = javascript_run.value(source, {"data": {"t": 5}}, operation="normalize_uplink")
    assert value == {"data": data, "warnings": []}


def test_the_normalizer_that_fails(javascript_run: Any) -> None:
    """Its errors, a result that is no measurement, and its absence each say so."""
    run = {"operation": "normalize_uplink"}
    refused = "function normalizeUplink(i) { return {errors: ['no', 'never']} }"
    assert javascript_run.error(refused, {"data": {}}, **run)["message"] == "no, never"
    nonsense = "function normalizeUplink(i) { return {data: 5} }"
    assert "data is a number" in javascript_run.error(nonsense, {"data": {}}, **run)["message"]
    assert javascript_run.error("", {"data": {}}, **run)["code"] == "script_missing"


@pytest.mark.parametrize(
    "source",
    [
        "module.exports = {decodeUplink: (i) => ({data: {n: 1}})}",
        "module.exports.decodeUplink = function (i) { return {data: {n: 1}} }",
        "exports.decodeUplink = (i) => ({data: {n: 1}})",
        decode("return {data: {n: 1}}") + "\nmodule.exports = {decodeUplink}",
        decode("return {data: {n: 1}}")
        + "\nif (typeof module !== 'undefined') module.exports = {decodeUplink}",
        "'use strict'; const exports = {}; exports.x = 1;" + decode("return {data: {n: 1}}"),
    ],
)
def test_exports(javascript_run: Any, source: str) -> None:
    """A script may export its functions, guarded or not; what it declares counts as well."""
    for _ in range(2):
        outcomes = javascript_run(source, *[{"bytes": "", "fPort": 1}] * 3)
        assert outcomes == [{"value": {"data": {"n": 1}, "warnings": []}}] * 3


def test_exports_are_fresh_and_keep_places(javascript_run: Any) -> None:
    """Each call has a module of its own, and an error's place is that of the user's text."""
    source = (
        "exports.n = (exports.n || 0) + 1; exports.decodeUplink = (i) => ({data: {n: exports.n}})"
    )
    outcomes = javascript_run(source, *[{"bytes": "", "fPort": 1}] * 3)
    assert [outcome["value"]["data"]["n"] for outcome in outcomes] == [1, 1, 1]
    error = javascript_run.error("exports.decodeUplink = (i) => i.a.b")
    assert (error["line"], error["column"]) == (1, 31)
    error = javascript_run.error("exports.decodeUplink = (i) => = 1")
    assert error["code"] == "script_syntax"
    assert error["line"] == 1


def test_the_console_is_heard(javascript_run: Any) -> None:
    """With somebody listening, an outcome carries what its own call said, errors included."""
    source = decode(
        "console.log('port', i.fPort, {a: [1]}, undefined); "
        "if (i.fPort === 2) throw new Error('x'); "
        "if (i.fPort !== 3) console.error(new Error('e')); return {data: {}}"
    )
    arguments = [{"bytes": "", "fPort": port} for port in (1, 2, 3)]
    first, second, third = javascript_run(source, *arguments, console=True)
    assert first["console"] == ['port 1 {"a":[1]} undefined', "Error: e"]
    assert second["console"] == ['port 2 {"a":[1]} undefined']
    assert second["error"]["message"] == "Error: x"
    assert third["console"] == ['port 3 {"a":[1]} undefined']
    assert all("console" not in outcome for outcome in javascript_run(source, *arguments))


def test_the_console_has_limits(javascript_run: Any) -> None:
    """What is said is bounded in lines and in characters, and what cannot be shown hurts nobody."""
    source = decode("for (var k = 0; k < 500; k++) console.log('x'.repeat(600)); return {data: {}}")
    (outcome,) = javascript_run(source, console=True)
    assert len(outcome["console"]) == 101
    assert outcome["console"][0] == "x" * 500
    assert outcome["console"][-1] == "… and more lines"
    source = decode("var c = {}; c.c = c; console.log(c, Symbol('s')); return {data: {}}")
    (outcome,) = javascript_run(source, console=True)
    assert outcome["console"] == ["what cannot be shown Symbol(s)"]


def test_thingsboard_bodies(javascript_run: Any) -> None:
    """A script with a `return` outside of functions is a body, as ThingsBoard keeps converters."""
    source = (
        "const data = decodeToJson(payload); let msg = half(data.t);\n"
        "return {deviceName: metadata.n, telemetry: {t: msg}};\n"
        "function half(x) { return x / 2 }\n"
    )
    argument = {"payload": "eyJ0Ijo0Mn0=", "metadata": {"n": "d"}}
    value = javascript_run.value(source, argument, contract="thingsboard")
    assert value == {"deviceName": "d", "telemetry": {"t": 21}}
    source = "return {contentType: 'JSON', data: JSON.stringify([msg, metadata.a, msgType])}"
    argument = {"msg": {"x": 1}, "metadata": {"a": 2}, "msgType": "T", "integrationMetadata": {}}
    value = javascript_run.value(
        source, argument, operation="encode_downlink", contract="thingsboard"
    )
    assert value["data"] == '[{"x":1},2,"T"]'


def test_places_in_bodies(javascript_run: Any) -> None:
    """Errors and syntax errors of a body have the place of the user's text."""
    argument = {"payload": "", "metadata": {}}
    error = javascript_run.error("return metadata.a.b", argument, contract="thingsboard")
    assert (error["line"], error["column"]) == (1, 8)
    error = javascript_run.error("return 1;\nlet x = ;", argument, contract="thingsboard")
    assert (error["code"], error["line"]) == ("script_syntax", 2)


NORMALIZES = (
    "function decodeUplink(i) { return {data: {t: i.bytes[0]}, warnings: ['w']} }"
    "function normalizeUplink(i) { %s }"
)


def test_decoding_normalizes(javascript_run: Any) -> None:
    """A script with a normalizer gives its measurements beside the data, from the same call."""
    source = NORMALIZES % "i.data.t += 1; return {data: {air: {temperature: i.data.t}}}"
    (outcome,) = javascript_run(source, {"bytes": "Fg==", "fPort": 1})
    assert outcome["value"] == {
        "data": {"t": 22},
        "warnings": ["w"],
        "normalized": {"data": [{"air": {"temperature": 23}}], "warnings": []},
    }


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("\n throw new Error('no')", "normalizeUplink: Error: no (line 2)"),
        ("return {errors: ['odd']}", "normalizeUplink: odd"),
        ("return 5", "normalizeUplink: normalizeUplink returned a number"),
        ("return {data: {x: NaN}}", "normalizeUplink: data[0].x is NaN"),
    ],
)
def test_a_failing_normalizer_is_a_warning(javascript_run: Any, body: str, said: str) -> None:
    """The data stay, and the warning says what went wrong and where."""
    (outcome,) = javascript_run(NORMALIZES % body, {"bytes": "Fg==", "fPort": 1})
    assert outcome["value"]["data"] == {"t": 22}
    assert outcome["value"]["warnings"][0] == "w"
    assert outcome["value"]["warnings"][1].startswith(said)
    assert "normalized" not in outcome["value"]


def test_an_input_has_all_that_was_given(javascript_run: Any) -> None:
    """Names beside the contract's own, which public examples have, reach the script."""
    encode = "function encodeDownlink(i) { return {bytes: [i.command, i.data.x], fPort: i.fPort} }"
    given = {"command": 7, "data": {"x": 1}, "fPort": None}
    (outcome,) = javascript_run(encode, given, operation="encode_downlink")
    assert outcome["value"] == {"bytes": [7, 1], "fPort": None, "warnings": []}
