"""Public libraries of codecs, run from a folder: each layout, its oddities, and its gaps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.metrics import Registry
from pipeline.rehearse.library import VendorReport, is_library, run_library
from pipeline.script import ScriptLimits, ScriptProcesses

SCRIPT = """
function decodeUplink(i) {
  if (i.bytes.length < 2) return {errors: ['too short', 'sorry']};
  var data = {t: i.bytes[0] / 10 + 0.1 - 0.1, mode: i.bytes[1] ? 'On' : 'NO', gone: undefined};
  return {data: data, warnings: i.fPort === 2 ? ['odd port'] : []};
}
function normalizeUplink(i) { return {data: {air: {temperature: i.data.t}}} }
function encodeDownlink(i) { return {bytes: [i.data.on ? 1 : 0], fPort: i.fPort} }
"""
YAML = """
uplinkDecoder:
  fileName: x.js
  examples:
    - description: warm
      input: {fPort: 1, bytes: [0xD7, 1]}
      output: {data: {t: 21.5, mode: On, gone: null}}
      normalizedOutput: {data: [{air: {temperature: 21.5}}]}
    - description: odd
      input: {fPort: 2, bytes: [0xD7, 0]}
      output: {data: {t: 21.5, mode: NO}, warnings: [odd port]}
    - description: short
      input: {fPort: 1, bytes: [1]}
      output: {errors: [too short, sorry]}
downlinkEncoder:
  fileName: x.js
  examples:
    - description: on
      input: {fPort: 7, data: {on: true}}
      output: {bytes: [1], fPort: 7}
"""


@pytest.fixture(scope="module")
def scripts() -> Iterator[ScriptProcesses]:
    scripts = ScriptProcesses(ScriptLimits(call_ms=1000), Registry())
    yield scripts
    scripts.close()


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def texts(report: VendorReport) -> list[str]:
    return [str(difference) for result in report.results for difference in result.differences]


def test_lorawan_devices(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """Every routine of a codec is run, with YAML 1.2, undefined as null, and errors expected."""
    library = write(
        tmp_path,
        {"vendor/acme/x.js": SCRIPT, "vendor/acme/x.yaml": YAML, "vendor/acme/index.yaml": "a: 1"},
    )
    (report,) = run_library(library / "vendor", scripts)
    assert (report.vendor, report.passed, report.failed) == ("acme", 4, 0), texts(report)
    first = report.results[0]
    assert (first.name, first.file, first.line) == (
        "acme/x: decode uplink: warm",
        "acme/x.yaml",
        5,
    )
    (alone,) = run_library(library / "vendor" / "acme", scripts)
    assert (alone.vendor, alone.passed) == ("acme", 4)
    assert is_library(library)


def test_what_differs_is_said(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """A wrong value, a missing error, a wrong normalization and an unexpected key each fail."""
    wrong = (
        YAML.replace("t: 21.5, mode: On", "t: 21.6, mode: On")
        .replace("temperature: 21.5", "temperature: 20")
        .replace("[too short, sorry]", "[other]")
        .replace("t: 21.5, mode: NO", "t: 21.5")
    )
    library = write(tmp_path, {"acme/x.js": SCRIPT, "acme/x.yaml": wrong})
    (report,) = run_library(library, scripts)
    assert (report.passed, report.failed) == (1, 3)
    assert texts(report) == [
        "data.t: expected 21.6, got 21.5",
        "normalizedOutput.data[0].air.temperature: expected 20, got 21.5",
        'data.mode: expected nothing, got "NO"',
        "errors: expected other, got too short, sorry",
    ]


def test_the_port_of_older_encoders(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """Encoder returns bytes alone: the port that an example expects is the one it asks for."""
    files = {
        "acme/x.js": "function Encoder(o, port) { return [o.n] }",
        "acme/x.yaml": "downlinkEncoder: {fileName: x.js, examples: "
        "[{input: {fPort: 5, data: {n: 1}}, output: {bytes: [1], fPort: 5}}, "
        "{input: {fPort: 5, data: {n: 1}}, output: {bytes: [1], fPort: 6}}]}",
    }
    (report,) = run_library(write(tmp_path, files), scripts)
    assert (report.passed, report.failed) == (1, 1)


def test_chirpstack(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """Test files may be JSON or JavaScript; a codec may use Buffer; orphans are listed."""
    codec = (
        "function decodeUplink(i) { const b = Buffer.from(i.bytes); "
        "return {data: {t: b.readInt16BE(0), v: i.variables.v}} }\n"
        "function encodeDownlink(i) { return {bytes: Buffer.from([i.data.n]), fPort: 3} }"
    )
    decoding = (
        "[ // a comment\n {name: 'one', input: {fPort: 1, bytes: [0xff, 0xfe], "
        "variables: {v: 'a'}}, expected: {data: {t: -2, v: 'a'}}},\n]"
    )
    encoding = [
        {"name": "two", "input": {"data": {"n": 9}}, "expected": {"bytes": [9], "fPort": 3}}
    ]
    files = {
        "vendors/acme/codecs/x.js": codec,
        "vendors/acme/codecs/test_decode_x.json": decoding,
        "vendors/acme/codecs/test_encode_x.json": json.dumps(encoding),
        "vendors/acme/codecs/test_decode_gone.json": "[]",
        "vendors/acme/codecs/test_decode_y.json": "[1, ",
        "vendors/acme/codecs/y.js": codec,
    }
    library = write(tmp_path, files)
    assert is_library(library)
    (report,) = run_library(library, scripts)
    assert (report.vendor, report.passed, report.failed) == ("acme", 2, 0), texts(report)
    reasons = {Path(each.file).name: each.reason for each in report.unrunnable}
    assert reasons["test_decode_gone.json"] == "there is no gone.js beside it"
    assert "neither JSON nor JavaScript" in reasons["test_decode_y.json"]


def test_thingsboard(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """Converters are bodies; each payload has its result; both ways."""
    up = {
        "type": "UPLINK",
        "configuration": {
            "scriptLang": "JS",
            "decoder": "var d = decodeToJson(payload);\n"
            "return {deviceName: metadata.name + d.n, telemetry: [{ts: 1, values: d}]};",
        },
    }
    down = {
        "type": "DOWNLINK",
        "configuration": {
            "scriptLang": "JS",
            "encoder": "return {contentType: 'JSON', data: JSON.stringify(msg), metadata: {}};",
        },
    }
    folder = "VENDORS/Acme/X1/HTTP"
    files = {
        f"{folder}/uplink/converter.json": json.dumps(up),
        f"{folder}/uplink/metadata.json": '{"name": "a"}',
        f"{folder}/uplink/payload.json": '{"n": 1}',
        f"{folder}/uplink/result.json": json.dumps(
            {"deviceName": "a1", "telemetry": [{"ts": 1, "values": {"n": 1.0}}]}
        ),
        f"{folder}/uplink/payload_01.json": '{"n": 2}',
        f"{folder}/downlink/converter.json": json.dumps(down),
        f"{folder}/downlink/metadata.json": "{}",
        f"{folder}/downlink/payload.json": '{"n": 1}',
        f"{folder}/downlink/result.json": json.dumps(
            {"contentType": "JSON", "data": '{"n":1}', "metadata": {}}
        ),
    }
    (report,) = run_library(write(tmp_path, files), scripts)
    assert (report.vendor, report.passed, report.failed) == ("Acme", 2, 0), texts(report)
    assert [each.reason for each in report.unrunnable] == ["there is no result_01.json"]


def test_thingsboard_in_tbel(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """Converters in ThingsBoard's own language run too; metadata are texts."""
    converter = {
        "type": "UPLINK",
        "configuration": {
            "scriptLang": "TBEL",
            "decoder": None,
            "tbelDecoder": "var d = decodeToJson(payload); var t = [];\n"
            "foreach (b : base64ToBytes(d.data)) { t.add(b); }\n"
            "return {deviceName: metadata.n === '5' ? 'yes' : 'no', attributes: {t: t}};",
        },
    }
    folder = "VENDORS/Acme/X1/HTTP/uplink"
    files = {
        f"{folder}/converter.json": json.dumps(converter),
        f"{folder}/metadata.json": '{"n": 5}',
        f"{folder}/payload.json": '{"data": "AP8="}',
        f"{folder}/result.json": '{"yes": "no", "attributes": {"t": [0, -1]}}',
    }
    (report,) = run_library(write(tmp_path, files), scripts)
    assert (report.passed, report.failed) == (1, 0), texts(report)


def test_what_reads_the_clock(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """An example that fails only by a time, of a codec that reads the clock, cannot be run."""
    files = {
        "acme/x.js": "function decodeUplink(i) { return {data: {at: new Date().toISOString()}} }",
        "acme/x.yaml": "uplinkDecoder: {fileName: x.js, examples: [{input: {bytes: [1]}, "
        'output: {data: {at: "2020-01-01T00:00:00.000Z"}}}, {input: {bytes: [1]}, '
        "output: {data: {at: noon}}}]}",
    }
    (report,) = run_library(write(tmp_path, files), scripts)
    assert (report.passed, report.failed) == (0, 1)
    assert "reads the clock" in report.unrunnable[0].reason


@pytest.mark.parametrize(
    ("yaml", "reason"),
    [
        ("uplinkDecoder: {fileName: y.js, examples: []}", "there is no script `y.js`"),
        ("uplinkDecoder: {fileName: ../../x.js}", "is outside of the library"),
        ("uplinkDecoder: {fileName: x.py}", "is no script"),
        ("uplinkDecoder: {}", "has no `fileName`"),
        ("uplinkDecoder: {fileName: x.js, examples: [{}]}", "no `input`"),
        ("uplinkDecoder: {fileName: x.js, examples: 5}", "is no list"),
        (
            "uplinkDecoder: {fileName: x.js, examples: [{input: {bytes: [256]}, output: {}}]}",
            "0 to 255",
        ),
        ("uplinkDecoder: [", "line 1"),
    ],
)
def test_what_cannot_be_run(
    tmp_path: Path, scripts: ScriptProcesses, yaml: str, reason: str
) -> None:
    """What looks like an example and is none is listed with the reason, and stops nothing."""
    files = {"acme/x.js": SCRIPT, "acme/x.yaml": yaml, "other/x.js": SCRIPT, "other/x.yaml": YAML}
    acme, other = run_library(write(tmp_path, files), scripts)
    assert other.passed == 4
    assert not acme.results
    assert reason in acme.unrunnable[0].reason


def test_some_vendors(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """The run can be held to vendors by name."""
    files = {f"{name}/x.{kind}": text for name in "ab" for kind, text in
             (("js", SCRIPT), ("yaml", YAML))}  # fmt: skip
    reports = run_library(write(tmp_path, files), scripts, only=["b"])
    assert [report.vendor for report in reports] == ["b"]


def test_no_library(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """A folder without codecs, or none at all, is the user's mistake, and is said so."""
    assert not is_library(tmp_path)
    with pytest.raises(UsageError, match="no codec"):
        run_library(tmp_path, scripts)
    with pytest.raises(UsageError, match="no folder"):
        run_library(tmp_path / "gone", scripts)


def test_what_only_the_librarys_runner_knows(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """Scripts one folder deeper, names beside the contract's in an input, and keys in an output
    that no network server hands on, are as the library's own runner has them.
    """
    codec = (
        "uplinkDecoder: {fileName: payload/x.js}\n"
        "downlinkEncoder:\n  fileName: payload/x.js\n  examples:\n"
        "    - {description: d, input: {command: 7, data: {x: 1}},"
        " output: {bytes: [7, 1], port: 100}}\n"
    )
    source = "function encodeDownlink(i) { return {bytes: [i.command, i.data.x], port: 100} }"
    write(tmp_path, {"acme/x.yaml": codec, "acme/payload/x.js": source})
    (report,) = run_library(tmp_path, scripts)
    assert (report.vendor, report.passed, report.failed) == ("acme", 1, 0), report.results


def test_a_script_outside_of_the_library(tmp_path: Path, scripts: ScriptProcesses) -> None:
    """No file outside of the vendors' folders is read."""
    codec = "uplinkDecoder: {fileName: ../../x.js, examples: []}\n"
    write(tmp_path, {"x.js": SCRIPT, "vendor/acme/x.yaml": codec})
    (report,) = run_library(tmp_path / "vendor", scripts)
    assert [each.reason for each in report.unrunnable] == [
        "`uplinkDecoder`: `../../x.js` is outside of the library"
    ]
