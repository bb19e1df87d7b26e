from __future__ import annotations

from typing import Any

import pytest

from pipeline.rulebook.catalogue import Problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path: x", "1:1: `transport` is missing (there are `file`, `http`)"),
        ("transport: htp", "1:12: there is no transport `htp` (did you mean `http`?)"),
        ("transport: 5", "1:12: there is no transport `5` (there are `file`, `http`)"),
        ("transport: http", "1:1: `url` is missing"),
        ("transport: http\nurl: 5", "2:6: must be text (put it in quotes)"),
        (
            "transport: http\nurl: x\nmethod: post",
            "3:9: must be one of `POST`, `PUT` (did you mean `POST`?)",
        ),
        (
            "transport: http\nurl: x\nretry: {facktor: 1}",
            "3:9: unknown key `facktor` (did you mean `factor`?)",
        ),
        ("transport: http\nurl: x\nretry:\n  factor: x", "4:11: must be a whole number"),
        ("transport: file\npath: x\nurl: y", "3:1: unknown key `url` (the keys here are `path`)"),
        ("transport: file\n path: x", "2:6: a second `: ` here makes no sense to YAML"),
    ],
)
def test_each_fault_of_a_sink(rules: Any, text: str, expected: str) -> None:
    """A sink is checked with its transport's own model."""
    rules.write("sinks/a.yaml", text + "\n")
    [fault] = rules.faults()

    assert fault.startswith(f"sinks/a.yaml:{expected}")


def test_sinks_carry_their_transports_config(rules: Any) -> None:
    """What is left out has the model's default; secrets are filled in."""
    rules.env["TOKEN"] = "s3cret-token"
    rules.write("sinks/a.yaml", "transport: http\nurl: x\nheaders: {k: '${env:TOKEN}'}\n")
    entry = rules.load().sinks["a"]

    assert (entry.tenant, entry.name, entry.transport) == ("default", "a", "http")
    assert entry.config.headers["k"].get_secret_value() == "s3cret-token"
    assert "s3cret" not in repr(entry)


CHAIN = "chain: a\nnodes:\n  - {to: s}\n  - when: >-\n      one &&\n      BAD\n  - {to: t}\n"


def test_problems_of_a_chain_get_their_places(rules: Any) -> None:
    """What route finds at a path becomes a fault of the file, expressions to the character."""
    rules.write("sinks/s.yaml", "transport: file\npath: x\n")
    rules.write("chains/a.yaml", CHAIN)

    assert rules.faults() == [
        "chains/a.yaml:6:7: `BAD` is no name (say what)",
        "chains/a.yaml:7:6: there is no sink `t`",
    ]


def test_a_faulty_sink_is_still_known_to_chains(rules: Any) -> None:
    """One file's fault does not cause another's."""
    rules.write("sinks/s.yaml", "transport: file\n")
    rules.write("chains/a.yaml", "chain: a\nnodes: [{to: s}]\n")

    assert rules.faults() == ["sinks/s.yaml:1:1: `path` is missing"]


def test_a_chain_is_named_as_its_file(rules: Any) -> None:
    """A chain that calls itself otherwise is a fault at that name."""
    rules.write("chains/a.yaml", "chain: b\n")

    assert rules.faults() == [
        "chains/a.yaml:1:8: the chain `b` stands in a file named a.yaml (name both alike)"
    ]


def test_checks_between_chains(rules: Any) -> None:
    """What route finds between chains is told in the chain that it concerns."""
    seen = []

    def check_chains(configs: Any) -> Any:
        seen.append(set(configs))
        return {"b": [Problem(("chain",), "runs itself by way of `a`")]}

    rules.with_catalogue(check_chains=check_chains)
    rules.write("chains/a.yaml", "chain: a\n")
    rules.write("chains/b.yaml", "chain: b\n")

    assert rules.faults() == ["chains/b.yaml:1:1: runs itself by way of `a`"]
    assert seen == [{"a", "b"}]


def test_a_faulty_chain_puts_off_the_checks_between_chains(rules: Any) -> None:
    """Who runs whom is not known before all of them can be read."""

    def check_chains(configs: Any) -> Any:
        raise AssertionError(configs)

    rules.with_catalogue(check_chains=check_chains)
    rules.write("chains/a.yaml", "chain: a\n")
    rules.write("chains/b.yaml", "chain: b\nnodes: [{to: none}]\n")

    assert rules.faults() == ["chains/b.yaml:2:10: there is no sink `none`"]


def test_chains_carry_routes_config(rules: Any) -> None:
    """What route made of the document is in the entry."""
    rules.write("chains/a.yaml", "chain: a\nabout: '$${env:X} ${device.name}'\n")
    entry = rules.load().chains["a"]

    assert (entry.name, entry.file) == ("a", "chains/a.yaml")
    assert entry.config == {"chain": "a", "about": "$${env:X} ${device.name}"}


def test_chain_tests_must_be_yaml(rules: Any) -> None:
    """A chain's tests are read for their syntax; what they say is for who runs them."""
    rules.write("chains/a.yaml", "chain: a\n")
    rules.write("chains/a_test.yaml", "anything: [at, all]\n")
    rules.load()
    rules.write("chains/a_test.yaml", "anything: [at\n")

    assert rules.faults() == [
        "chains/a_test.yaml:1:11: the `[` that opens here is not closed (add `]` or `,`)"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tenant: Shop", "1:9: cannot be a name: names are made of a-z, 0-9, - and _, start with"),
        ("tennant: x", "1:1: unknown key `tennant` (did you mean `tenant`?)"),
        ("defaults: {queue: 1}", "1:12: unknown key `queue` (did you mean `queue_max`?)"),
        ("defaults: {queue_max: 0}", "1:23: must be at least 1"),
        ("- x", "1:1: must be a mapping (`key: value`)"),
    ],
)
def test_each_fault_of_the_folders_settings(rules: Any, text: str, expected: str) -> None:
    """funicular.yaml is checked like all others."""
    rules.write("funicular.yaml", text + "\n")
    [fault] = rules.faults()

    assert fault.startswith(f"funicular.yaml:{expected}")


def test_a_variable_that_is_missing_causes_no_second_fault(rules: Any) -> None:
    """What is wrong with a value that could not be filled in is only an echo."""
    rules.write("sinks/a.yaml", "transport: http\nurl: x\nmethod: '${env:METHOD_Q}'\n")

    assert rules.faults() == [
        (
            "sinks/a.yaml:3:10: the environment variable METHOD_Q is not set"
            " (set METHOD_Q, or give a default: ${env:METHOD_Q:-…})"
        )
    ]


def test_no_fault_shows_a_secret(rules: Any) -> None:
    """A secret in the wrong place is shown as it was written."""
    rules.env.update({"DIALECT": "s3cret-one", "SINK": "s3cret-two", "HOW": "s3cret-three"})
    rules.write(
        "integrations/a.yaml",
        "dialect: '${env:DIALECT}'\nauthentication: '${env:HOW}'\nconverter: ${env:SINK}\n",
    )
    rules.write("chains/a.yaml", "chain: ${env:HOW}\nnodes: [{to: '${env:SINK}'}]\n")
    rules.write("sinks/a.yaml", "transport: ${env:SINK}\n")
    faults = rules.faults()

    assert len(faults) == 6
    assert "s3cret" not in "".join(faults)
    assert "chains/a.yaml:2:10: there is no sink `${env:SINK}`" in faults
