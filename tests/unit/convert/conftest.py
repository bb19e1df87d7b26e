"""Convert with rulebooks built by hand and scripts that are Python functions."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.convert.stage import Convert
from pipeline.errors import ScriptError
from pipeline.integrations.dialect import dialects
from pipeline.metrics import Registry
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.event import DeviceEvent, DeviceMessage
from pipeline.model.http import Request
from pipeline.model.record import (
    CE_ID,
    CE_INTEGRATION,
    CE_TENANT,
    HTTP_HEADERS,
    HTTP_METHOD,
    HTTP_QUERY,
    REPLY_TO,
    Outgoing,
    Record,
)  # fmt: skip
from pipeline.model.reply import Reply, ReplyTo
from pipeline.ports import Batch, DeviceState, Script, ScriptCall
from pipeline.rulebook.book import Authentication, Converter, Integration, Rulebook

RECORD_MS = 1_700_000_000_000
NOW_MS = RECORD_MS + 500

Function = Callable[[ScriptCall], Any]


class Scripts:
    """Runs Python functions by the scripts' paths; a function that raises gives the ScriptError."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.batches: list[list[ScriptCall]] = []

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        self.batches.append(list(calls))
        return [self._one(call) for call in calls]

    def _one(self, call: ScriptCall) -> Any:
        try:
            return self.functions[call.script.path](call)
        except ScriptError as fault:
            return fault

    def close(self) -> None:
        pass


class World:
    """One tenant `acme`, its integrations and converters, and the stage that runs them."""

    def __init__(self) -> None:
        self.scripts = Scripts()
        self.metrics = Registry()
        self.integrations: dict[str, Integration] = {}
        self.converters: dict[str, Converter] = {}
        self.offset = 0
        self.stage = Convert(lambda: {"acme": self.book()}, self.scripts, self.metrics)

    def book(self) -> Rulebook:
        return Rulebook("acme", Path("rules"), "v1", self.integrations, self.converters, {}, {})

    def integration(
        self,
        name: str,
        dialect: str,
        function: Function | None = None,
        *,
        contract: Any = None,
        options: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        """Add an integration; with `function`, also a converter whose decoder it is."""
        spoken = dialects()[dialect]
        given: dict[str, Any] = {
            "tenant": "acme",
            "name": name,
            "dialect": spoken,
            "options": spoken.options(**(options or {})),
            "authentication": Authentication(),
            "device_template": "{device_id}",
            "converter": None,
            "synchronous": spoken.synchronous,
            "answer_timeout_s": spoken.answer_timeout_s,
            "unanswered": "requeue",
            "queue_max": 10,
            "body_bytes_max": 2**20,
            "ordered": True,
            "metadata": {},
            "device_type": "",
        }
        if function is not None:
            path = f"converters/acme/{name}.js"
            self.scripts.functions[path] = function
            script = Script(path, "javascript", "…")
            self.converters[f"acme/{name}"] = Converter(
                f"acme/{name}", f"converters/acme/{name}.yaml", contract, script, None
            )
            given["converter"] = f"acme/{name}"
        self.integrations[name] = Integration(**{**given, **more})

    def record(self, integration: str, request: Request, **headers: str) -> Record:
        """Return the record that the door makes of a request."""
        self.offset += 1
        given = {
            CE_ID: f"u{self.offset}",
            CE_TENANT: "acme",
            CE_INTEGRATION: integration,
            HTTP_METHOD: request.method,
            HTTP_QUERY: msgspec.json.encode(request.query).decode(),
            HTTP_HEADERS: msgspec.json.encode(request.headers).decode(),
        }
        key = f"acme/{integration}"
        return Record("uplink.received", 0, self.offset, RECORD_MS, key, request.body,
                      {**given, **headers})  # fmt: skip

    def run(self, *records: Record) -> Out:
        state = DeviceState(lambda _key: {})
        out = Out(self.stage.handle(Batch(0, records), state, NOW_MS))
        assert state.changes == {}
        return out


class Out:
    """What the stage appended, by topic, decoded."""

    def __init__(self, records: list[Outgoing]) -> None:
        self.records = records

    def _of(self, topic: str) -> list[Outgoing]:
        return [record for record in self.records if record.topic == topic]

    @property
    def event_records(self) -> list[Outgoing]:
        return self._of("device.events")

    @property
    def events(self) -> list[Any]:
        return [
            msgspec.json.decode(record.value or b"", type=DeviceEvent)
            for record in self.event_records
        ]

    @property
    def message(self) -> DeviceMessage:
        """The one message, where nothing else came out."""
        assert len(self.records) == 1, self.records
        (event,) = self.events
        assert isinstance(event, DeviceMessage)
        return event

    @property
    def letters(self) -> list[DeadLetter]:
        return [
            msgspec.json.decode(record.value or b"", type=DeadLetter)
            for record in self._of("dead.letter")
        ]

    @property
    def letter(self) -> DeadLetter:
        """The one dead letter, where nothing else came out."""
        assert len(self.records) == 1, self.records
        (letter,) = self.letters
        return letter

    @property
    def replies(self) -> list[Reply]:
        return [
            msgspec.json.decode(record.value or b"", type=Reply) for record in self._of("reply")
        ]


def waiting(request: str = "r1") -> dict[str, str]:
    """Return the header of a request that waits."""
    reply_to = ReplyTo("ingest-1", request, RECORD_MS + 9_000, partition=3)
    return {REPLY_TO: msgspec.json.encode(reply_to).decode()}


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def first_byte() -> Function:
    """Return a decoder of the LoRaWAN contract: the first byte is the temperature."""

    def decode(call: ScriptCall) -> Any:
        return {"data": {"temperature": b64decode(call.argument["bytes"])[0]}, "warnings": []}

    return decode


@pytest.fixture
def wait() -> Callable[..., dict[str, str]]:
    """Return a maker of the headers that a waiting request's record has."""
    return waiting
