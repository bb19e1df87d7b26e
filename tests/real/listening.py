"""What the tests of transports on which Funicular listens share: a worker of one's own log, whose
devices can be answered.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from pipeline.rulebook.book import Integration
from tests.real.servers import free_port
from tests.real.source_work import WITHIN_S, HeldLog, Process, running, until
from tests.real.source_work import integration as any_integration

__all__ = ["BY_QUERY", "WITHIN_S", "Worker", "integration", "listening", "until"]

BY_QUERY = {"device_query": "device"}


class Worker(Process):
    """A process with a log of its own."""

    def __init__(self, *integrations: Integration, instance: str = "i1") -> None:
        super().__init__(HeldLog(), *integrations, instance=instance)


def integration(transport: str, options: dict[str, Any] | None = None, **given: Any) -> Integration:
    """Return an integration of the dialect `http` over a transport, on a free port."""
    made = any_integration("http", transport, options, **{"port": free_port(), **given})
    return replace(
        made, name="meters", synchronous=True, answer_timeout_s=2, body_bytes_max=100_000
    )


@asynccontextmanager
async def listening(worker: Worker) -> AsyncIterator[int]:
    """Let a worker listen; gives the port. Nothing that a client does is a bug of ours."""
    async with running(worker):
        (only,) = worker.book.values()
        yield only.connection.port
