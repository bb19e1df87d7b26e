"""`funicular import thingsboard`: what it writes, what it says was lost, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli import main


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A chain that keeps what is warm, and a node that has no like here."""
    made = {
        "ruleChain": {"name": "Warm rooms", "root": True},
        "metadata": {
            "firstNodeIndex": 0,
            "nodes": [
                {
                    "type": "org.thingsboard.rule.engine.filter.TbJsFilterNode",
                    "name": "Warm?",
                    "configuration": {"scriptLang": "TBEL", "tbelScript": "return msg.t > 20;"},
                },
                {
                    "type": "org.thingsboard.rule.engine.edge.TbMsgPushToCloudNode",
                    "name": "Push",
                    "configuration": {},
                },
                {
                    "type": "org.thingsboard.rule.engine.telemetry.TbMsgTimeseriesNode",
                    "name": "Save",
                    "configuration": {},
                },
            ],
            "connections": [
                {"fromIndex": 0, "toIndex": 1, "type": "True"},
                {"fromIndex": 1, "toIndex": 2, "type": "Success"},
            ],
            "ruleChainConnections": None,
        },
    }
    path = tmp_path / "warm.json"
    path.write_text(json.dumps(made))
    return path


def run(*words: object) -> tuple[int, str, str]:
    ended = CliRunner().invoke(main, ["import", "thingsboard", *map(str, words)])
    return ended.exit_code, ended.stdout, ended.stderr


def test_it_is_printed(export: Path) -> None:
    """Without a folder the chain is printed, and what was lost is said beside it and in it."""
    code, out, said = run(export)

    assert code == 0
    assert out == (
        "# chains/warm-rooms.yaml\n"
        "chain: warm-rooms\n"
        "about: Imported from ThingsBoard's rule chain `Warm rooms`.\n"
        "on: {messages: uplink}\n"
        "nodes:\n"
        "  - name: Warm?\n"
        "    filter: has(telemetry.t) && telemetry.t > 20\n"
        "  # (Push) there is no edge and no cloud: `send` to a sink; messages go on without it\n"
        "  - name: Save\n"
        "    send: {to: timeseries}\n"
        "\n"
        "# sinks/timeseries.yaml\n"
        "# What ThingsBoard kept as time series: every message, as JSON lines.\n"
        "transport: file\n"
        "path: data/timeseries.jsonl\n"
        "\n"
    )
    assert "Warm rooms / Push: there is no edge" in said
    assert "1 note on what could not be carried over" in said


def test_it_is_written_and_right(export: Path, tmp_path: Path) -> None:
    """What is written passes `check`; it replaces nothing unless told so."""
    folder = tmp_path / "rules"

    assert run(export, "-o", folder)[0] == 0
    checked = CliRunner().invoke(main, ["check", "--strict", str(folder)])
    assert checked.exit_code == 0, checked.output

    code, _, said = run(export, "-o", folder)
    assert (code, "is there already" in said) == (2, True)
    assert run(export, "-o", folder, "--force")[0] == 0


def test_for_machines(export: Path) -> None:
    """As JSON: a line a file, a line a loss."""
    _, out, _ = run(export, "--json")
    lines = [orjson.loads(line) for line in out.splitlines()]

    assert [line["file"] for line in lines[:2]] == [
        "chains/warm-rooms.yaml",
        "sinks/timeseries.yaml",
    ]
    assert (lines[2]["chain"], lines[2]["node"]) == ("Warm rooms", "Push")


def test_what_is_no_export(tmp_path: Path) -> None:
    """Another file is the user's mistake, told in a sentence."""
    (tmp_path / "x.json").write_text("[]")
    code, _, said = run(tmp_path / "x.json")

    assert code == 2
    assert "is no exported rule chain of ThingsBoard" in said
