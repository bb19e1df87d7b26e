"""The JSON Schemas of rules files: what `check` takes fits them, what people mistype does not."""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pipeline.route.node import example, nodes
from pipeline.rulebook.folder import read_folder
from pipeline.rulebook.reader import read_document
from pipeline.rulebook.schema import FILES, json_schema
from pipeline.wiring import catalogue
from tests.rules.folders import FOLDERS


@cache
def validators() -> dict[str, Draft202012Validator]:
    return {kind: Draft202012Validator(made) for kind, made in json_schema(catalogue()).items()}


def value(text: str | bytes) -> Any:
    """YAML as `check` reads it."""
    raw = inspect.cleandoc(text).encode() if isinstance(text, str) else text
    document, faults = read_document("x.yaml", raw)
    assert document is not None, faults
    return document.value


def files() -> list[tuple[str, Path]]:
    """Every YAML file of all example folders, with its kind."""
    found = []
    for root in FOLDERS:
        folder = read_folder(root)
        kinds = {
            "funicular": [folder.settings] if folder.settings else [],
            "integration": folder.integrations.values(),
            "converter": folder.converters.values(),
            "sink": folder.sinks.values(),
            "chain": folder.chains.values(),
            "test": folder.tests.values(),
        }
        found += [(kind, root / file) for kind, each in kinds.items() for file in each]
    return found


def test_each_kind_is_shown() -> None:
    """The examples have every kind of file, so that each schema is held to something."""
    assert {kind for kind, _ in files()} == set(FILES) == set(validators())


@pytest.mark.parametrize("kind", FILES)
def test_schemas_are_schemas(kind: str) -> None:
    """Each is a valid JSON Schema of the draft that it names."""
    schema = validators()[kind].schema
    Draft202012Validator.check_schema(schema)

    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]


@pytest.mark.parametrize(("kind", "path"), files(), ids=lambda part: str(part)[-60:])
def test_examples_fit(kind: str, path: Path) -> None:
    """A file that `check` takes fits its schema."""
    faults = list(validators()[kind].iter_errors(value(path.read_bytes())))

    assert faults == []


@pytest.mark.parametrize("verb", nodes())
def test_examples_of_nodes_fit(verb: str) -> None:
    """The example in a node's file fits the schema of chains."""
    made = {"chain": "x", "nodes": value(example(nodes()[verb]).encode())}

    assert list(validators()["chain"].iter_errors(made)) == []


@pytest.mark.parametrize("verb", nodes())
def test_nodes_are_explained(verb: str) -> None:
    """An editor that completes a node's verb says what the node does, and shows its example."""
    offered = validators()["chain"].schema["properties"]["nodes"]["items"]["properties"][verb]

    assert inspect.cleandoc(nodes()[verb].__doc__ or "").split("\n")[0] in offered["description"]
    assert example(nodes()[verb]).strip() in offered["markdownDescription"]


CHAIN = "chain: a\non: {messages: uplink}\nnodes:\n  - "

FAULTS = [
    ("funicular", "tenannt: x", "tenannt"),
    ("funicular", "defaults: {queue_max: 0}", "0"),
    ("integration", "dialect: sigfoxx\nauthentication: open", "sigfoxx"),
    ("integration", "dialect: sigfox", "authentication"),
    ("integration", "dialect: sigfox\nauthentication: open\nanswer_timeout: soon", "soon"),
    ("integration", "dialect: tts_v3\nauthentication: open\noptions: {sever: x}", "sever"),
    ("integration", "dialect: sigfox\nauthentication: {header: X}", "header"),
    ("sink", "url: https://example.com", "transport"),
    ("sink", "transport: htpp\nurl: https://example.com", "htpp"),
    ("sink", "transport: http", "url"),
    ("sink", "transport: http\nurl: https://example.com\nmehtod: PUT", "mehtod"),
    ("converter", "uplinkDecoder: {file: a.js}", "fileName"),
    ("converter", "uplinkDecodr: {fileName: a.js}", "uplinkDecodr"),
    ("converter", "codec: cayenne", "cayenne"),
    ("chain", "on: {messages: uplink}\nnodes: [{name: x, log: {message: y}}]", "chain"),
    ("chain", "chain: a\non: {messages: uplnk}\nnodes: [{name: x, log: {message: y}}]", "uplnk"),
    ("chain", "chain: a\nnodes: []", "nodes"),
    ("chain", f"{CHAIN}{{name: x, fliter: true}}", "fliter"),
    ("chain", f"{CHAIN}{{name: x, filter: true, otherwse: stop}}", "otherwse"),
    ("chain", f"{CHAIN}{{filter: telemetry.a > 1}}", "name"),
    ("chain", f"{CHAIN}{{name: x, send: {{too: archive}}}}", "too"),
    ("chain", f"{CHAIN}{{name: x, delay: tomorrow}}", "tomorrow"),
    ("chain", f"{CHAIN}{{name: x, rename: {{temp: telemetry.t}}}}", "temp"),
    ("test", "tests: [{name: x, when: [{uplnk: {}}], then: {downlinks: []}}]", "uplnk"),
    ("test", "tests: [{name: x, then: {downlinks: []}}]", "when"),
    ("test", 'tests: [{name: x, when: [{uplink: {bytes: "0g"}}], then: {exact: true}}]', "0g"),
]


@pytest.mark.parametrize(("kind", "text", "named"), FAULTS, ids=lambda part: str(part)[:40])
def test_faults_are_refused(kind: str, text: str, named: str) -> None:
    """What people mistype does not fit, and what is said names it."""
    faults = list(validators()[kind].iter_errors(value(text)))

    said = " ".join(
        json.dumps([list(map(str, each.path)), each.message]) for each in leaves(faults)
    )
    assert faults
    assert named in said


def leaves(faults: Any) -> list[Any]:
    """The innermost faults: those an editor shows."""
    found = []
    for fault in faults:
        found += leaves(fault.context) if fault.context else [fault]
    return found


def test_values_from_the_environment_fit() -> None:
    """A number may come from the environment, as `check` allows it."""
    text = 'dialect: sigfox\nauthentication: open\nqueue_max: "${env:QUEUE:-10}"'

    assert list(validators()["integration"].iter_errors(value(text))) == []
