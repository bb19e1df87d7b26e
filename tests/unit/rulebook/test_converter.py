from __future__ import annotations

from typing import Any

import pytest

from pipeline.ports import Script

DECODE = "function decodeUplink(input) {}\n"
BOTH = DECODE + "function encodeDownlink(input) {}\n"
YAML = """\
contract: thingsboard
uplinkDecoder:
  fileName: both.js
  examples:
    - description: one
      input: {fPort: 1, bytes: [1, 0xFF]}
      output: {data: {t: 1}}
      normalizedOutput: {data: [{air: {temperature: 1}}]}
    - input: {bytes: []}
      output: {errors: [empty]}
downlinkEncoder:
  fileName: ../shared/encode.lua
  examples:
    - input: {msg: {on: true}}
      output: {bytes: [1], fPort: 10}
downlinkDecoder: {fileName: both.js}
"""


def test_scripts_and_examples_are_read(rules: Any) -> None:
    """The layout of lorawan-devices gives a converter with scripts, contract and examples."""
    rules.write("converters/acme/model-1.yaml", YAML)
    rules.write("converters/acme/both.js", BOTH + "function decodeDownlink(input) {}\n")
    rules.write("converters/shared/encode.lua", "function encode_downlink(input) end\n")
    made = rules.load().converters["acme/model-1"]

    assert (made.name, made.file) == ("acme/model-1", "converters/acme/model-1.yaml")
    assert made.contract == "thingsboard"
    assert made.decoder == made.downlink_decoder
    assert made.decoder == Script(
        path="converters/acme/both.js",
        language="javascript",
        source=BOTH + "function decodeDownlink(input) {}\n",
    )
    assert (made.encoder.path, made.encoder.language) == ("converters/shared/encode.lua", "lua")
    first, second, third = made.examples
    assert (first.routine, first.description, first.line) == ("decode_uplink", "one", 5)
    assert first.input == {"fPort": 1, "bytes": [1, 255]}
    assert first.output == {"data": {"t": 1}}
    assert (second.description, second.line) == ("", 9)
    assert (third.routine, third.input) == ("encode_downlink", {"msg": {"on": True}})


def test_a_converter_needs_no_contract_and_no_examples(rules: Any) -> None:
    """One script is enough."""
    rules.write("converters/acme/a.yaml", "uplinkDecoder: {fileName: a.js}\n")
    rules.write("converters/acme/a.js", DECODE)
    made = rules.load().converters["acme/a"]

    assert (made.contract, made.encoder, made.examples) == (None, None, ())


def test_payloads_may_be_text_or_json(rules: Any) -> None:
    """For generic payloads an example's `text` or `json` becomes bytes; a list may come out."""
    rules.write(
        "converters/acme/a.yaml",
        "contract: thingsboard\nuplinkDecoder:\n  fileName: a.js\n  examples:\n"
        "    - {input: {text: 'é'}, output: {deviceName: a}}\n"
        "    - {input: {json: {b: [1]}, metadata: {}}, output: [{deviceName: a}]}\n",
    )
    rules.write("converters/acme/a.js", "function Decoder(payload, metadata) {}\n")
    first, second = rules.load().converters["acme/a"].examples

    assert first.input == {"bytes": [0xC3, 0xA9]}
    assert bytes(second.input["bytes"]) == b'{"b":[1]}'
    assert second.output == [{"deviceName": "a"}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{}",
            (
                "1:1: has no script (write `uplinkDecoder`, `downlinkEncoder`, `downlinkDecoder`,"
                " or `codec`)"
            ),
        ),
        (
            "uplinkDecode: {fileName: a.js}",
            "1:1: unknown key `uplinkDecode` (did you mean `uplinkDecoder`?)",
        ),
        (
            "uplinkDecoder: {filename: a.js, fileName: a.js}",
            "1:17: unknown key `filename` (did you mean `fileName`?)",
        ),
        ("uplinkDecoder: {}", "1:1: `fileName` is missing (the script's file, `.js`, `.lua` or"),
        ("uplinkDecoder: {fileName: b.js}", "1:27: there is no script converters/acme/b.js"),
        (
            "uplinkDecoder: {fileName: aaa.js}",
            "1:27: there is no script converters/acme/aaa.js (did you mean `a.js`?)",
        ),
        ("uplinkDecoder: {fileName: a.py}", "1:27: `a.py` is no script (name a `.js`, `.lua` or"),
        (
            "uplinkDecoder: {fileName: ../../../etc/a.js}",
            "1:27: `../../../etc/a.js` is outside of converters/ (move it there)",
        ),
        ("uplinkDecoder: {fileName: /etc/a.js}", "1:27: `/etc/a.js` is outside of converters/"),
        (
            "contract: thingsbord\nuplinkDecoder: {fileName: a.js}",
            "1:11: must be one of `lorawan`, `thingsboard` (did you mean `thingsboard`?)",
        ),
        (
            "uplinkDecoder:\n  fileName: a.js\n  examples:\n    - {input: {bytes: [1]}}",
            "4:7: `output` is missing (what must come out of the script)",
        ),
        (
            "uplinkDecoder:\n  fileName: a.js\n  examples:\n    - {input: {}, output: {}}",
            "4:8: `bytes` is missing (write the payload as a list of bytes: `bytes: [1, 2]`)",
        ),
        (
            (
                "contract: lorawan\nuplinkDecoder:\n  fileName: a.js\n  examples:\n"
                "    - {input: {text: x}, output: {}}"
            ),
            "5:8: `bytes` is missing",
        ),
        (
            (
                "uplinkDecoder:\n  fileName: a.js\n  examples:\n"
                "    - {input: {bytes: [1, 256]}, output: {}}"
            ),
            "4:27: a byte is a whole number from 0 to 255",
        ),
        (
            (
                "uplinkDecoder:\n  fileName: a.js\n  examples:\n"
                "    - {input: {bytes: AQI=}, output: {}}"
            ),
            "4:23: must be a list of bytes (like `[1, 2]`)",
        ),
        (
            (
                "downlinkEncoder:\n  fileName: a.js\n  examples:\n"
                "    - {input: {on: true}, output: {bytes: [1]}}"
            ),
            "4:8: `data` is missing (write what the rule sends under `data:`)",
        ),
        (
            (
                "downlinkEncoder:\n  fileName: a.js\n  examples:\n"
                "    - {input: {data: {}}, output: {bytes: [-1]}}"
            ),
            "4:44: a byte is a whole number from 0 to 255",
        ),
    ],
)
def test_each_fault_has_its_place_and_words(rules: Any, text: str, expected: str) -> None:
    """One wrong thing in a converter gives one fault where it stands."""
    rules.write("converters/acme/c.yaml", text + "\n")
    rules.write("converters/acme/a.js", BOTH)
    [fault] = rules.faults()

    assert fault.startswith(f"converters/acme/c.yaml:{expected}")


def test_a_script_that_does_not_compile(rules: Any) -> None:
    """The script's own line and column are told, once, however many use it."""
    rules.write("converters/acme/a.yaml", "uplinkDecoder: {fileName: a.js}\n")
    rules.write("converters/acme/b.yaml", "downlinkEncoder: {fileName: a.js}\n")
    rules.write("converters/acme/a.js", "// a\nlet SYNTAX\n")

    assert rules.faults() == ["converters/acme/a.js:2:5: unexpected word"]


def test_a_script_without_the_function(rules: Any) -> None:
    """The converter that needs the function is told, with the nearest name that there is."""
    rules.write(
        "converters/acme/a.yaml",
        "uplinkDecoder: {fileName: a.js}\ndownlinkEncoder: {fileName: a.js}\n",
    )
    rules.write("converters/acme/a.js", "function decodeUpLink(input) {}\n")

    assert rules.faults() == [
        (
            "converters/acme/a.yaml:1:27: converters/acme/a.js has no function `decodeUplink` or"
            " `Decoder` or `Decode`, which decodes uplinks (did you mean `decodeUpLink`?)"
        ),
        (
            "converters/acme/a.yaml:2:29: converters/acme/a.js has no function `encodeDownlink` or"
            " `Encoder` or `Encode`, which encodes downlinks (did you mean `decodeUpLink`?)"
        ),
    ]


def test_a_script_that_is_not_text(rules: Any) -> None:
    """A script in another encoding is told with its line."""
    rules.write("converters/acme/a.yaml", "uplinkDecoder: {fileName: a.js}\n")
    rules.write("converters/acme/a.js", b"// a\n// caf\xe9\n")

    assert rules.faults() == ["converters/acme/a.js:2:1: not UTF-8 (save the file as UTF-8)"]


def test_without_a_check_scripts_are_taken_as_they_are(rules: Any) -> None:
    """A catalogue without engines checks names only."""
    rules.with_catalogue(check_script=None)
    rules.write("converters/acme/a.yaml", "uplinkDecoder: {fileName: a.js}\n")
    rules.write("converters/acme/a.js", "SYNTAX")

    assert rules.load().converters["acme/a"].decoder.source == "SYNTAX"


def test_tbel(rules: Any) -> None:
    """A converter in ThingsBoard's language has ThingsBoard's contract."""
    rules.write("converters/acme/a.yaml", "uplinkDecoder: {fileName: a.tbel}\n")
    rules.write("converters/acme/a.tbel", "return {deviceName: 'd'};")
    rules.with_catalogue(check_script=None)
    converter = rules.load().converters["acme/a"]
    assert converter.contract == "thingsboard"
    assert converter.decoder.language == "tbel"
