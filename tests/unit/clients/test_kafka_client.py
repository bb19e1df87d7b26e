"""Reading from a client that behaves as aiokafka does where partitions move."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.clients import kafka
from pipeline.clients.kafka import fetch


class Client:
    """Gives what it has; with nothing to give it stands still, as while partitions move."""

    def __init__(self, **held: list[Any]) -> None:
        self.held = held
        self.asked: dict[str, Any] = {}

    async def getmany(self, **asked: Any) -> dict[str, list[Any]]:
        self.asked = asked
        if not self.held:
            await asyncio.Event().wait()
        return self.held


async def test_what_the_client_has_is_returned() -> None:
    """A fetch asks for so many records within its time, and gives on what came."""
    client = Client(place=[1, 2])
    assert await fetch(client, 7) == {"place": [1, 2]}
    assert client.asked == {"timeout_ms": kafka.POLL_S * 1_000, "max_records": 7}


async def test_a_client_that_forgets_its_timeout_is_waited_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fetch returns with nothing where the client stands still, and is no fault."""
    monkeypatch.setattr(kafka, "POLL_S", 0.01)
    async with asyncio.timeout(10):
        assert await fetch(Client(), 7) == {}
