"""The simulated application."""

from __future__ import annotations

from typing import Any

import aiohttp

from pipeline.demo.application import Application


async def test_repeats_are_known_by_their_key(serve: Any, session: aiohttp.ClientSession) -> None:
    """A message with a key that came before is a repeat; without keys all are messages."""
    application = Application()
    url = await serve(application) + "/messages"

    for key in ("a", "a", "b", None, None):
        headers = {} if key is None else {"Idempotency-Key": key}
        async with session.post(url, json={"key": key}, headers=headers) as answer:
            assert answer.status == 200
    async with session.post(url, data=b"{") as answer:
        assert answer.status == 400

    assert (application.messages, application.repeats) == (4, 1)
    assert [message["key"] for message in application.newest] == ["a", "b", None, None]
