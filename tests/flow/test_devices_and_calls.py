"""Devices that tell each other, scripts, and calls, through all stages: what each topic holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from pipeline import topics
from pipeline.metrics import Registry
from pipeline.model.http import Request
from pipeline.model.record import TRACE_ID
from pipeline.rehearse.harness import Rehearsal, Stages
from pipeline.script import ScriptLimits
from pipeline.wiring import load_rules, script_port

FILES = {
    "funicular.yaml": "tenant: t\n",
    "integrations/room.yaml": """
dialect: http
authentication: open
options: {device_field: device}
synchronous: true
""",
    "sinks/archive.yaml": "transport: file\npath: ${env:ARCHIVE}\n",
    "chains/windows.yaml": """
chain: windows
on: {messages: uplink}
nodes:
  - name: a window
    filter: has(telemetry.open)
  - name: word
    script: |
      msg.word = msg.open ? "open" : "shut";
      return {msg: msg, metadata: metadata, msgType: msgType};
  - name: its room
    relate: {relation: contains, from: "${telemetry.room}", only: true}
  - name: tell the room
    tell: {related: contains, way: from, what: window, device_type: room}
""",
    "chains/rooms.yaml": """
chain: rooms
on: {messages: told, device_type: room}
nodes:
  - name: keep
    set_attributes: {scope: server, values: {window: "${telemetry.word}"}}
  - name: tell the valves
    tell: {to: "${attributes.server.valves}", what: window}
""",
    "chains/valves.yaml": """
chain: valves
on: {messages: told}
nodes:
  - name: is a valve
    filter: device.name.startsWith("valve")
  - name: close
    call_device:
      payload: {close: true, number: "${metadata.call.number}"}
      reply: telemetry.number == metadata.call.number
      timeout: 10m
    timeout: late
  - name: done
    set_attributes: {scope: server, values: {at: "${metadata.reply.telemetry.at}"}}
    then: stop
  - name: late
    set_attributes: {scope: server, values: {at: unknown}}
""",
}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    folder = tmp_path_factory.mktemp("rules")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text.lstrip())
    scripts = script_port(ScriptLimits(), Registry())
    book = load_rules([folder], scripts, {"ARCHIVE": str(folder / "archive.jsonl")})["t"]
    yield Stages(book, scripts)
    scripts.close()


async def say(flow: Rehearsal, device: str, **fields: Any) -> dict[str, Any]:
    """Let a device say something, and return what the answer carries."""
    answer = await flow.enter("room", Request(orjson.dumps({"device": device, **fields})))
    assert answer.status in {200, 202, 204}, answer.body
    said: dict[str, Any] = orjson.loads(answer.body) if answer.body else {}
    return said


async def building(stages: Stages) -> Rehearsal:
    """A window in a room with a valve."""
    flow = Rehearsal(stages)
    await say(flow, "valve-1", at=50)
    await flow.ask("PATCH", "room-1", "attributes/server", body=b'{"valves": ["valve-1"]}')
    return flow


async def attributes(flow: Rehearsal, device: str) -> dict[str, Any]:
    answer = await flow.ask("GET", device, "attributes/server")
    found: dict[str, Any] = orjson.loads(answer.body)
    return found


def letters(flow: Rehearsal) -> list[Any]:
    return [orjson.loads(record.value or b"") for record in flow.records(topics.DEAD_LETTER)]


async def test_from_a_window_to_a_valve_and_back(stages: Stages) -> None:
    """A window tells its room, the room its valve; the valve's downlink waits for its next uplink,
    and the one after it, with the call's number, is the reply.
    """
    flow = await building(stages)

    await say(flow, "window-1", open=True, room="room-1")
    assert (await attributes(flow, "room-1"))["window"] == "open"
    answer = await say(flow, "valve-1", at=50)
    assert (await attributes(flow, "valve-1")) == {}
    await say(flow, "valve-1", number=1, at=0)

    assert letters(flow) == []
    assert answer["downlinks"][0]["fields"] == {"close": True, "number": 1}
    assert await attributes(flow, "valve-1") == {"at": 0}
    events = [out for out in flow.journal if out.topic == topics.DEVICE_EVENTS]
    told = [out for out in events if b'"teller":' in (out.value or b"")]
    assert [out.key for out in told] == ["t/room-1", "t/valve-1"]
    assert len({out.headers[TRACE_ID] for out in told}) == 1


async def test_a_valve_that_does_not_reply(stages: Stages) -> None:
    """After the time the chain goes on by `timeout`; a reply that comes then is an uplink only."""
    flow = await building(stages)
    await say(flow, "window-1", open=True, room="room-1")

    await flow.wait(600_000)
    await say(flow, "valve-1", number=1, at=0)

    assert await attributes(flow, "valve-1") == {"at": "unknown"}


async def test_the_downlink_expires_with_the_call(stages: Stages) -> None:
    """What was asked too long ago does not leave any more."""
    flow = await building(stages)
    await say(flow, "window-1", open=True, room="room-1")
    await flow.wait(600_000)

    answer = await say(flow, "valve-1", at=50)

    assert answer.get("downlinks", []) == []
