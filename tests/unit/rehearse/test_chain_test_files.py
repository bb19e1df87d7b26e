"""Files of chain tests: what is wrong in them is said with its place."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.rehearse.chain_test_files import load_chain_tests

GOOD = """
given: {device: shared, time: "2026-02-03T04:05:06Z"}
chains: [cool]
tests:
  - name: one
    when: [{wait: 1s}]
    then: {downlinks: []}
  - name: two
    given: {device: own}
    when: [{wait: 1s}]
    then: {downlinks: []}
"""


def faults(rules: Any, text: str) -> list[str]:
    """All faults of the file, without its name."""
    rules.write("chains/cool_test.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_chain_tests(rules.book())
    return [str(fault).removeprefix("chains/cool_test.yaml:") for fault in caught.value.faults]


def test_tests_are_read_in_order(rules: Any) -> None:
    """A test has its place and what it is given: its own, the file's where it says nothing."""
    rules.write("chains/cool_test.yaml", GOOD)

    one, two = load_chain_tests(rules.book())

    assert (one.chain, one.name, one.file, one.line()) == (
        *("cool", "one", "chains/cool_test.yaml", 4),
    )
    assert one.line(("then", "downlinks")) == 6
    assert (one.given.device, two.given.device) == ("shared", "own")
    assert one.given.time == two.given.time == 1_770_091_506_000
    assert one.chains == {"cool"}


def test_only_some_chains(rules: Any) -> None:
    """Those that are named; others are not even read."""
    rules.write("chains/cool_test.yaml", "tests: nonsense")

    assert load_chain_tests(rules.book(), only=["other"]) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["1:1: `tests` is missing (the tests, as `- name: …`)"]),
        ("tests: []", ["1:1: must not be empty"]),
        (
            "tests: [{name: a, when: [{wait: 1s}], than: {}}]",
            [
                "1:9: `then` is missing (what must come out, as `downlinks: […]`)",
                "1:39: unknown key `than` (did you mean `then`?)",
            ],
        ),
        ("tests:\n  - a: [", ["2:9: a value is missing here"]),
    ],
)
def test_a_file_that_is_no_file_of_tests(rules: Any, text: str, said: list[str]) -> None:
    """What is missing or misspelt has its line, and a suggestion."""
    found = faults(rules, text)

    assert len(found) == len(said)
    assert all(each.startswith(start) for each, start in zip(found, said, strict=True)), found


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("uplnik: {}", "unknown key `uplnik` (did you mean `uplink`?)"),
        ("{}", "a step is exactly one of `uplink`, `again`"),
        ("{wait: 1s, again: true}", "a step is exactly one of"),
        ("wait: soon", "must be a duration like"),
        ("wait: 0s", "must be greater than 0"),
        ("uplink: {bytes: 0102}", "must be text: put the digits in quotes"),
        ('uplink: {bytes: "0x1"}', "two digits each"),
        ("uplink: {bytes: [1, 256]}", "a byte is a whole number from 0 to 255"),
        ("uplink: {bytes: {}}", 'must be bytes: `"00 0a ff"` or `[0, 10, 255]`'),
        ("uplink: {device: a, device_id: b}", "give `device` or `device_id`, not both"),
        ("uplink: {body: {}, f_port: 1}", "`f_port` is for the dialect's sample"),
        ("uplink: {body: {}, body_bytes: []}", "give `body` or `body_bytes`, not both"),
        ("uplink: {integration: lorra}", "no integration `lorra` (did you mean `lora`?)"),
        ("message: {integration: lorra}", "no integration `lorra` (did you mean `lora`?)"),
        ("message: {time: yesterday}", "must be a time with its zone"),
        ("message: {time: '2026-01-01T00:00:00'}", "must be a time with its zone"),
        ("attributes: {scope: sharde, set: {a: 1}}", "did you mean `shared`?"),
        ("attributes: {scope: shared}", "say what to `set` or to `delete`"),
        ("downlink: {f_port: 1}", "give either `bytes` or `fields`"),
        ("network_server: refuse", "did you mean `refuses`?"),
    ],
)
def test_a_step_that_cannot_be(rules: Any, step: str, said: str) -> None:
    """Each slip in a step is one fault, on the step's line."""
    step = step if step.startswith("{") else f"{{{step}}}"
    text = f"tests:\n  - name: a\n    when:\n      - {step}\n    then: {{downlinks: []}}\n"

    (found,) = faults(rules, text)

    assert said in found
    assert found.startswith("4:")


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ("{}", "say what must come out"),
        ("{downlnks: []}", "did you mean `downlinks`?"),
        ("{downlinks: [{state: send}]}", "did you mean `sent`?"),
        ("{downlinks: [{bytes: 01}]}", "put the digits in quotes"),
        ("{deliveries: [{to: ouut}]}", "there is no sink `ouut` (did you mean `out`?)"),
        ("{attributes: {sharde: {}}}", "did you mean `shared`?"),
        ("{answers: [{statuss: 200}]}", "did you mean `status`?"),
    ],
)
def test_an_expectation_that_cannot_be(rules: Any, then: str, said: str) -> None:
    """A slip in what is expected does not become a test that passes."""
    text = f"tests:\n  - name: a\n    when: [{{wait: 1s}}]\n    then: {then}\n"

    (found,) = faults(rules, text)

    assert said in found
    assert found.startswith("4:")


def test_names_that_are_not_there_or_twice(rules: Any) -> None:
    """Chains, devices' integrations and the tests' own names are checked, all at once."""
    found = faults(
        rules,
        """
        given: {device: {name: a, integration: foxx}}
        chains: [coool]
        tests:
          - {name: a, when: [{wait: 1s}], then: {downlinks: []}}
          - name: a
            given: {device: {name: a, integration: bar}}
            when: [{wait: 1s}]
            then: {downlinks: []}
        """,
    )

    assert found == [
        "1:40: there is no integration `foxx` (did you mean `fox`?)",
        "2:10: there is no chain `coool` (did you mean `cool`?)",
        "5:11: the name `a` stands twice (first at tests[0])",
        "6:44: there is no integration `bar` (did you mean `bare`?)",
    ]
