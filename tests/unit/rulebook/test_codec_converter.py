"""Converters without a script: `codec:` and its keys, examples, and the faults of both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import orjson
import pytest
from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import MessageError
from pipeline.rulebook.schema import json_schema


class FakeCodec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    contract: ClassVar[str] = "lorawan"
    scale: float = 1
    words: dict[int, str] = {}
    one_way: bool = False

    @property
    def decodes(self) -> bool:
        return True

    @property
    def encodes(self) -> bool:
        return not self.one_way


class FakeShape(FakeCodec):
    contract: ClassVar[str] = "thingsboard"


@pytest.fixture
def rules(rules: Any) -> Any:
    codecs = {"plain": FakeCodec, "shape": FakeShape}
    rules.catalogue = replace(rules.catalogue, codecs=codecs)
    return rules


YAML = """
codec: plain
scale: 0.5
words: {0: "off", 1: "${payload.x}"}
uplinkDecoder:
  examples:
    - {description: one, input: {fPort: 1, bytes: [1]}, output: {data: {x: 1}}}
downlinkEncoder:
  examples:
    - {input: {data: {x: 1}}, output: {bytes: [1]}}
"""


def test_a_codec(rules: Any) -> None:
    """The codec's configuration is the script, both ways, and examples stand as a script's do."""
    rules.write("converters/acme/x.yaml", YAML)
    converter = rules.load().converters["acme/x"]
    assert converter.decoder == converter.encoder
    assert (converter.decoder.path, converter.decoder.language) == (
        "converters/acme/x.yaml",
        "codec",
    )
    assert orjson.loads(converter.decoder.source) == {
        "codec": "plain",
        "scale": 0.5,
        "words": {"0": "off", "1": "${payload.x}"},
    }
    assert converter.contract == "lorawan"
    assert [(example.routine, example.line) for example in converter.examples] == [
        ("decode_uplink", 7),
        ("encode_downlink", 10),
    ]


def test_examples_of_json(rules: Any) -> None:
    """Of a codec that reads JSON, examples may be written as JSON."""
    text = "codec: shape\nuplinkDecoder: {examples: [{input: {json: {a: 1}}, output: {}}]}\n"
    rules.write("converters/acme/x.yaml", text)
    (example,) = rules.load().converters["acme/x"].examples
    assert bytes(example.input["bytes"]) == b'{"a":1}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("codec: plan", "1:8: there is no codec `plan` (did you mean `plain`?)"),
        ("codec: 5", "1:8: there is no codec `5`"),
        ("codec: plain\nscal: 1", "2:1: unknown key `scal` (did you mean `scale`?)"),
        ("codec: plain\nscale: x", "2:8: must be a number"),
        ("codec: plain\ncontract: thingsboard", "2:1: is not that of the codec plain"),
        ("codec: plain\nuplinkDecoder: {fileName: a.js}", "2:17: unknown key `fileName`"),
        (
            "codec: plain\none_way: true\ndownlinkEncoder: {examples: []}",
            "3:1: the codec has no `downlink`",
        ),
        (
            "codec: plain\nuplinkDecoder: {examples: [{input: {}, output: {}}]}",
            "2:29: `bytes` is missing",
        ),
    ],
)
def test_faults(rules: Any, text: str, expected: str) -> None:
    """What is wrong is said where it stands."""
    rules.write("converters/acme/x.yaml", text + "\n")
    [fault] = rules.faults()
    assert fault.startswith(f"converters/acme/x.yaml:{expected}"), fault


def test_the_schema(rules: Any) -> None:
    """The JSON Schema of converters has each codec beside the scripts."""
    schema = json_schema(rules.catalogue)["converter"]
    codecs = [rule["then"]["properties"]["codec"] for rule in schema["then"]["allOf"]]
    assert codecs == [{"const": "plain"}, {"const": "shape"}]
    assert "uplinkDecoder" in schema["else"]["properties"]


class FakeSchemaCodec(BaseModel):
    """Stands for a codec that reads a file beside its converter's."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    contract: ClassVar[Any] = "lorawan"
    reads_files: ClassVar = True
    decodes: ClassVar = True
    encodes: ClassVar = False
    schema_file: str = Field(alias="schema")
    files: dict[str, str] = {}

    def build(self) -> None:
        if self.schema_file not in self.files:
            raise MessageError(f"no {self.schema_file} in {sorted(self.files)}", key="schema")


def test_a_codec_that_reads_files(rules: Any) -> None:
    """The schemas of the converter's own folder go with its configuration; a missing one is a fault
    at its place.
    """
    rules.with_catalogue(codecs={"schemas": FakeSchemaCodec})
    rules.write("converters/acme/a.proto", "one")
    rules.write("converters/acme/deeper/b.desc", b"\xff")
    rules.write("converters/other/c.proto", "three")
    rules.write("converters/acme/x.yaml", "codec: schemas\nschema: a.proto\n")
    made = rules.load().converters["acme/x"]
    assert orjson.loads(made.decoder.source)["files"] == {
        "a.proto": "b25l",
        "deeper/b.desc": "/w==",
    }

    rules.write("converters/acme/x.yaml", "codec: schemas\nschema: b.proto\n")
    assert rules.faults() == [
        "converters/acme/x.yaml:2:9: no b.proto in ['a.proto', 'deeper/b.desc']"
    ]
