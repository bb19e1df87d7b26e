"""What those share who read a Kafka from asyncio, the pipeline's own or another's.

In: a consumer of aiokafka, in whatever state. Out: what there is to read, in a time that
holds; faults where the client gives none; and an end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.logs import get_logger

if TYPE_CHECKING:
    from aiokafka import TopicPartition

POLL_S = 0.5
STOP_S = 5.0
# Who waits for its log or its destination reads nothing for hours, and must stay in its group;
# whether the process lives is told by heartbeats.
POLL_INTERVAL_MAX_MS = 2**31 - 1

_log = get_logger(__name__)


def quiet() -> None:
    """Have the client say nothing: it tells each failed try, many a second; we say when that begins
    and ends.
    """
    noisy = logging.getLogger("aiokafka")
    if noisy.level == logging.NOTSET:
        noisy.setLevel(logging.CRITICAL)


@contextmanager
def only_our_cancellation() -> Iterator[None]:
    """Turn a cancellation that nobody asked for into a KafkaError.

    aiokafka cancels tasks of its own and awaits them; where the wrong step of such a task is hit,
    the cancellation reaches whoever called, who then would end without a word.
    """
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        from aiokafka.errors import KafkaError  # noqa: PLC0415 - an extra

        raise KafkaError("the client cancelled itself") from None


async def fetch(consumer: Any, records_max: int) -> Mapping[TopicPartition, list[Any]]:
    """Return what there is to read, after `POLL_S` at the latest nothing; while partitions move,
    after twice that.
    """
    try:
        # Where partitions begin to move, the client forgets its timeout and waits for the new
        # ones, and who moves them waits for us. What it has read stays with it.
        async with asyncio.timeout(2 * POLL_S):
            found: Mapping[TopicPartition, list[Any]] = await consumer.getmany(
                timeout_ms=round(POLL_S * 1_000), max_records=records_max
            )
    except TimeoutError:
        return {}
    return found


async def stop(consumer: Any) -> None:
    """Stop a client, whatever state it is in."""
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.wait({stopping}, timeout=STOP_S)
    if not stopping.done() or stopping.cancelled() or stopping.exception() is not None:
        stopping.cancel()
        _log.info("A consumer did not stop by itself.")
        # Its connections would stay open, and its tasks go on.
        parts = (consumer._fetcher, consumer._client)  # noqa: SLF001 - there is no other way
        closing = [part.close() for part in parts if part is not None]
        await asyncio.gather(stopping, *closing, return_exceptions=True)


def sticky() -> tuple[type[Any]]:
    """Return an assignment strategy that moves as few partitions as it can, for one consumer."""
    from aiokafka.coordinator.assignors.sticky.sticky_assignor import (  # noqa: PLC0415 - an extra
        StickyPartitionAssignor,
    )

    # aiokafka keeps what a member has in the assignor's class: a class for each reader.
    return (type("Sticky", (StickyPartitionAssignor,), {}),)
