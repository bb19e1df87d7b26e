"""Every record that a stage writes says which version of the rules made it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from pipeline import topics
from pipeline.metrics import Registry
from pipeline.model.record import RULES_VERSION, Outgoing
from pipeline.ports import Batch, DeviceState, ScriptPort, Stage
from pipeline.rehearse.chain_tests import load_chain_tests, run_chain_test
from pipeline.rehearse.harness import Stages
from pipeline.script import ScriptLimits
from pipeline.wiring import load_rules, script_port
from tests.rules.folders import FOLDERS


class Witness:
    """A stage that keeps what it wrote."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.name, self.topic, self.state_topic = stage.name, stage.topic, stage.state_topic
        self.written: list[Outgoing] = []

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> Sequence[Outgoing]:
        made = self._stage.handle(batch, state, now_ms)
        self.written += made
        return made


@pytest.fixture(scope="module")
def scripts() -> Iterator[ScriptPort]:
    port = script_port(ScriptLimits(), Registry())
    yield port
    port.close()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_output_names_its_rules(folder: Path, scripts: ScriptPort) -> None:
    """Whatever the tests of an example bring about (events, downlinks, their life, deliveries,
    answers, dead letters), each stage writes the version of the rules beside it.
    """
    (book,) = load_rules([folder], scripts, {}).values()
    witnesses: list[Witness] = []

    async def run() -> None:
        for wanted, tests in groupby(load_chain_tests(book), key=lambda test: test.chains):
            kept = book.chains if wanted is None else {name: book.chains[name] for name in wanted}
            stages = Stages(replace(book, chains=kept), scripts)
            made = [Witness(stage) for stage in stages.all]
            stages.all = list(made)
            witnesses.extend(made)
            for test in tests:
                assert (await run_chain_test(stages, test)).ok, test.name

    asyncio.run(run())

    written = [out for each in witnesses for out in each.written]
    assert {topics.DEVICE_EVENTS, topics.DOWNLINK_STATUS} <= {out.topic for out in written}
    unnamed = {out.topic for out in written if out.headers.get(RULES_VERSION) != book.version}
    assert unnamed == set()
