"""The rules of the bench do the bench's job: all stages in one process, no log on disk."""

from __future__ import annotations

import orjson
import pytest

from pipeline import topics
from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.script import ScriptLimits
from pipeline.stream.memory import MemoryEngine
from pipeline.wiring import load_rules, script_port, stages
from tests.bench.peers.contestants import RULES, whole_of
from tests.bench.peers.job import TENANT, faults, uplink

COUNT, DEVICES = 400, 25


@pytest.mark.parametrize("codec", ["js", "lua"])
def test_the_rules_do_the_job(codec: str) -> None:
    """Deliveries, downlinks and state are those that the job's check asks of every peer."""
    scripts = script_port(ScriptLimits(), Registry())
    try:
        books = load_rules([RULES], scripts, {})
        engine = MemoryEngine(stages(lambda: books, scripts, Registry()))
        for number in range(COUNT):
            sent = uplink(number, DEVICES, codec)
            headers = {name: value.decode() for name, value in sent.headers}
            engine.append([Outgoing(topics.UPLINK_RECEIVED, sent.key, sent.value, headers)])
        engine.run_until_idle()
    finally:
        scripts.close()

    def values(topic: str) -> list[object]:
        return [orjson.loads(record.value or b"{}") for record in engine.records(topic)]

    found = whole_of(
        values(topics.delivery_topic(TENANT, "archive")),
        values(topics.DOWNLINK_STATUS),
        engine.state("route"),
    )
    assert faults(found, COUNT, DEVICES, once=True) == []
    assert values(topics.DEAD_LETTER) == []
