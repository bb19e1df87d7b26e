"""What tests reached of chains: nodes, outlets, shares."""

from __future__ import annotations

from typing import Any

from pipeline.rehearse import coverage
from pipeline.rehearse.chain_tests import run_chain_tests
from pipeline.rehearse.coverage import ChainCoverage, Coverage

COLD = """
given: {device: {name: 1A2B, integration: fox}}
tests:
  - name: cold
    when: [{uplink: {bytes: "05"}}]
    then: {downlinks: []}
"""
WARM = """
  - name: warm
    when: [{uplink: {bytes: "1e"}}]
    then: {answers: [{status: 200}]}
"""


def cover(rules: Any, scripts: Any, tests: str) -> list[ChainCoverage]:
    rules.write("chains/cool_test.yaml", tests)
    book = rules.book()
    counted = Coverage()
    assert all(each.ok for each in run_chain_tests(book, scripts, watch=counted.watch))
    return counted.of(book)


def test_unreached(rules: Any, scripts: Any) -> None:
    """Nodes that no test came to, and outlets that none took, stand with their lines."""
    (found,) = cover(rules, scripts, COLD)

    assert (found.nodes_reached, found.nodes) == (3, 6)
    assert (found.outlets_reached, found.outlets) == (3, 8)
    assert [(each.node, each.outlet, each.line) for each in found.unreached] == [
        ("which", "tell", 4),
        ("warm", "then", 10),
        ("remember", "", 13),
        ("tell", "", 16),
        ("note", "", 20),
    ]


def test_all(rules: Any, scripts: Any) -> None:
    """Tests that together go every way reach all of it."""
    found = cover(rules, scripts, COLD + WARM)

    assert found[0].unreached == ()
    assert coverage.percent(found) == 100
    assert coverage.summary(found) == "coverage 100 %: 6 of 6 nodes, 8 of 8 outlets"


def test_timers_and_failures_count(rules: Any, scripts: Any) -> None:
    """A way that a timer takes, and one that a failure takes, are ways as any other."""
    rules.write(
        "chains/cool.yaml",
        """
        chain: cool
        on: {messages: uplink}
        nodes:
          - name: later
            delay: 5m
          - name: fails
            filter: telemetry.humidity > 1
            on_failure: keep
          - name: keep
            send: {to: out}
        """,
    )
    tests = COLD.replace("]\n    then", ", {wait: 6m}]\n    then")
    (found,) = cover(rules, scripts, tests)

    assert [(each.node, each.outlet) for each in found.unreached] == [
        ("fails", "then"),
        ("fails", "otherwise"),
    ]


def test_outlets_that_cannot_be_taken_do_not_count(rules: Any, scripts: Any) -> None:
    """An outlet besides `then` and `otherwise` that the chain does not name is never taken."""
    rules.write(
        "chains/cool.yaml",
        """
        chain: cool
        on: {messages: uplink}
        nodes:
          - name: alarm
            raise_alarm: {type: cold, severity: minor}
            updated: stop
        """,
    )
    (found,) = cover(rules, scripts, COLD)

    assert found.outlets == 3
    assert [each.outlet for each in found.unreached] == ["otherwise", "updated"]


def test_only_chains_that_are_asked_for(rules: Any, scripts: Any) -> None:
    """`only` takes chains by name; other names have no coverage."""
    assert Coverage().of(rules.book(), {"acme/meter"}) == []
    assert [each.chain for each in Coverage().of(rules.book(), {"cool"})] == ["cool"]


def test_share_is_never_rounded_up() -> None:
    """Only what was reached whole is 100 %; nothing to reach is reached."""
    almost = ChainCoverage("c", "f", 1_000, 1_000, 1_001, 1_000)

    assert almost.percent == 99.9
    assert coverage.percent(()) == 100


def test_shown(rules: Any, scripts: Any) -> None:
    """People read each place; machines get all of it."""
    found = cover(rules, scripts, COLD)
    said = [line.text.strip() for line in coverage.lines(found)]

    assert said[:3] == [
        "42.8 %  cool",
        "chains/cool.yaml:4 which → tell",
        "chains/cool.yaml:10 warm → then",
    ]
    assert "chains/cool.yaml:13 remember  (never reached)" in said
    as_json: Any = coverage.as_json(found)
    assert as_json["percent"] == 42.8
    assert as_json["chains"][0]["unreached"][0] == {"node": "which", "outlet": "tell", "line": 4}
