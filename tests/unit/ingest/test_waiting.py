"""Requests that wait, and the parts that they wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from pipeline.ingest.waiting import Waiting
from pipeline.model.reply import Reply


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_all_parts_end_the_wait_in_order() -> None:
    """A request gets its parts in their order, however they come, as soon as the last is there."""

    async def work() -> None:
        waiting = Waiting("i", 10)
        waiter = waiting.open("r")
        assert waiter is not None
        for part in (3, 1, 2):
            assert waiting.deliver(Reply("r", device=f"d{part}", part=part, of=3))

        replies = await waiter.replies(60)

        assert [reply.device for reply in replies] == ["d1", "d2", "d3"]

    run(work())


def test_the_deadline_gives_what_is_there() -> None:
    """When the time is up, the parts that came are given, and none is taken any more."""

    async def work() -> None:
        waiting = Waiting("i", 10)
        waiter = waiting.open("r")
        assert waiter is not None
        waiting.deliver(Reply("r", part=1, of=2, downlink_id="one"))

        replies = await waiter.replies(0)

        assert [reply.downlink_id for reply in replies] == ["one"]
        assert not waiting.deliver(Reply("r", part=2, of=2, downlink_id="two"))
        assert await waiter.replies(0) == replies

    run(work())


def test_a_part_that_comes_again_is_not_late() -> None:
    """A repeated part changes nothing, and is known as answered after the answer too; another
    downlink in its place is late.
    """

    async def work() -> None:
        waiting = Waiting("i", 10)
        waiter = waiting.open("r")
        assert waiter is not None
        part = Reply("r", downlink_id="one")

        assert waiting.deliver(part)
        assert waiting.deliver(part)
        assert not waiting.deliver(Reply("r", downlink_id="two"))
        waiting.close(waiter, ["one"])
        assert waiting.deliver(part)
        assert not waiting.deliver(Reply("r", downlink_id="two"))
        assert await waiter.replies(0) == [part]

    run(work())


def test_places_are_limited_and_given_back() -> None:
    """One more than the limit has no place, until another is given back; what was answered is
    remembered for as many.
    """

    async def work() -> None:
        waiting = Waiting("i", 2)
        first, second = waiting.open("a"), waiting.open("b")
        assert first is not None
        assert second is not None
        assert waiting.open("c") is None

        waiting.close(first, ["x"])

        assert len(waiting) == 1
        for name in "cdef":
            waiter = waiting.open(name)
            assert waiter is not None
            waiting.close(waiter, [f"down-{name}"])
        assert len(waiting._answered) == 2
        assert waiting.deliver(Reply("f", downlink_id="down-f"))
        assert not waiting.deliver(Reply("a", downlink_id="x"))

    run(work())


def test_closing_down_ends_every_wait() -> None:
    """`expire_all` wakes all with what they have."""

    async def work() -> None:
        waiting = Waiting("i", 10)
        waiters = [waiting.open(str(i)) for i in range(5)]
        waiting.deliver(Reply("3", of=2, device="d"))
        asyncio.get_running_loop().call_soon(waiting.expire_all)

        all_replies = await asyncio.gather(*(w.replies(60) for w in waiters if w is not None))

        assert [len(replies) for replies in all_replies] == [0, 0, 0, 1, 0]

    run(work())


def test_a_reply_for_nobody_is_told() -> None:
    """A reply for a request that never waited here is not taken."""

    async def work() -> None:
        assert not Waiting("i", 10).deliver(Reply("nobody", downlink_id="x"))

    run(work())
