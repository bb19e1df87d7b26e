"""The table of topics, held against the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from pipeline import topics
from pipeline.convert.stage import Convert
from pipeline.downlink.stage import DownlinkStage
from pipeline.route.stage import Route

ROOT = Path(__file__).parents[2]
STAGES = [Convert, Route, DownlinkStage]
ROOMS = {"ingest", "convert", "route", "downlink", "sink"}
CONSTANTS = {
    name: value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str)
}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_stage_reads_its_topic(stage: type) -> None:
    """The topic that a stage reads names it as its only reader."""
    assert topics.topic_of(stage.topic).readers == (stage.name,)
    assert [t.name for t in topics.TOPICS if stage.name in t.readers] == [stage.topic]


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_room_names_only_its_topics(room: str) -> None:
    """A room's code names no topic that the table does not give it."""
    allowed = {
        topic.name
        for topic in topics.TOPICS
        if room in topic.writers
        or room in topic.readers
        or (topic.compacted and topic.writers == (room,))
    }
    named = set()
    for path in (ROOT / "pipeline" / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in CONSTANTS:
                named.add(CONSTANTS[node.attr])
            elif isinstance(node, ast.Name) and node.id in CONSTANTS:
                named.add(CONSTANTS[node.id])
            elif isinstance(node, ast.Call) and "delivery_topic" in ast.dump(node.func):
                named.add(topics.DELIVERY_PREFIX)

    assert named <= allowed


def test_no_topic_is_spelled_out() -> None:
    """Topic names stand in the table only; code uses its constants."""
    names = [topic.name for topic in topics.TOPICS if "." in topic.name.rstrip(".")]
    pattern = re.compile("|".join(rf'"{re.escape(name)}"' for name in names))
    offenders = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "pipeline").rglob("*.py")
        if path.name not in {"topics.py", "dead_letter.py"} and pattern.search(path.read_text())
    ]

    assert offenders == []
