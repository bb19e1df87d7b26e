"""What transports that write batches share: shaping each delivery, and finding the one at fault.

In: the deliveries of one call of `deliver`. Out: their results, in order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from pipeline.errors import MessageError
from pipeline.model.delivery import Delivery
from pipeline.sink.transport import DELIVERED, Result, Verdict

Made = TypeVar("Made")


def refused(error: MessageError) -> Result:
    """Return the verdict on a delivery whose message is at fault."""
    return Result(Verdict.REFUSED, error.code, error.message, error.detail)


def too_large(size: int, limit: int) -> MessageError:
    """Return the error of a message that the destination does not take for its size."""
    return MessageError(
        f"the message has {size:,} bytes; the destination takes {limit:,} (`bytes_max`)",
        code="too_large",
        size=size,
        limit=limit,
    )


async def one_by_one(
    batch: Sequence[Delivery], send: Callable[[Delivery], Awaitable[Result]]
) -> list[Result]:
    """Send each, in order; past one that is postponed none is tried, and all have its result."""
    results: list[Result] = []
    for delivery in batch:
        results.append(await send(delivery))
        if results[-1].verdict is Verdict.POSTPONED:
            break
    return [*results, *results[-1:] * (len(batch) - len(results))]


def make_all(
    batch: Sequence[Delivery], make: Callable[[Delivery], Made]
) -> tuple[list[Made], list[Result]]:
    """Return what was made of the deliveries that it can be made of, and a result for each:
    DELIVERED for those, which holds once they are written.
    """
    made: list[Made] = []
    results: list[Result] = []
    for delivery in batch:
        try:
            made.append(make(delivery))
        except MessageError as error:
            results.append(refused(error))
        else:
            results.append(DELIVERED)
    return made, results


async def write_halving(
    items: Sequence[Made], write: Callable[[Sequence[Made]], Awaitable[None]]
) -> list[Result]:
    """Write all at once; where the destination blames the data, halve until each bad item is
    alone. One result an item. `write` raises MessageError, having written nothing that a repeat
    would write twice; whatever else it raises is the whole batch's.
    """
    if not items:
        return []
    try:
        await write(items)
    except MessageError as error:
        if len(items) == 1:
            return [refused(error)]
        half = len(items) // 2
        first = await write_halving(items[:half], write)
        return [*first, *await write_halving(items[half:], write)]
    return [DELIVERED] * len(items)


class OfDevice(Protocol):
    """What was made of a delivery, with its device."""

    @property
    def device(self) -> str:
        """The device's name."""
        ...


def in_order(made: Sequence[OfDevice], results: Sequence[Result]) -> list[Result]:
    """Return the results, with what was taken of a device after one that was not postponed too: it
    is repeated in order.
    """
    held: dict[str, Result] = {}
    ordered = []
    for one, result in zip(made, results, strict=True):
        if result.verdict is Verdict.POSTPONED:
            held.setdefault(one.device, result)
        ordered.append(
            held.get(one.device, result) if result.verdict is not Verdict.REFUSED else result
        )
    return ordered


def merge(results: Sequence[Result], written: Sequence[Result]) -> list[Result]:
    """Return `results` with each DELIVERED replaced by the next of `written`."""
    following = iter(written)
    return [
        next(following) if result.verdict is Verdict.DELIVERED else result for result in results
    ]
