"""What a codec of the field looks like in each contract: what `test_converter_contracts` runs."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import orjson

from pipeline.ports import Contract

PAYLOAD = bytes([0x00, 0xD7, 0x28])  # 21.5 °C, 40 %
DATA = {"temperature": 21.5, "humidity": 40}
PROTO = (
    'syntax = "proto3"; message Up { sint32 tenths = 1; uint32 humidity = 2; }'
    " message Down { uint32 target = 1; }"
)


@dataclass(frozen=True)
class Case:
    """A codec in one contract: `decode` and `encode` are scripts, or a codec's configuration.

    `payload` is what it decodes to `telemetry`; `sent` what it makes of `{"target": 21}`.
    """

    name: str
    language: Any
    decode: str
    encode: str = ""
    contract: Contract = "lorawan"
    payload: bytes = PAYLOAD
    telemetry: Any = field(default_factory=lambda: DATA)
    sent: bytes = b"\x15"


def js(body: str) -> str:
    return (
        "function values(b) { var t = b[0] << 8 | b[1]; if (t > 32767) t -= 65536;"
        " return {temperature: t / 10, humidity: b[2]} }\n" + body
    )


CASES = (
    Case(
        "the_things_stack",
        "javascript",
        js("function decodeUplink(i) { return {data: values(i.bytes), warnings: []} }"),
        "function encodeDownlink(i) { return {bytes: [i.data.target], fPort: i.fPort} }",
    ),
    Case(
        "the_things_stack_with_normalizer",
        "javascript",
        js(
            "function decodeUplink(i) { return {data: values(i.bytes)} }\n"
            "function normalizeUplink(i) { return {data: {air: {temperature: i.data.t}}} }"
        ),
    ),
    Case(
        "ttn_v2",
        "javascript",
        js(
            "function Decoder(bytes, port) { return {b: bytes, port: port} }\n"
            "function Converter(decoded, port) { return values(decoded.b) }\n"
            "function Validator(converted, port) { return converted.humidity <= 100 }"
        ),
        "function Encoder(object, port) { return [object.target] }",
    ),
    Case(
        "chirpstack_v3",
        "javascript",
        js("function Decode(fPort, bytes, variables) { return values(bytes) }"),
        "function Encode(fPort, obj, variables) { return [obj.target] }",
    ),
    Case(
        "chirpstack_v4",
        "javascript",
        "const {Buffer: B} = require('buffer');\n"
        "function decodeUplink(i) { const b = Buffer.from(i.bytes);"
        " return {data: {temperature: b.readInt16BE(0) / 10, humidity: B.from(i.bytes)[2]}} }",
        "function encodeDownlink(i) { return {bytes: Buffer.from([i.data.target])} }",
    ),
    Case(
        "exports",
        "javascript",
        js(
            "exports.decodeUplink = (i) => ({data: values(i.bytes)});\n"
            "exports.encodeDownlink = (i) => ({bytes: [i.data.target]});"
        ),
        "module.exports = {encodeDownlink: (i) => ({bytes: [i.data.target]})}",
    ),
    Case(
        "thingsboard_javascript",
        "javascript",
        js(
            "function Decoder(payload, metadata) { return {deviceName: metadata.name,"
            " deviceType: 't', telemetry: values(payload)} }"
        ),
        "function Encoder(msg, metadata, msgType, integrationMetadata) {"
        " return {contentType: 'BINARY', data: btoa(String.fromCharCode(msg.target))} }",
        contract="thingsboard",
    ),
    Case(
        "thingsboard_body",
        "javascript",
        "var t = payload[0] << 8 | payload[1];\n"
        "return {deviceName: metadata.name, deviceType: 't',"
        " telemetry: {temperature: t / 10, humidity: payload[2]}};",
        "return {contentType: 'BINARY', data: btoa(String.fromCharCode(msg.target))};",
        contract="thingsboard",
    ),
    Case(
        "thingsboard_tbel",
        "tbel",
        "var t = parseBytesToInt(payload, 0, 2);\n"
        "var values = {temperature: t / 10.0, humidity: payload[2]};\n"
        "foreach (key : values.keySet()) { if (values.get(key) == null) { values.remove(key); } }\n"
        "return {deviceName: metadata.name, deviceType: 't', telemetry: values};",
        "return {contentType: 'BINARY', data: bytesToBase64([msg.target])};",
        contract="thingsboard",
    ),
    Case(
        "lua",
        "lua",
        "function decode_uplink(i) local t, h = string.unpack('>i2B', i.bytes)\n"
        "return {data = {temperature = t / 10, humidity = h & 0xff}} end",
        "function encode_downlink(i) return {bytes = string.char(i.data.target)} end",
    ),
    Case(
        "thingsboard_lua",
        "lua",
        "function decode_uplink(i) local t, h = string.unpack('>i2B', i.payload)\n"
        "return {deviceName = i.metadata.name, deviceType = 't',"
        " telemetry = {temperature = t / 10, humidity = h}} end",
        "function encode_downlink(i)"
        " return {contentType = 'BINARY', data = i.msg.target == 21 and 'FQ==' or ''} end",
        contract="thingsboard",
    ),
    Case(
        "layout",
        "codec",
        orjson.dumps(
            {
                "codec": "layout",
                "uplink": [
                    {
                        "fields": [
                            {"name": "temperature", "type": "int16", "scale": 0.1},
                            {"name": "humidity", "type": "uint8"},
                        ]
                    }
                ],
                "downlink": [{"fields": [{"name": "target", "type": "uint8"}]}],
            }
        ).decode(),
        "same",
    ),
    Case(
        "cayenne_lpp",
        "codec",
        '{"codec": "cayenne_lpp"}',
        payload=bytes.fromhex("016700d7 026850"),
        telemetry={"temperature_1": 21.5, "relative_humidity_2": 40},
    ),
    Case(
        "protobuf",
        "codec",
        orjson.dumps(
            {
                "codec": "protobuf",
                "schema": "x.proto",
                "files": {"x.proto": b64encode(PROTO.encode()).decode()},
                "uplink": [{"message": "Up"}],
                "downlink": [{"message": "Down"}],
            }
        ).decode(),
        "same",
        payload=bytes.fromhex("08ae03 1028"),
        telemetry={"tenths": 215, "humidity": 40},
        sent=b"\x08\x15",
    ),
    Case(
        "json_mapping",
        "codec",
        orjson.dumps(
            {
                "codec": "json_mapping",
                "uplink": {"device": "${payload.d}", "type": "t", "telemetry": "${payload.v}"},
                "downlink": {"set": "${fields.target}"},
            }
        ).decode(),
        "same",
        contract="thingsboard",
        payload=orjson.dumps({"d": "a", "v": DATA}),
        sent=b'{"set":21}',
    ),
    Case(
        "senml",
        "codec",
        '{"codec": "senml"}',
        contract="thingsboard",
        payload=b'[{"bn":"a","n":"temperature","v":21.5},{"n":"humidity","v":40}]',
    ),
)
