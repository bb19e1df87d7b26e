"""Checks of chains: every problem at its exact place, in words that a user can act on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.route.chain import ChainConfig, Rules
from pipeline.route.node import nodes as node_types
from pipeline.route.parse import chain_schema, check_chains, parse_chain
from pipeline.rulebook.catalogue import Problem
from tests.unit.route.bench import KNOWN, problems_of, yaml

HEAD = "chain: main\non: {messages: uplink}\nnodes:\n"


def nodes(text: str) -> str:
    return HEAD + text


def config(name: str, *calls: str, on: bool = True) -> ChainConfig:
    """A chain that runs others."""
    document: dict[str, Any] = {
        "chain": name,
        "nodes": [{"name": f"to {call}", "chain": call} for call in calls]
        or [{"name": "say", "log": {"message": "x"}}],
    }
    if on:
        document["on"] = {"messages": ["uplink"]}
    known = type(KNOWN)(chains=frozenset(calls))
    made, problems = parse_chain(document, known)
    assert made is not None, problems
    return made


def test_good_chain() -> None:
    """A chain without faults gives its config, with one value or a list under `on`."""
    made, problems = parse_chain(
        yaml(
            """
            chain: main
            about: What it is for.
            on: {messages: uplink, device_type: [a, b]}
            nodes:
              - {name: say, log: {message: "hello"}}
            """
        ),
        KNOWN,
    )

    assert problems == []
    assert made is not None
    assert made.on is not None
    assert made.on.messages == ("uplink",)
    assert made.on.device_type == ("a", "b")


@pytest.mark.parametrize(
    ("text", "path", "message", "suggestion"),
    [
        (
            HEAD.replace("on:", "onn:") + "  - {name: a, log: {message: x}}",
            ("onn",),
            "unknown key `onn`",
            "did you mean `on`?",
        ),
        ("chain: main\nnodes: []", ("nodes",), "must be a list of nodes", ""),
        ("chain: main", (), "`nodes` is missing", ""),
        (
            "on: {messages: uplnk}\nchain: main\nnodes: [{name: a, log: {message: x}}]",
            ("on", "messages"),
            "there are no messages `uplnk`",
            "did you mean `uplink`?",
        ),
        (
            nodes("  - {name: a, log: {message: x}}").replace(
                "uplink", "uplink, integration: lroa"
            ),
            ("on", "integration"),
            "there is no integration `lroa`",
            "did you mean `lora`?",
        ),
        (
            nodes("  - {name: a, fliter: 'true'}"),
            ("nodes", 0, "fliter"),
            "unknown node `fliter`",
            "did you mean `filter`?",
        ),
        (
            nodes("  - {name: a, log: {message: x}, filter: 'true'}"),
            ("nodes", 0, "log"),
            "a node does one thing, not `filter` and `log`",
            "write two nodes",
        ),
        (
            nodes("  - {name: a, log: {mesage: x, message: x}}"),
            ("nodes", 0, "log", "mesage"),
            "unknown key `mesage`",
            "did you mean `message`?",
        ),
        (
            nodes("  - {name: a, log: {message: x, level: warn}}"),
            ("nodes", 0, "log", "level"),
            "must be one of `debug`, `info`, `warning`, `error`",
            "did you mean `warning`?",
        ),
        (nodes("  - {filter: 'true'}"), ("nodes", 0), "`name` is missing", ""),
        (
            nodes("  - {name: stop, log: {message: x}}"),
            ("nodes", 0, "name"),
            "`stop` has a meaning of its own; give the node another name",
            "",
        ),
        (
            nodes("  - {name: a/b, log: {message: x}}"),
            ("nodes", 0, "name"),
            "must be 1 to 64 printable characters without `/`",
            "",
        ),
        (nodes("  - just text"), ("nodes", 0), "must be a mapping with `name` and what", ""),
        (nodes("  - {name: a}"), ("nodes", 0), "the node does nothing", "nodes are `accumulate`, "),
        (
            nodes("  - {name: a, filter: 'true', otherwise: archve}\n")
            + "  - {name: archive, send: {to: archive}}",
            ("nodes", 0, "otherwise"),
            "there is no node `archve`",
            "did you mean `archive`?",
        ),
        (
            nodes("  - {name: a, switch: [{when: 'true', to: archve}], otherwise: archive}\n")
            + "  - {name: archive, send: {to: archive}}",
            ("nodes", 0, "switch", 0, "to"),
            "there is no node `archve`",
            "did you mean `archive`?",
        ),
        (
            nodes("  - {name: a, send: {to: archiv}}"),
            ("nodes", 0, "send", "to"),
            "there is no sink `archiv`",
            "did you mean `archive`?",
        ),
        (
            nodes("  - {name: a, send: {to: zzzzzz}}"),
            ("nodes", 0, "send", "to"),
            "there is no sink `zzzzzz`",
            "write sinks/zzzzzz.yaml",
        ),
        (
            nodes("  - {name: a, chain: othr}"),
            ("nodes", 0, "chain"),
            "there is no chain `othr`",
            "did you mean `other`?",
        ),
        (
            nodes("  - {name: a, set: {fields: {temperature: 1}}}"),
            ("nodes", 0, "set", "fields", "temperature"),
            "`temperature` is no place in the message",
            "write a path like `telemetry.temperature` or `metadata.temperature`",
        ),
        (
            nodes("  - {name: a, send_downlink: {f_port: 1}}"),
            ("nodes", 0, "send_downlink"),
            "needs either `payload` (a mapping for the encoder) or `bytes`",
            "",
        ),
        (
            nodes("  - {name: a, send_downlink: {f_port: 300, payload: {}}}"),
            ("nodes", 0, "send_downlink", "f_port"),
            "must be a whole number from 0 to 255, or `${ … }`",
            "",
        ),
        (
            nodes("  - {name: a, send_downlink: {payload: {}, expires_in: soon}}"),
            ("nodes", 0, "send_downlink", "expires_in"),
            "must be a duration like `10s`",
            "",
        ),
        (
            nodes("  - {name: a, set_attributes: {scope: shard, values: {}}}"),
            ("nodes", 0, "set_attributes", "scope"),
            "must be one of `client`, `shared`, `server`",
            "did you mean `shared`?",
        ),
        (
            nodes("  - {name: a, filter: true}"),
            ("nodes", 0, "filter"),
            "must be text: an expression like",
            "",
        ),
    ],
)
def test_problem(text: str, path: tuple[Any, ...], message: str, suggestion: str) -> None:
    """One fault gives one problem with its path, what is wrong and a suggestion."""
    (problem,) = problems_of(text)

    assert problem.path == path
    assert problem.message.startswith(message)
    assert problem.suggestion.startswith(suggestion)


def test_expression_faults_have_their_offset() -> None:
    """A fault inside an expression says how many characters into its text it is."""
    problems = problems_of(
        nodes(
            """
  - {name: a, filter: telemtry.x > 1}
  - name: b
    send: {to: archive, body: {x: ["fine", "at ${ 1 + telemtry.y }"], y: "${1 +}"}}
"""
        )
    )

    assert [problem.path for problem in problems] == [
        ("nodes", 0, "filter"),
        ("nodes", 1, "send", "body", "x", 1),
        ("nodes", 1, "send", "body", "y"),
    ]
    assert problems[0].offset == 0
    assert problems[0].suggestion == "did you mean `telemetry`?"
    assert problems[1].offset == 10


def test_all_faults_at_once() -> None:
    """Faults of several nodes are all said, and a faulty node's outlets too."""
    problems = problems_of(
        """
chain: main
onn: {}
nodes:
  - {name: a, filter: "1 +", otherwise: nowhere}
  - {name: a, send: {to: archiv}}
  - {name: c, lgo: {message: x}}
"""
    )

    assert {problem.path for problem in problems} == {
        ("onn",),
        ("nodes", 0, "filter"),
        ("nodes", 0, "otherwise"),
        ("nodes", 1, "send", "to"),
        ("nodes", 1, "name"),
        ("nodes", 2, "lgo"),
    }


def test_nodes_in_a_circle() -> None:
    """A circle is named with all its nodes."""
    (problem,) = problems_of(
        nodes(
            """
  - {name: a, log: {message: x}}
  - {name: b, filter: "true", otherwise: a}
  - {name: c, log: {message: x}}
"""
        )
    )

    assert problem == Problem(("nodes", 1), "nodes go in a circle: `a` → `b` → `a`")


def test_node_that_nothing_leads_to() -> None:
    """A node after the end of every way is found."""
    (problem,) = problems_of(
        nodes(
            """
  - {name: a, log: {message: x}, then: stop}
  - {name: b, log: {message: x}}
"""
        )
    )

    assert problem.path == ("nodes", 1, "name")
    assert problem.message == "no way leads to the node `b`"


def test_failure_outlet_is_a_way() -> None:
    """A node that only failures lead to is reached."""
    assert (
        problems_of(
            nodes(
                """
  - {name: a, log: {message: x}, then: stop, on_failure: b}
  - {name: b, log: {message: x}}
"""
            )
        )
        == []
    )


def test_chains_in_a_circle() -> None:
    """Chains that run each other in a circle are found at each node that closes it."""
    problems = check_chains(
        {name: config(name, *calls) for name, *calls in (("a", "b"), ("b", "c"), ("c", "a"))}
    )

    assert problems["a"] == [
        Problem(("nodes", 0, "chain"), "chains run each other in a circle: `a` → `b` → `c` → `a`")
    ]
    assert set(problems) == {"a", "b", "c"}


def test_chain_that_runs_itself() -> None:
    """The shortest circle is found as well."""
    assert "a" in check_chains({"a": config("a", "a")})


def test_chains_too_deep() -> None:
    """Chains within chains have a limit that is checked before anything runs."""
    chain = [config(f"c{n}", *([f"c{n + 1}"] if n < 20 else [])) for n in range(21)]

    problems = check_chains({each.chain: each for each in chain})

    assert "chains run each other 20 deep; at most 16" in problems["c0"][0].message
    assert "c5" not in problems


def test_chain_that_nothing_runs() -> None:
    """A chain without `on` is fine where another runs it, and a fault where none does."""
    fine = {"a": config("a", "b"), "b": config("b", on=False)}

    assert check_chains(fine) == {}
    assert check_chains({"b": fine["b"]})["b"][0].message == "nothing runs this chain"


def test_schema_knows_every_node() -> None:
    """The JSON Schema has a choice for each node, refuses unknown keys, and is plain JSON."""
    schema = json.loads(json.dumps(chain_schema()))

    choices = schema["properties"]["nodes"]["items"]
    references = {choice["then"]["$ref"].rpartition("node_")[2] for choice in choices["allOf"]}
    assert references == set(node_types()) == set(choices["properties"]) - {"name"}
    assert schema["additionalProperties"] is False
    for definition in schema["$defs"].values():
        assert definition.get("additionalProperties") is False or "enum" in definition
    text = json.dumps(schema)
    for reference in {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}:
        assert reference in schema["$defs"]


def test_matching_costs_nothing_for_others() -> None:
    """Which chains take a message is looked up, not searched: the second answer is the first."""
    configs = [config(f"c{n}") for n in range(200)]
    rules = Rules("t", "v", configs)

    first = rules.matching("uplink", "lora", "thermostat")

    assert rules.matching("uplink", "lora", "thermostat") is first
    assert rules.matching("join", "lora", "thermostat") == ()

    few = Rules("t", "v", configs[:1])
    for number in range(10_000):
        few.matching("join", "lora", f"type {number}")
    assert len(few._matches) <= 4_096
