"""TBEL: what the translation makes of it, and that it means there what it means on ThingsBoard."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.script.tbel import TOKEN, translate


@pytest.mark.parametrize(
    ("tbel", "javascript"),
    [
        ("foreach (x : data.list) { n++ }", "for (var x  of $each( data.list)) { n++ }"),
        ("for (b : f(bytes)) {}", "for (var b  of $each( f(bytes))) {}"),
        ("for (var i = 0; i < 3; i++) {}", "for (var i = 0; i < 3; i++) {}"),
        ("a.?b.c", "a?.b?.c"),
        ("a.?b[0]", "a?.b?.[0]"),
        ("a.?list.size() > 0", "a?.list?.$size() > 0"),
        ("a === b !== c", "a == b != c"),
        ("list.add(1); map.putAll(m)", "list.$add(1); map.$putAll(m)"),
        ("list.size == 1", "list.$sizeOf() == 1"),
        ("o.size = 1", "o.size = 1"),
        ("m.keys.contains(k)", "m.$keysOf().$contains(k)"),
        ("Integer.toString(v, 16)", "Integer.toString(v, 16)"),
        ("10L + 2.5f + 0xFFL", "10 + 2.5 + 0xFF"),
        ("int x = 5; String s = 'int x = 5L'", "var x = 5; var s = 'int x = 5L'"),
        ("new int[3]", "  $array(3)"),
        ("(int) (a / b)", "  $int( (a / b))"),
        ("(char) c", "  $char( c)"),
        ("// a.add(1)\n/* x.?y */ b", "// a.add(1)\n/* x.?y */ b"),
    ],
)
def test_translation(tbel: str, javascript: str) -> None:
    """Each thing that TBEL has and JavaScript lacks is written in JavaScript."""
    assert " ".join(translate(tbel).split()) == " ".join(javascript.split())


@given(st.text(max_size=80))
def test_any_text(source: str) -> None:
    """Any text is translated to something, line for line."""
    assert translate(source).count("\n") == source.count("\n")
    assert "".join(match[0] for match in TOKEN.finditer(source)) == source


def test_lines_stay() -> None:
    """The translation keeps each line where it is, so that errors have their place."""
    source = 'var a = [];\n\nforeach (x :\n list) {\n a.add("1");\n}'
    assert translate(source).count("\n") == source.count("\n")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("parseBytesToInt(hexToBytes('00d7'), 0, 2)", 215),
        ("parseBytesToInt(hexToBytes('d700'), 0, 2, false)", 215),
        ("parseBytesToInt(hexToBytes('ffff'), 0, 2)", 65535),
        ("parseBytesToInt(hexToBytes('ffffffff'), 0, 4)", -1),
        ("parseBytesToLong(hexToBytes('ffffffff'), 0, 4)", 4294967295),
        ("parseBytesToFloat(hexToBytes('41d9999a'), 0, 4)", 27.2),
        ("parseBytesToDouble(hexToBytes('3ff0000000000000'), 0)", 1.0),
        ("parseBytesIntToFloat(hexToBytes('00d7'), 0, 2, true) / 10", 21.5),
        ("hexToBytes('80ff')", [-128, -1]),
        ("base64ToBytes('gP8=')", [-128, -1]),
        ("base64ToHex('CgD/')", "0A00FF"),
        ("bytesToHex([-1, 10])", "FF0A"),
        ("bytesToBase64([-128, 255])", "gP8="),
        ("stringToBytes('é')", [-61, -87]),
        ("bytesToString([104, 105])", "hi"),
        ("parseHexToInt('BBAA', false)", 0xAABB),
        ("parseHexToFloat('41EA62CC')", 29.29824),
        ("parseInt('0xFF')", 255),
        ("parseInt('11', 2)", 3),
        ("parseInt('')", None),
        ("parseDouble('2.5')", 2.5),
        ("toFixed(2.345, 2)", 2.35),
        ("toFixed(-2.345, 2)", -2.35),
        ("toFixed(1.0E-9, 2)", 0),
        ("padStart('7', 3, '0')", "007"),
        ("parseByteToBinaryArray(5, 8)", [0, 0, 0, 0, 0, 1, 0, 1]),
        ("parseBinaryArrayToInt([1, 0, 1], 0, 3)", 5),
        ("toFlatMap({a: {b: 1}, c: 2}, [], false)", {"b": 1, "c": 2}),
        ("toFlatMap({a: {b: 1}, c: 2}, ['c'])", {"a.b": 1}),
        ("String.format('%02X %03d %.1f %s', 10, 7, 2.25, 'x')", "0A 007 2.3 x"),
        ("String.format('%02x', -103)", "99"),
        ("String.join(':', ['a', 'b'])", "a:b"),
        ("Integer.toHexString(255)", "ff"),
        ("Integer.parseInt('-12')", -12),
        ("Boolean.parseBoolean('True')", True),
        ("Math.round(2.5)", 3),
        ("java.util.Arrays.copyOfRange([1, 2, 3], 1, 3)", [2, 3]),
        ("[1, 2] instanceof java.util.ArrayList", True),
        ("{a: 1} instanceof java.util.Map", True),
        ("[1, 2] instanceof java.util.Map", False),
        ("'a.b.c'.replace('.', '-')", "a-b-c"),
        ("'a1b2'.replaceAll('[0-9]', '#')", "a#b#"),
        ("'a1b2'.replaceFirst('[0-9]', '#')", "a#b2"),
        ("'abc'.contains('b') && !'abc'.isEmpty()", True),
        ("'abc'.length() + 'abc'.length", 6),
        ("'a,b'.split(',')", ["a", "b"]),
        ("[3, 1, 2].contains(2)", True),
        ("[3, 1, 2].indexOf(1)", 1),
        ("[1, 2].size() + {a: 1}.size()", 3),
        ("{a: 1}.containsKey('a') && !{a: 1}.containsKey('b')", True),
        ("{a: 1}.get('b') == null", True),
        ("{size: 5}.size", 5),
        ("hexToBytes('65')[0] / 2", 50.5),
        ("null.?x", None),
        ("metadata.missing === null", True),
    ],
)
def test_expressions(tbel_run: Any, expression: str, value: Any) -> None:
    """Functions, classes and methods give what they give on ThingsBoard."""
    source = f"var result = {expression};\nreturn {{v: result}};"
    argument = {"payload": "", "metadata": {}}
    assert tbel_run.value(source, argument, contract="thingsboard") == {"v": value}


def test_a_converter(tbel_run: Any) -> None:
    """A whole converter, as ThingsBoard's library has them: bytes are signed, maps are ordered."""
    source = """
var data = decodeToJson(payload);
var telemetry = [];
var attributes = {};
var decoded = decodePayload(base64ToBytes(data.data));
if (decoded.?telemetry.size() > 0) {
    if (decoded.telemetry instanceof java.util.ArrayList) {
        foreach (each : decoded.telemetry) { telemetry.add(each); }
    }
}
attributes.putAll({fPort: data.fPort, eui: data.deviceInfo.?devEui});
var more = {rssi: -50, humidity: 1};
foreach (element : more.entrySet()) {
    if (!telemetry[0]["values"].keys.contains(element.key)) {
        telemetry[0]["values"][element.key] = element.value;
    }
}
return {deviceName: metadata["name"], deviceType: null, attributes: attributes,
        telemetry: telemetry};

function decodePayload(input) {
    var output = {attributes: {}, telemetry: []};
    var values = {};
    for (var i = 0; i < input.length;) {
        var type = input[i++] & 0xff;
        switch (type) {
            case 1:
                values.temperature = parseBytesToInt(input, i, 2) / 10;
                i += 2;
                break;
            case 0xFE:
                values.humidity = input[i] / 2;
                values.signed = input[i + 1];
                i += 2;
                break;
        }
    }
    output.telemetry.add({"ts": 5, "values": values});
    return output;
}
"""
    document = b'{"data": "AQDX/mX/", "fPort": 2, "deviceInfo": {}}'
    argument = {"payload": base64.b64encode(document).decode(), "metadata": {"name": "d"}}
    assert tbel_run.value(source, argument, contract="thingsboard") == {
        "deviceName": "d",
        "deviceType": None,
        "attributes": {"fPort": 2, "eui": None},
        "telemetry": [
            {"ts": 5,
             "values": {"temperature": 21.5, "humidity": 50, "signed": -1, "rssi": -50}}
        ],
    }  # fmt: skip


def test_the_payload_is_signed(tbel_run: Any) -> None:
    """A binary payload is a list of Java's bytes."""
    argument = {"payload": "/wE=", "metadata": {}}
    source = "return {b: payload, n: payload.size()};"
    assert tbel_run.value(source, argument, contract="thingsboard") == {"b": [-1, 1], "n": 2}


def test_a_choice_within_a_map(tbel_run: Any) -> None:
    """In a map, an unbracketed choice is a key and its value, as MVEL's parser has it."""
    argument = {"payload": "", "metadata": {}}
    source = 'var x = 1; return {a: x == 1 ? "yes" : "no", b: (x == 1 ? "yes" : "no")};'
    value = tbel_run.value(source, argument, contract="thingsboard")
    assert value == {"yes": "no", "b": "yes"}


def test_a_block_has_its_own_variables(tbel_run: Any) -> None:
    """A variable of a block does not hide the outer one from what stands before it."""
    source = (
        "var data = {n: 1};\nreturn f();\n"
        "function f() { var n = data.n; if (n == 1) { var data = {}; data.x = 1; } return {n: n}; }"
    )
    value = tbel_run.value(source, {"payload": "", "metadata": {}}, contract="thingsboard")
    assert value == {"n": 1}


def test_errors_have_their_line(tbel_run: Any) -> None:
    """What fails is said with the line of the user's text, also inside of TBEL's functions."""
    argument = {"payload": "", "metadata": {}}
    for source in (
        "var a = [];\nreturn a.get(3);",
        "var a = 1;\nraiseError('no');",
        "\nreturn parseBytesToInt([1], 0, 2);",
        "\nforeach (x : metadata.none) {}\nreturn {};",
    ):
        error = tbel_run.error(source, argument, contract="thingsboard")
        assert (error["code"], error["line"]) == ("script_threw", 2), error


def test_an_encoder(tbel_run: Any) -> None:
    """A downlink converter gets the message, its metadata and type."""
    source = (
        "var result = {contentType: 'TEXT', data: bytesToBase64([msg.n, -1]), "
        "metadata: {eui: metadata.cs_eui, type: msgType}}; return result;"
    )
    argument = {"msg": {"n": 1}, "metadata": {"cs_eui": "e"}, "msgType": "T"}
    value = tbel_run.value(source, argument, operation="encode_downlink", contract="thingsboard")
    assert value == {"contentType": "TEXT", "data": "Af8=", "metadata": {"eui": "e", "type": "T"}}


def test_nothing_is_left_for_the_next_call(tbel_run: Any) -> None:
    """What a call changes, TBEL's own functions included, no later call sees."""
    source = "var had = typeof toFixed; toFixed = 5; Array.prototype.$add = 1; return {had: had};"
    argument = {"payload": "", "metadata": {}}
    outcomes = tbel_run(source, *[argument] * 3, contract="thingsboard")
    assert outcomes == [{"value": {"had": "function"}}] * 3
