"""An event of the past explained: by its id, with the state before it, and what that is."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.model.record import Outgoing
from pipeline.rehearse.explain_past import explain_past
from pipeline.rehearse.explanation import Explanation
from pipeline.rehearse.harness import Rehearsal, Stages
from pipeline.rehearse.messages import read_messages
from pipeline.rehearse.perform import Performer
from pipeline.rehearse.recorded import EmbeddedRecords
from pipeline.rehearse.trace import ChainRun, ScriptRun
from pipeline.stream import SqliteLog
from pipeline.topics import DEVICE_EVENTS, UPLINK_RECEIVED
from tests.unit.rehearse.recorded_engine import EngineRecords

FOX = b"""[
  {"uplink": {"integration": "fox", "device_id": "1A2B", "bytes": "05"}},
  {"uplink": {"integration": "fox", "device_id": "1A2B", "bytes": "1e"}},
  {"wait": "10m"},
  {"uplink": {"integration": "fox", "device_id": "1A2B", "bytes": "1f"}},
  {"attributes": {"device": "1A2B", "set": {"cooling": false}}}
]"""


@pytest.fixture
async def lived(rules: Any, scripts: Any) -> Rehearsal:
    """A rehearsal in which a meter said 5, 30 and, ten minutes later, 31 degrees."""
    rehearsal = Rehearsal(Stages(rules.book(), scripts))
    performer = Performer(rehearsal)
    for step in read_messages(FOX, "m"):
        await performer.do(step)  # type: ignore[arg-type]
    return rehearsal


async def told(
    rules: Any, scripts: Any, lived: Rehearsal, wanted: str, *, whole: bool = True
) -> Explanation:
    recorded = EngineRecords(lived, whole=whole)
    return await to_thread(explain_past, rules.book(), scripts, recorded, wanted)


def nodes(explanation: Explanation) -> list[list[str]]:
    return [
        [step.node for step in run.steps] for run in explanation.told if isinstance(run, ChainRun)
    ]


async def test_state_before_is_replayed(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """The state is what it was before the event, not what it is now."""
    second = await told(rules, scripts, lived, "r2")
    third = await told(rules, scripts, lived, "r3")

    assert second.start.kind == third.start.kind == "replayed"
    assert second.before["acme/1A2B"].get("attributes") is None
    assert nodes(second) == [["which", "keep", "warm", "remember"], ["which", "tell", "note"]]
    assert third.before["acme/1A2B"]["attributes"] == {"shared": {"cooling": True}}
    assert nodes(third) == [["which", "keep", "warm", "remember"]]


async def test_by_the_event_alone(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """An event's own id finds it, and the uplink that it came of, by its cause."""
    event = await told(rules, scripts, lived, "r2.0")

    assert nodes(event) == [["which", "keep", "warm", "remember"], ["which", "tell", "note"]]
    converted = event.told[0]
    assert isinstance(converted, ScriptRun)
    assert converted.argument["bytes"] == "1e"


async def test_uplink_is_decoded(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """The uplink as it was received goes through the converter; the downlink has its bytes."""
    second = await told(rules, scripts, lived, "r2")

    first_told = second.told[0]
    assert isinstance(first_told, ScriptRun)
    assert first_told.argument["bytes"] == "1e"
    (downlink,) = second.effects.downlinks
    assert downlink.shown["bytes"] == "01 00 00 00 00 00 00 00"


async def test_command(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """A command of the API is found, too: it runs the chains that a change of attributes runs."""
    records = lived.records(DEVICE_EVENTS)
    wanted = records[-1].headers["id"]
    command = await told(rules, scripts, lived, wanted)

    assert nodes(command) == [["which", "tell", "note"]]


async def test_today_stands_in(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """Where retention has deleted the device's first events, today's state is taken, and said."""
    second = await told(rules, scripts, lived, "r2", whole=False)

    assert second.start.kind == "today"
    assert "does not reach back" in second.start.text
    assert second.before["acme/1A2B"]["attributes"] == {"shared": {"cooling": False}}


async def test_other_rules_then(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """Where the rules have changed since, it says so, and by which it was recorded."""
    then = rules.book().version
    rules.write("sinks/third.yaml", "{transport: file, path: third.jsonl}\n")
    second = await told(rules, scripts, lived, "r2")

    assert then in second.notes[0]
    assert second.rules != then


async def test_uplink_that_failed(rules: Any, scripts: Any) -> None:
    """An uplink of which no event came is explained by its decoding and its dead letter."""
    rehearsal = Rehearsal(Stages(rules.book(), scripts))
    step = b'{"uplink": {"integration": "lora", "device_id": "a", "bytes": "0102"}}'
    await Performer(rehearsal).do(read_messages(step, "m")[0])  # type: ignore[arg-type]
    failed = await told(rules, scripts, rehearsal, "r1")

    (run,) = failed.told
    assert isinstance(run, ScriptRun)
    assert run.fault is not None
    assert failed.effects.dead_letters[0].shown["reason"] == "script_errors"


async def test_unknown(rules: Any, scripts: Any, lived: Rehearsal) -> None:
    """An id that the log does not have is the user's mistake."""
    with pytest.raises(UsageError, match="no event, uplink or command of the id nonsense"):
        await told(rules, scripts, lived, "nonsense")


async def test_embedded_log(rules: Any, scripts: Any, lived: Rehearsal, tmp_path: Any) -> None:
    """The embedded log's records give what the rehearsal's own gave."""
    path = tmp_path / "log" / "funicular.db"
    log = SqliteLog.open(path)
    for topic in (UPLINK_RECEIVED, DEVICE_EVENTS):
        await log.append(_outgoing(lived, topic))
    await to_thread(log.close)
    recorded = EmbeddedRecords(path)
    found = await to_thread(explain_past, rules.book(), scripts, recorded, "r2")

    assert nodes(found) == nodes(await told(rules, scripts, lived, "r2"))
    assert [each.offset for each in recorded.records(DEVICE_EVENTS, key="acme/none")] == []
    recorded.close()


def _outgoing(lived: Rehearsal, topic: str) -> Sequence[Outgoing]:
    return [
        Outgoing(each.topic, each.key, each.value, each.headers) for each in lived.records(topic)
    ]
