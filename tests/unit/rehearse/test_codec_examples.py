"""Converters without a script, from the YAML to the examples: what a user writes, run as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.convert.codec_port import CodecPort
from pipeline.convert.codecs.codec import codec_models
from pipeline.integrations.dialect import dialects
from pipeline.metrics import Registry
from pipeline.rehearse.examples import run_examples
from pipeline.rulebook.catalogue import Catalogue
from pipeline.rulebook.load import load
from pipeline.script import ScriptLimits, ScriptProcesses

CONVERTERS = {
    "lpp": """
codec: cayenne_lpp
names: {temperature_3: water}
uplinkDecoder:
  examples:
    - {input: {fPort: 1, bytes: [3, 0x67, 1, 0x10]}, output: {data: {water: 27.2}}}
    - {input: {fPort: 1, bytes: [3]}, output: {data: {}}}
downlinkEncoder:
  examples:
    - {input: {data: {value_1: 1}}, output: {bytes: [1, 0, 100]}}
""",
    "meter": """
codec: layout
endianness: little
uplink:
  - f_port: 2
    fields:
      - {name: volume, type: uint32, scale: 0.001}
      - {type: uint8, bits: [{name: leak, at: 0}, {name: mode, at: 4, size: 2, enum: {1: "On"}}]}
      - {name: history, repeat: rest, fields: [{name: v, type: uint16, missing: 0xFFFF}]}
downlink:
  - f_port: 9
    fields: [{type: uint8, value: 7}, {name: interval, type: uint16}]
uplinkDecoder:
  examples:
    - input: {fPort: 2, bytes: [0x40, 0xE2, 1, 0, 0x11, 5, 0, 0xFF, 0xFF]}
      output: {data: {volume: 123.456, leak: true, mode: On, history: [{v: 5}, {}]}}
downlinkEncoder:
  examples:
    - {input: {data: {interval: 60}}, output: {bytes: [7, 60, 0], fPort: 9}}
""",
    "pack": """
codec: senml
device: base_name
uplinkDecoder:
  examples:
    - input: {text: '[{"bn": "dev1/", "n": "t", "v": 21.5}]'}
      output: {deviceName: dev1, telemetry: {t: 21.5}}
""",
    "mapped": """
codec: json_mapping
uplink:
  device: ${payload.id}
  telemetry: {temperature: "${payload.t / 10.0}"}
downlink: {target: "${fields.target}"}
uplinkDecoder:
  examples:
    - {input: {json: {id: a, t: 215}}, output: {deviceName: a, telemetry: {temperature: 21.5}}}
downlinkEncoder:
  examples:
    - input: {msg: {target: 21}}
      output: {contentType: JSON, data: '{"target":21}', metadata: {}}
""",
}


@pytest.fixture
def port() -> CodecPort:
    return CodecPort(ScriptProcesses(ScriptLimits(), Registry()))


def test_examples_of_codecs(tmp_path: Path, port: CodecPort) -> None:
    """Each codec's examples run from its YAML, without a process; a refusal is told."""
    for name, text in CONVERTERS.items():
        file = tmp_path / "converters" / "acme" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    catalogue = Catalogue(
        dialects=dialects(),
        sinks={},
        parse_chain=lambda _value, _known: (None, ()),
        codecs=codec_models(),
    )
    results = run_examples(load(tmp_path, catalogue, {}), port)
    failed = {
        result.name: [str(each) for each in result.differences]
        for result in results
        if not result.ok
    }
    assert len(results) == 8
    assert list(failed.values()) == [
        ["converters/acme/lpp.yaml: byte 0 is left over: a value has a channel and a type"]
    ]
