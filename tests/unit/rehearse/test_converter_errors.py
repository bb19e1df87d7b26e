"""What a converter's author reads when it fails: vendor, file, line, column, input, expectation."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main

YAML = """\
uplinkDecoder:
  fileName: x.{language}
  examples:
    - description: warm
      input: {{fPort: 1, bytes: [1, 2]}}
      output: {{data: {{t: 3}}}}
    - description: other
      input: {{fPort: 2, bytes: [1, 2]}}
      output: {{data: {{t: 3}}}}
"""
SCRIPTS = {
    "js": (
        "function decodeUplink(input) {\n"
        "  if (input.fPort === 2) return {data: {t: 4}};\n"
        "  return {data: {t: input.missing.x}};\n}\n"
    ),
    "lua": (
        "function decode_uplink(input)\n"
        "  if input.f_port == 2 then return {data = {t = 4}} end\n"
        "  return {data = {t = input.missing.x}}\nend\n"
    ),
}
PLACES = {"js": "converters/acme/x.js:3:21: ", "lua": "converters/acme/x.lua:3: "}


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture(params=["js", "lua"])
def language(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def rules(tmp_path: Path, language: str) -> Path:
    folder = tmp_path / "converters/acme"
    folder.mkdir(parents=True)
    (folder / "x.yaml").write_text(YAML.format(language=language))
    (folder / f"x.{language}").write_text(SCRIPTS[language])
    return tmp_path


def test_an_example_that_fails(rules: Path, language: str) -> None:
    """`funicular test` says the converter, the example's place, the input, and either the script's
    place and words or what was expected and what came.
    """
    tested = run("test", str(rules))
    assert tested.exit_code == 1
    lines = [line.strip() for line in tested.output.splitlines()]
    assert lines[:3] == [
        "✗ acme/x: decode uplink: warm",
        "converters/acme/x.yaml:4",
        "input port 1, 2 bytes: 01 02",
    ]
    assert lines[3].startswith(PLACES[language])
    at = lines.index("✗ acme/x: decode uplink: other")
    assert lines[at + 1 : at + 6] == [
        "converters/acme/x.yaml:7",
        "input port 2, 2 bytes: 01 02",
        "data.t",
        "expected 3",
        "got      4",
    ]


def test_a_payload_that_fails(rules: Path, language: str) -> None:
    """`funicular decode` says place, words, converter and input; so it does as JSON."""
    words = ("decode", "--converter", "acme/x", "--port", "1", "--hex", "0102", "-r", str(rules))
    said = run(*words)
    assert said.exit_code == 1
    assert PLACES[language] in said.output
    assert "converter acme/x, input port 1, 2 bytes: 01 02" in said.output
    machine = run(*words, "--json")
    assert machine.exit_code == 1
    told = orjson.loads(machine.output)
    assert told["error"].startswith(PLACES[language])
    assert (told["code"], told["line"], told["converter"]) == ("script_threw", 3, "acme/x")
    assert told["input"] == "port 1, 2 bytes: 01 02"


def test_a_script_that_does_not_compile(rules: Path, language: str) -> None:
    """`funicular check` says file, line and what is wrong before anything runs."""
    script = rules / f"converters/acme/x.{language}"
    script.write_text(SCRIPTS[language] + "\n) = = (\n")
    checked = run("check", str(rules))
    assert checked.exit_code == 2
    line = SCRIPTS[language].count("\n") + 2
    assert f"converters/acme/x.{language}:{line}:" in checked.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("decode", "acme/x"), "PAYLOAD is missing"),
        (("decode", "acme/x", "00", "11"), "one word too many: `11`"),
        (("decode", "acme/x", "zz!"), "neither hexadecimal"),
        (("decode", "acme/y", "00"), "did you mean `acme/x`?"),
        (("encode", "--converter", "acme/x", "[]"), "must be a JSON object"),
        (("encode", "acme/x", "{}"), "has no `downlinkEncoder`"),
    ],
)
def test_what_is_typed_wrong(rules: Path, words: tuple[str, ...], said: str) -> None:
    """A slip on the command line is the user's mistake, and is told as such."""
    told = run(*words, "--rules", str(rules))
    assert told.exit_code == 2
    assert said in told.output
