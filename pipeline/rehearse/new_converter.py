"""A new converter to begin with: what `funicular new converter` writes.

In: `<vendor>/<model>` and a language. Out: the converter's files by path within a rules folder:
YAML with examples, which pass, and the script that they are of.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pipeline.errors import UsageError
from pipeline.rulebook.folder import CONVERTER_NAME, CONVERTER_RULE

Language = Literal["js", "lua", "layout"]

_HEAD = """\
# Converts what devices of the model {model} send and are sent. The examples are its tests:
#   funicular test --only {name}
#   funicular decode {name} 00d721 --port 1
#   funicular encode {name} '{{"interval": 600}}'
# Which devices it has: an integration's `converter: {name}`; by itself it has those that
# The Things Stack calls brand `{vendor}`, model `{model}`. Others by what is said of them:
# devices: [{{brand: {vendor}, model: "{model}*"}}, {{profile: "{vendor} {model}"}}]
"""
_UPLINKS = """\
  examples:
    - description: 21.5 °C, battery 3.3 V
      input: {fPort: 1, bytes: [0x00, 0xD7, 0x21]}
      output: {data: {temperature: 21.5, battery: 3.3}}
    - description: below zero
      input: {fPort: 1, bytes: [0xFF, 0xCE, 0x1E]}
      output: {data: {temperature: -5, battery: 3}}
"""
_SHORT = """\
    - description: what is too short is refused, and kept as a dead letter
      input: {fPort: 1, bytes: [0x00]}
      output: {errors: ["3 bytes are needed, here are 1"]}
"""
_DOWNLINKS = """\
  examples:
    - description: send every 10 minutes
      input: {data: {interval: 600}}
      output: {bytes: [0x02, 0x58], fPort: 10}
"""
_BACK = """\
  examples:
    - description: what a downlink's bytes say, for those who look at it
      input: {fPort: 10, bytes: [0x02, 0x58]}
      output: {data: {interval: 600}}
"""
_LAYOUT = """\
codec: layout
uplink:
  - f_port: 1
    fields:
      - {name: temperature, type: int16, scale: 0.1}
      - {name: battery, type: uint8, scale: 0.1}
downlink:
  - f_port: 10
    fields: [{name: interval, type: uint16}]
"""
_JAVASCRIPT = """\
// Bytes → telemetry. `input` has bytes, fPort, recvTime (a Date) and variables (the integration's
// metadata).
function decodeUplink(input) {
  var bytes = input.bytes;
  if (bytes.length < 3) {
    return {errors: ['3 bytes are needed, here are ' + bytes.length]};
  }
  var temperature = bytes[0] << 8 | bytes[1];
  if (temperature > 0x7fff) temperature -= 0x10000;
  return {
    data: {temperature: temperature / 10, battery: bytes[2] / 10},
    warnings: bytes[2] < 25 ? ['the battery is low'] : []
  };
}

// What a rule or an application asks for → bytes. `input` has data, fPort and variables.
function encodeDownlink(input) {
  var interval = input.data.interval;
  if (!(interval >= 60 && interval <= 0xffff)) {
    return {errors: ['interval must be from 60 to 65535 seconds']};
  }
  return {bytes: [interval >> 8, interval & 0xff], fPort: 10};
}

// The bytes of a downlink → what they say.
function decodeDownlink(input) {
  return {data: {interval: input.bytes[0] << 8 | input.bytes[1]}};
}
"""
_LUA = """\
-- Bytes → telemetry. `input` has bytes (a string), f_port, recv_time and variables (the
-- integration's metadata).
function decode_uplink(input)
  if #input.bytes < 3 then
    return {errors = {'3 bytes are needed, here are ' .. #input.bytes}}
  end
  local temperature, battery = string.unpack('>i2B', input.bytes)
  return {
    data = {temperature = temperature / 10, battery = battery / 10},
    warnings = battery < 25 and {'the battery is low'} or {},
  }
end

-- What a rule or an application asks for → bytes. `input` has data, f_port and variables.
function encode_downlink(input)
  local interval = input.data.interval
  if type(interval) ~= 'number' or interval < 60 or interval > 0xffff then
    return {errors = {'interval must be from 60 to 65535 seconds'}}
  end
  return {bytes = string.pack('>I2', interval), f_port = 10}
end

-- The bytes of a downlink → what they say.
function decode_downlink(input)
  return {data = {interval = string.unpack('>I2', input.bytes)}}
end
"""


def new_converter(name: str, language: Language) -> dict[str, str]:
    """Return the files' texts by path. UsageError: the name cannot be one."""
    vendor, slash, model = name.partition("/")
    if not slash or not all(map(CONVERTER_NAME.fullmatch, (vendor, model))):
        raise UsageError(
            f"`{name}` is no name of a converter: write VENDOR/MODEL, as acme/thermostat;"
            f" {CONVERTER_RULE}",
            code="name",
        )
    head = _HEAD.format(name=name, vendor=vendor, model=model)
    folder = f"converters/{vendor}"
    if language == "layout":
        parts = [head, _LAYOUT, "uplinkDecoder:\n", _UPLINKS, "downlinkEncoder:\n", _DOWNLINKS]
        return {f"{folder}/{model}.yaml": "".join(parts)}
    script = f"  fileName: {model}.{language}\n"
    parts = [
        *(head, "uplinkDecoder:\n", script, _UPLINKS, _SHORT),
        *("downlinkEncoder:\n", script, _DOWNLINKS),
        *("downlinkDecoder:\n", script, _BACK),
    ]
    return {
        f"{folder}/{model}.yaml": "".join(parts),
        f"{folder}/{model}.{language}": _JAVASCRIPT if language == "js" else _LUA,
    }


def write_converter(rules: Path, files: Mapping[str, str]) -> list[Path]:
    """Write the files, and return where they are. UsageError: one is there already, or there is no
    such folder; then none is written.
    """
    if not rules.is_dir():
        raise UsageError(
            f"there is no folder {rules}: name the rules folder by --rules", code="no_folder"
        )
    paths = [rules / file for file in files]
    for path in paths:
        if path.exists():
            raise UsageError(
                f"{path} is there already, and is left as it is: choose another name, or take it"
                " away first",
                code="exists",
            )
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    return paths
