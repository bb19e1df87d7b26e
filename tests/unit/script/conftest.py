"""Engines in this process, without the kernel's clock: SIGPROF would end the test run."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from pipeline.script import javascript, lua, tbel_engine
from pipeline.script.frames import Request
from pipeline.script.limits import ScriptLimits
from pipeline.script.tables import part_of

Run = Callable[..., list[dict[str, Any]]]


class EngineRun:
    """Runs requests on one engine and gathers its outcomes; `parts` are the frames it emitted."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.parts: list[bytes] = []

    def __call__(
        self,
        source: str,
        *arguments: dict[str, Any],
        operation: str = "decode_uplink",
        contract: str = "lorawan",
        careful: bool = False,
        console: bool = False,
    ) -> list[dict[str, Any]]:
        given = arguments or ({"bytes": "AQI=", "fPort": 1},)
        header = {
            "operation": operation,
            "contract": contract,
            "count": len(given),
            "careful": careful,
            "console": console,
        }
        self.parts = []
        request = Request(header, source.encode(), json.dumps(given).encode())
        self.engine.run(request, self.parts.append)
        left = len(given)
        outcomes: list[dict[str, Any]] = []
        for frame in self.parts:
            part = part_of(json.loads(frame), left - len(outcomes))
            others = dict(part.others)
            outcomes += (others.get(n, {"value": each}) for n, each in enumerate(part.values))
        return outcomes

    def value(self, source: str, *arguments: dict[str, Any], **more: Any) -> Any:
        """Run one call and return its value."""
        (outcome,) = self(source, *arguments, **more)
        assert "value" in outcome, outcome
        return outcome["value"]

    def error(self, source: str, *arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Run one call and return its error."""
        (outcome,) = self(source, *arguments, **more)
        assert "error" in outcome, outcome
        return outcome["error"]


LIMITS = asdict(ScriptLimits(call_ms=50, contexts_max=2, memory_bytes=16 << 20))


@pytest.fixture
def javascript_run(monkeypatch: pytest.MonkeyPatch) -> EngineRun:
    monkeypatch.setattr(javascript, "arm", lambda seconds: None)
    return EngineRun(javascript.JavaScript(LIMITS))


@pytest.fixture
def tbel_run(monkeypatch: pytest.MonkeyPatch) -> EngineRun:
    monkeypatch.setattr(javascript, "arm", lambda seconds: None)
    return EngineRun(tbel_engine.Tbel(LIMITS))


@pytest.fixture
def lua_run(monkeypatch: pytest.MonkeyPatch) -> EngineRun:
    monkeypatch.setattr(lua, "arm", lambda seconds: None)
    return EngineRun(lua.Lua(LIMITS))


@pytest.fixture
def encode_base64() -> Callable[[bytes], str]:
    return lambda data: base64.b64encode(data).decode()
