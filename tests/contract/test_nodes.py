"""What every rule node promises, plug-ins included."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from pipeline.metrics import Registry
from pipeline.model.event import DeviceMessage
from pipeline.ports import DeviceState, ScriptPort
from pipeline.route.chain import ChainConfig, Rules
from pipeline.route.limits import Limits
from pipeline.route.node import FAILURE, Node, example, nodes
from pipeline.route.parse import chain_schema, parse_chain
from pipeline.route.turn import Turn, Work
from pipeline.route.visit import Visit
from pipeline.rulebook.catalogue import Known
from pipeline.script import ScriptLimits, ScriptProcesses
from tests.unit.route.bench import KEY, START_MS, Bench, record, rulebook, uplink, yaml

NODES = nodes()
KNOWN = Known(
    sinks=frozenset({"archive", "application"}), chains=frozenset({"main", "housekeeping"})
)
HOUSEKEEPING = """
chain: housekeeping
on: {messages: join}
nodes:
  - {name: seen, set_attributes: {scope: server, values: {seen: true}}}
"""
SAMPLES: list[dict[str, Any]] = [
    {"telemetry": {"temperature": 20.5, "battery": 90}},
    {"telemetry": {"temperature": 35.5, "battery": 90}},
    {"telemetry": {"temperature": 35.5, "battery": 5}},
]


def document(node: type[Node]) -> dict[str, Any]:
    return {"chain": "main", "on": {"messages": ["uplink"]}, "nodes": yaml(example(node))}


def parsed(node: type[Node]) -> ChainConfig:
    config, problems = parse_chain(document(node), KNOWN)
    assert problems == []
    assert config is not None
    return config


def parts() -> dict[str, Any]:
    """What an engine has of the device."""
    return {"attributes/shared": {"values": {"target": 20}, "times": {"target": START_MS}}}


def visit_of(
    config: ChainConfig, message: DeviceMessage, scripts: ScriptPort
) -> tuple[Visit, Work]:
    """The first node's visit of a message, on a state of its own."""
    state = DeviceState(lambda _key: parts())
    work = Work(state, 3, START_MS, Limits(), scripts)
    work.scripts.alone = True
    sub, _ = parse_chain(yaml(HOUSEKEEPING), KNOWN)
    assert sub is not None
    rules = Rules("t", "v1", [config, sub])
    turn = Turn(work, record(message), rules, tenant="t", device="dev", cause=message.id)
    chain = rules.chains["main"]
    return Visit(turn, chain, message, base=message.id, time_ms=message.time_ms), work


@pytest.fixture(scope="module")
def scripts() -> Iterator[ScriptPort]:
    processes = ScriptProcesses(ScriptLimits(), Registry())
    yield processes
    processes.close()


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_example_runs(node: type[Node], scripts: ScriptPort) -> None:
    """The docstring's example is a chain without faults that runs on plain messages."""
    assert any(item.get(node.verb) is not None for item in document(node)["nodes"])
    bench = Bench(rulebook(HOUSEKEEPING, _text(node)), scripts=scripts)
    bench.parts[KEY] = parts()

    made = bench.take(
        *(record(uplink(number, **sample)) for number, sample in enumerate(SAMPLES, 1))
    )

    assert made.letters == []


def _text(node: type[Node]) -> str:
    indented = "\n".join("  " + line for line in example(node).splitlines())
    return f"chain: main\non: {{messages: uplink}}\nnodes:\n{indented}\n"


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_docstring_says_what_it_is(node: type[Node]) -> None:
    """A node's docstring starts with a sentence for the docs."""
    assert node.__doc__
    assert node.__doc__.split("\n")[0].rstrip().endswith(".")


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_model_is_frozen_and_strict(node: type[Node]) -> None:
    """A node cannot be changed once read, and takes no keys that it does not know."""
    item = document(node)["nodes"][0]
    made = node.model_validate(item)

    with pytest.raises(ValidationError):
        made.name = "other"
    with pytest.raises(ValidationError):
        node.model_validate({**item, "no_such_key": 1})


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_outlets_are_declared(node: type[Node]) -> None:
    """A node's links are its declared outlets, `failure`, and targets that the user named; each
    declared outlet has a field of its name.
    """
    made = node.model_validate({**document(node)["nodes"][0], "on_failure": "stop"})
    links = list(made.links())

    assert set(node.outlets) <= set(node.model_fields)
    assert FAILURE in {link.outlet for link in links}
    for link in links:
        assert link.outlet in (*node.outlets, FAILURE) or link.outlet == link.target


@pytest.mark.parametrize("sample", SAMPLES, ids=["fine", "warm", "warm and empty"])
@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_apply_is_pure(node: type[Node], sample: dict[str, Any], scripts: ScriptPort) -> None:
    """The same visit gives the same outcome, outputs and state; the message stays as it was; the
    outlets that it leaves by are among its links.
    """
    results = []
    for _ in range(2):
        config = parsed(node)
        message = uplink(**copy.deepcopy(sample))
        before = msgspec.json.encode(message)
        visit, work = visit_of(config, message, scripts)
        first = config.nodes[0]

        outcome = first.apply(visit)

        assert msgspec.json.encode(message) == before
        left = [outcome] if isinstance(outcome, str) else [outlet for outlet, _ in outcome]
        assert set(left) <= {link.outlet for link in first.links()}
        results.append((outcome, work.out, work.lines, dict(work.state.changes)))
    assert results[0] == results[1]


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_schema_has_the_node(node: type[Node]) -> None:
    """The chain's JSON Schema has the node's own keys, and its verb is required."""
    definition = chain_schema()["$defs"][f"node_{node.verb}"]

    assert {"name", node.verb} <= set(definition["required"])
    assert definition["additionalProperties"] is False


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_schema_takes_the_example(node: type[Node]) -> None:
    """An editor that holds a chain to the JSON Schema finds no fault in the docstring's example,
    and finds a key that the node does not have.
    """
    validator = Draft202012Validator(chain_schema())
    written = document(node)

    assert list(validator.iter_errors(written)) == []
    written["nodes"][0]["no_such_key"] = 1
    assert list(validator.iter_errors(written))
