"""Node's Buffer, as ChirpStack offers it to codecs. Expected values are those of Node 20."""

from __future__ import annotations

from typing import Any

import pytest


def run(javascript_run: Any, expression: str) -> Any:
    source = (
        "function decodeUplink(i) { const b = Buffer.from(i.bytes); "
        f"return {{data: {{v: {expression}}}}} }}"
    )
    return javascript_run.value(source, {"bytes": "AQIDBAX//v0=", "fPort": 1})["data"]["v"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("b.readUInt8(5)", 255),
        ("b.readInt8(5)", -1),
        ("b.readUInt16BE(0)", 258),
        ("b.readUint16LE(0)", 513),
        ("b.readInt16BE(6)", -259),
        ("b.readInt16LE(6)", -514),
        ("b.readUInt32BE(4)", 100663037),
        ("b.readUInt32LE(4)", 4261347077),
        ("b.readInt32LE(4)", -33620219),
        ("b.readUIntBE(0, 3)", 66051),
        ("b.readUIntLE(0, 6)", 280397007225345),
        ("b.readIntBE(5, 3)", -259),
        ("b.readIntLE(5, 3)", -131329),
        ("Buffer.from([0x41, 0xac, 0, 0]).readFloatBE()", 21.5),
        ("Buffer.from([0, 0, 0, 0, 0, 0, 0xf0, 0x3f]).readDoubleLE(0)", 1),
        ("String(b.readBigUInt64BE(0))", "72623859806764797"),
        ("String(b.readBigInt64LE(0))", "-144397741022051839"),
        ("b.toString('hex')", "0102030405fffefd"),
        ("b.toString('hex', 4, 6)", "05ff"),
        ("b.toString('base64')", "AQIDBAX//v0="),
        ("b.toString('base64url')", "AQIDBAX__v0"),
        ("Buffer.from('ü€😀').toString()", "ü€😀"),
        ("Buffer.from('ü€😀').length", 9),
        ("Buffer.from([0xff, 65]).toString('utf8')", "�A"),
        ("Buffer.from([0xc1, 65]).toString('ascii')", "AA"),
        ("Buffer.from([0xc1, 65]).toString('latin1')", "ÁA"),
        ("Buffer.from('0aFFzz', 'hex').toString('hex')", "0aff"),
        ("Buffer.from('AQI', 'base64').toString('hex')", "0102"),
        ("Buffer.from('hi', 'utf16le').toString('hex')", "68006900"),
        ("Buffer.from(new Uint8Array([1, 2]).buffer, 1).toString('hex')", "02"),
        ("Buffer.alloc(3).toString('hex')", "000000"),
        ("Buffer.alloc(3, 7).toString('hex')", "070707"),
        ("Buffer.alloc(5, 'ab').toString()", "ababa"),
        ("Buffer.concat([b, Buffer.from('x')]).length", 9),
        ("Buffer.concat([b, b], 10).toString('hex')", "0102030405fffefd0102"),
        ("new Buffer('0a', 'hex')[0]", 10),
        ("Buffer(2).length", 2),
        ("Buffer.isBuffer(b.subarray(1)) && !Buffer.isBuffer(i.bytes)", True),
        ("b.slice(1, 3).toString('hex')", "0203"),
        ("b.slice(-2).toString('hex')", "fefd"),
        ("(() => { b.slice(0, 1)[0] = 9; return b[0] })()", 9),
        ("b.swap16().toString('hex')", "02010403ff05fdfe"),
        ("b.indexOf(3)", 2),
        ("b.indexOf(Buffer.from([4, 5]))", 3),
        ("b.includes('z')", False),
        ("b.equals(Buffer.from(b))", True),
        ("Buffer.compare(Buffer.from('a'), Buffer.from('b'))", -1),
        ("(() => { const t = Buffer.alloc(3); b.copy(t, 1, 0, 9); return t.toString('hex') })()",
         "000102"),
        ("((t) => [t.writeUInt16BE(513), t.writeInt8(-2, 2), t.toString('hex')])(Buffer.alloc(4))",
         [2, 3, "0201fe00"]),
        ("((t) => [t.writeIntLE(-2, 0, 3), t.writeFloatBE(21.5, 4), t])(Buffer.alloc(8))[2].join()",
         "254,255,255,0,65,172,0,0"),
        ("(() => { const t = Buffer.alloc(4); t.write('abc', 1); return t.toString('hex') })()",
         "00616263"),
        ("b", {"type": "Buffer", "data": [1, 2, 3, 4, 5, 255, 254, 253]}),
        ("Array.from(b).map((x) => x + 1)[0]", 2),
        ("b.map((x) => x + 1).readUInt8(5)", 0),
        ("require('buffer').Buffer === Buffer", True),
        ("require('node:buffer').Buffer.from([7])[0]", 7),
    ],
)  # fmt: skip
def test_as_in_node(javascript_run: Any, expression: str, value: Any) -> None:
    """Each method gives what Node's gives."""
    assert run(javascript_run, expression) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("b.readUInt16BE(7)", 'The value of "offset" is out of range'),
        ("b.readUInt8(1.5)", 'The value of "offset" is out of range'),
        ("Buffer.alloc(1).readInt32LE()", "outside buffer bounds"),
        ("b.writeUInt8(256, 0)", 'The value of "value" is out of range'),
        ("b.readUIntBE(0, 7)", 'The value of "byteLength" is out of range'),
        ("b.toString('rot13')", "Unknown encoding: rot13"),
        ("Buffer.from(5)", "The first argument must be"),
        ("require('buffer') && require('fs')", "there is no module fs"),
    ],
)
def test_as_in_node_it_refuses(javascript_run: Any, expression: str, message: str) -> None:
    """What Node refuses is refused in its words, at the script's own line."""
    source = f"function decodeUplink(i) {{ const b = Buffer.from(i.bytes);\nreturn {expression} }}"
    error = javascript_run.error(source, {"bytes": "AQIDBAX//v0=", "fPort": 1})
    assert message in error["message"]
    assert error["line"] == 2


def test_bytes_of_an_encoder_may_be_a_buffer(javascript_run: Any) -> None:
    """An encoder may return its Buffer as it is."""
    source = "function encodeDownlink(i) { return {bytes: Buffer.from([1, 255])} }"
    value = javascript_run.value(source, {"data": {}, "fPort": 1}, operation="encode_downlink")
    assert value["bytes"] == [1, 255]


def test_only_for_those_who_name_it(javascript_run: Any) -> None:
    """A script that does not name Buffer finds neither it nor `require`."""
    source = (
        "function decodeUplink(i) { const a = new ArrayBuffer(2); const g = globalThis; "
        "return {data: {a: a.byteLength, b: typeof g['Buf' + 'fer'], r: typeof require}} }"
    )
    value = javascript_run.value(source)["data"]
    assert value == {"a": 2, "b": "undefined", "r": "undefined"}


def test_what_a_call_does_to_it_is_undone(javascript_run: Any) -> None:
    """A call that alters Buffer, or deletes it, leaves nothing to the next."""
    source = (
        "function decodeUplink(i) { const had = [typeof Buffer, typeof Buffer.prototype.n]; "
        "Buffer.prototype.n = 1; delete globalThis.Buffer; return {data: {had: had}} }"
    )
    outcomes = javascript_run(source, *[{"bytes": "", "fPort": 1}] * 3)
    assert [outcome["value"]["data"]["had"] for outcome in outcomes] == [
        ["function", "undefined"]
    ] * 3
