"""The page of nodes: whole, true to the files, and with each of ThingsBoard's nodes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.rehearse.node_page import main, page, section
from pipeline.rehearse.thingsboard.counterparts import COUNTERPARTS
from pipeline.route.node import example, nodes
from pipeline.sink.transport import transports

PAGE = Path(__file__).parents[3] / "docs/nodes.md"

# ThingsBoard 4's `@RuleNode` annotations, by category.
THINGSBOARD = {
    "Filter": "alarm status filter, asset profile switch, device profile switch, check fields "
    "presence, check relation presence, entity type filter, entity type switch, gps geofencing "
    "filter, message type filter, message type switch, script, switch",
    "Enrichment": "calculate delta, customer attributes, customer details, fetch device "
    "credentials, originator attributes, originator fields, originator telemetry, related device "
    "attributes, related entity data, tenant attributes, tenant details",
    "Transformation": "change originator, copy key-value pairs, deduplication, delete key-value "
    "pairs, json path, rename keys, script, split array msg, to email",
    "Action": "assign to customer, unassign from customer, calculated fields and alarm rules, "
    "create alarm, clear alarm, copy to view, create relation, delete relation, delay, delete "
    "attributes, device profile, device state, generator, gps geofencing events, log, math "
    "function, message count, push to cloud, push to edge, rest call reply, rpc call reply, rpc "
    "call request, save attributes, save time series, save to custom table, synchronization "
    "start, synchronization end",
    "External": "AI request, aws lambda, aws sns, aws sqs, azure iot hub, gcp pubsub, kafka, mqtt, "
    "rabbitmq, rest api call, send email, send notification, send sms, send to slack",
    "Flow": "acknowledge, checkpoint, rule chain, output",
}


def test_page_is_made_from_the_files() -> None:
    """The page in docs/ is what the generator makes: `python -m pipeline.rehearse.node_page
    docs/nodes.md` after a change of a node.
    """
    assert PAGE.read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("verb", nodes())
def test_each_node_has_its_section(verb: str) -> None:
    """What it does, each option, each outlet, and the example that runs as a test."""
    node = nodes()[verb]
    made = section(verb, node)

    assert f"## {verb}\n" in made
    assert example(node).rstrip() in made
    for outlet in node.outlets:
        assert f"| `{outlet}` |" in made
    assert f"| `{verb}` |" in made
    assert "any value. any" not in made
    assert made in page()


def test_an_option_is_told_with_its_default() -> None:
    """Kind, default and meaning of an option stand in one row."""
    made = section("remote_call", nodes()["remote_call"])

    assert "| `remote_call.timeout` | `30s` | duration. How long to wait for the answer. |" in made
    assert "| `remote_call.into` | `metadata.reply` |" in made


def test_each_of_thingsboards_nodes_is_told() -> None:
    """All 77 are there, each once, by their names."""
    told = {category: [row.name for row in rows] for category, rows in COUNTERPARTS.items()}

    assert told == {category: names.split(", ") for category, names in THINGSBOARD.items()}
    assert sum(map(len, told.values())) == 77


@pytest.mark.parametrize(
    "row", [row for rows in COUNTERPARTS.values() for row in rows], ids=lambda row: row.name
)
def test_what_is_told_is_there(row: object) -> None:
    """A counterpart names nodes and sinks that there are, or says why there is none."""
    name, kind, how = row  # type: ignore[misc]  # a NamedTuple
    words = {word.partition(":")[0] for word in re.findall(r"`([^`]+)`", how)}
    named_nodes, named_sinks = words & set(nodes()), words & set(transports())
    if kind == "node":
        assert named_nodes or "on" in words, name
    elif kind == "sink":
        assert named_sinks, name
    else:
        assert len(how) > 7
    for sinks in re.findall(r"sink ((?:`\w+`(?:, | or )?)+)", how):
        assert set(re.findall(r"`(\w+)`", sinks)) <= set(transports()), name


def test_where_it_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To a file, to standard output, or, with too much said, nowhere."""
    assert main([str(tmp_path / "nodes.md")]) == 0
    assert main([]) == 0
    assert main(["a", "b"]) == 2

    said = capsys.readouterr()
    assert (tmp_path / "nodes.md").read_text() == said.out == page()
    assert said.err.startswith("usage:")
