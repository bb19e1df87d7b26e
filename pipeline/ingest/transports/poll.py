"""The source that asks: a web API is read at an interval, on from a cursor.

In: answers of an HTTP API, page by page. A cursor is kept in the same step as the messages that it
is of, so that after any end the next round begins where the last one was stored; what comes again
all the same (an overlap, a round that was not finished) is known by the messages that are
remembered, and past those by the dialect's repeat key.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from pipeline.errors import MessageError
from pipeline.ingest.source import Context, Fetcher, Health, Inlet, SourceError
from pipeline.model.http import Call, Response
from pipeline.rulebook.connections.polled_api import PollConfig

from .polled import Answer, Message, State, kept_state, plan_of


class PollSource:
    """See `source.Source`."""

    name = "poll"
    Config = PollConfig

    def __init__(self, config: PollConfig, context: Context) -> None:
        self._config = config
        self._context = context
        self._plan = plan_of(context.integration)

    async def run(self, inlet: Inlet, health: Health) -> None:
        """See `source.Source`."""
        config, context = self._config, self._context
        if context.fetching is None:
            raise SourceError("this process asks no web addresses")
        fetch = context.fetching(
            timeout_s=config.timeout, bytes_max=config.bytes_max, tls=config.tls
        )
        loop = asyncio.get_running_loop()
        connected = False
        try:
            state = kept_state(await inlet.cursor(), config.start)
            while True:
                begun_s = loop.time()
                state, ended = await _Round(self, fetch, inlet, state).run()
                if not connected:
                    connected = True
                    health.connected()
                if ended:
                    await asyncio.sleep(max(0.0, begun_s + config.interval - loop.time()))
        finally:
            await fetch.close()

    async def ask(self, fetch: Fetcher, state: State, page: Any) -> Answer:
        """Ask once. RetryableError: there was no answer, or none that can be used."""
        call: Call = self._plan.call(state.cursor, page, self._context.now_ms())
        try:
            response: Response = await fetch(call)
        except MessageError as error:
            raise SourceError(error.message) from None
        return self._plan.read(response, state.cursor, page)

    @property
    def config(self) -> PollConfig:
        """The integration's `connection:`."""
        return self._config

    @property
    def batch_max(self) -> int:
        """Messages that are stored in one step."""
        return self._context.batch_max


class _Round:
    """All pages of one round. The cursor moves with its last step: until then a repeat asks for the
    whole round again, whose messages are remembered.
    """

    def __init__(self, source: PollSource, fetch: Fetcher, inlet: Inlet, state: State) -> None:
        self._source = source
        self._fetch = fetch
        self._inlet = inlet
        self._begun = state
        self._state = state
        self._reached: Any = None
        self._seen = set(state.seen)

    async def run(self) -> tuple[State, bool]:
        """Return the state that is kept now, and whether all pages were read."""
        config = self._source.config
        page: Any = None
        for number in range(1, config.pages_max + 1):
            answer = await self._source.ask(self._fetch, self._begun, page)
            self._reach(answer.cursor)
            ended = answer.page is None or answer.page == page
            last = ended or number == config.pages_max
            if last and not ended and config.cursor_of != "last":
                raise SourceError(
                    f"there are more than {config.pages_max} pages (`pages_max`): what is on those"
                    " that follow would be lost"
                )
            await self._store(answer.messages, last=last)
            if ended:
                return self._state, True
            page = answer.page
        return self._state, not config.cursor

    def _reach(self, cursor: Any) -> None:
        if cursor is None:
            return
        how = self._source.config.cursor_of
        known = self._begun.cursor if self._reached is None else self._reached
        if how == "last" or (how == "first" and self._reached is None):
            self._reached = cursor
        elif how == "greatest":
            self._reached = cursor if known is None else _greater(known, cursor)

    async def _store(self, messages: Any, *, last: bool) -> None:
        """Hand over what is new of a page; with the round's last step the cursor."""
        config, most = self._source.config, self._source.batch_max
        new: list[Message] = []
        for message in messages:
            if not config.remember or message.known_by not in self._seen:
                new.append(message)
                self._seen.add(message.known_by)
        batches = [new[at : at + most] for at in range(0, len(new), most)] or [[]]
        for number, batch in enumerate(batches, start=1):
            state = self._state.with_messages(batch, config.remember)
            if last and number == len(batches) and self._reached is not None:
                state = msgspec.structs.replace(state, cursor=self._reached)
            if batch or state != self._state:
                requests = [message.request for message in batch]
                await self._inlet.take(requests, msgspec.to_builtins(state))
            self._state = state


def _greater(one: Any, other: Any) -> Any:
    try:
        return max(one, other)
    except TypeError:
        raise SourceError(
            f"cursors cannot be compared: {str(one)[:100]!r}, {str(other)[:100]!r} (`cursor_of`)"
        ) from None


SOURCE = PollSource
