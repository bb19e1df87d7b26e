from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.errors import ConfigError
from pipeline.wiring import catalogue, load_rules


def funicular(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["templates", *arguments])
    return result.exit_code, result.output


def test_all_are_listed(tmp_path: Path) -> None:
    """Each template that comes along and each of the folder has its line."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/own.yaml").write_text(
        "name: Own\ndescription: Our own.\nsink: {transport: http, url: 'https://a.example'}\n"
    )
    code, said = funicular("--rules", str(tmp_path))
    assert code == 0
    assert [line.split()[0] for line in said.splitlines()] == sorted(
        [*catalogue().templates, "own"]
    )


@pytest.mark.parametrize("name", sorted(catalogue().templates))
def test_what_is_printed_is_its_document(name: str, tmp_path: Path) -> None:
    """What is printed is a sink, or an integration, once its values are there: secrets come from
    the environment.
    """
    code, said = funicular(name, "--rules", str(tmp_path))
    assert code == 0
    code, told = funicular(name, "--json", "--rules", str(tmp_path))
    assert code == 0
    found = json.loads(told)
    variables, folder = found["variables"], f"{found['of']}s"
    env = {
        f"{name}_{each}".upper().replace("-", "_"): _value(name, each)
        for each, variable in variables.items()
        if variable["secret"]
    }
    for each in variables:
        said = said.replace(f'  {each}: ""', f"  {each}: {_value(name, each)}")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "out.yaml").write_text(said)
    (book,) = load_rules([tmp_path], None, env).values()
    assert {"sinks": book.sinks, "integrations": book.integrations}[folder].keys() == {"out"}
    assert book.warnings == ()


def _value(name: str, variable: str) -> str:
    if variable in {"url", "server"}:
        return "https://service.example" if variable == "url" else "mqtts://broker.example"
    if name == "webhook":
        return "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    return "dmFsdWU=" if name.startswith("azure-iot") and variable == "key" else "value"


def test_a_name_that_is_none(tmp_path: Path) -> None:
    """A name that there is no template of is the user's mistake, with the nearest one."""
    code, said = funicular("slak", "--rules", str(tmp_path))
    assert code == 2
    assert "there is no template slak (did you mean `slack`?)" in said


def test_a_faulty_one_is_said(tmp_path: Path) -> None:
    """A template of the folder that has a fault is said with its place."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/own.yaml").write_text("name: Own\n")
    code, said = funicular("--rules", str(tmp_path))
    assert code == 2
    assert "templates/own.yaml" in said


def new(rules: Path, *arguments: str) -> tuple[int, str]:
    given = ["new", "integration", *arguments, "--rules", str(rules)]
    result = CliRunner().invoke(main, given)
    return result.exit_code, result.output


def test_an_integration_is_written_from_a_template(tmp_path: Path) -> None:
    """Secrets come from variables of the environment that have the integration's name; what is left
    to be filled in is what the checks then name.
    """
    code, said = new(tmp_path, "barn", "--template", "the-things-stack-mqtt")
    assert (code, "fill it in" in said) == (0, True)
    written = tmp_path / "integrations/barn.yaml"
    text = written.read_text()
    assert "api_key: ${env:BARN_API_KEY}" in text
    with pytest.raises(ConfigError) as caught:
        load_rules([tmp_path], None, {"BARN_API_KEY": "k"})
    (fault,) = caught.value.faults
    assert "the variable `application` is missing" in fault.message
    written.write_text(text.replace('application: ""', "application: app1"))
    (book,) = load_rules([tmp_path], None, {"BARN_API_KEY": "k"}).values()
    assert book.integrations["barn"].connection.user == "app1@ttn"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["barn"], "or --template"),
        (["barn", "--template", "aws-iot", "--dialect", "http"], "or --template"),
        (["barn", "--template", "aws-iot", "--transport", "mqtt"], "or --template"),
        (["barn", "--template", "aws-iott"], "did you mean `aws-iot`?"),
        (["barn", "--template", "slack"], "it is of sinks"),
        (["a b", "--template", "aws-iot"], "cannot be a name"),
    ],
)
def test_a_new_one_that_cannot_be(arguments: list[str], says: str, tmp_path: Path) -> None:
    """What does not go together, or is not there, is the user's mistake, and nothing is written."""
    code, said = new(tmp_path, *arguments)
    assert code == 2
    assert says in said
    assert not (tmp_path / "integrations").exists()
