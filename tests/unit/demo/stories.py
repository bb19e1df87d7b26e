"""Device events and downlinks as a feed gives them, for the tests of what looks at them."""

from __future__ import annotations

from typing import Any

from pipeline.demo.news import News
from pipeline.metrics import Registry
from pipeline.model.downlink import Downlink, State
from pipeline.model.event import DeviceMessage


def said(kind: str, time_ms: int, **telemetry: Any) -> DeviceMessage:
    return DeviceMessage(
        id=f"e{time_ms}", type="uplink", tenant="demo", device=f"acme:{kind}-1", integration="i",
        time_ms=time_ms, received_ms=time_ms, device_type=kind, telemetry=telemetry,
    )  # fmt: skip


def life(kind: str, time_ms: int, *states: State, id_: str = "d1", **fields: Any) -> list[Downlink]:
    return [
        Downlink(
            id=id_, tenant="demo", device=f"acme:{kind}-1", integration="i", state=state,
            requested_ms=time_ms, changed_ms=time_ms + number, fields=fields,
            payload=None if state is State.REQUESTED else b"\1\0\xdc",
            source=f"{kind}s/tell the device",
        )
        for number, state in enumerate(states)
    ]  # fmt: skip


class ScriptedFeed:
    """Gives one News a poll, then nothing new."""

    def __init__(self, *news: News) -> None:
        self.metrics = Registry()
        self._news = list(news)

    def poll(self) -> News:
        return self._news.pop(0) if self._news else News()
