"""Asks the owner of a device: a command in, an event on `device.events`, its owner's reply out.

A reply of the owner says that all that was appended before is done: reads follow writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from pipeline.errors import RetryableError
from pipeline.logs import get_logger
from pipeline.model.event import (
    AttributesChange,
    CallEnded,
    Cancel,
    DeviceCall,
    DownlinkCommand,
    DownlinksCommand,
    Forget,
    Query,
)
from pipeline.model.http import Response
from pipeline.model.record import REPLY_TO, Outgoing, device_key, headers_of
from pipeline.model.reply import Reply, ReplyTo
from pipeline.ports import Log
from pipeline.rulebook.book import Rulebooks
from pipeline.topics import DEVICE_EVENTS

from .door import busy
from .problem import problem
from .settings import IngestSettings
from .waiting import Waiting

Command = AttributesChange | Query | DownlinkCommand | DownlinksCommand | Cancel | Forget

_encode = msgspec.json.Encoder().encode
_log = get_logger(__name__)


class Origin(NamedTuple):
    """Of a command: its new id, the time, and who asks."""

    id: str
    now_ms: int
    by: str


class Owners:
    """The owners of all devices, as far as this process can ask them."""

    def __init__(
        self,
        log: Log,
        rulebooks: Rulebooks,
        waiting: Waiting,
        settings: IngestSettings,
        *,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
    ) -> None:
        self._log = log
        self._rulebooks = rulebooks
        self._waiting = waiting
        self._settings = settings
        self._new_id = new_id
        self._now_ms = now_ms

    def origin(self, by: str) -> Origin:
        """Return the origin of a new command."""
        return Origin(self._new_id(), self._now_ms(), by)

    async def ask(self, command: Command) -> Reply | Response:
        """Append the command and return its owner's reply; else why there is none: 503 where it
        was not taken, 504 where nobody answered in `api_timeout_s`.
        """
        timeout_s = self._settings.api_timeout_s
        replies = await self.ask_parts(command, timeout_s)
        if isinstance(replies, Response):
            return replies
        return replies[0] if replies else _late(command, timeout_s)

    async def ask_parts(
        self, command: Command | DeviceCall, timeout_s: float
    ) -> list[Reply] | Response:
        """Append the command and return the parts of its answer, all or those that came in
        `timeout_s`; 503 where it was not taken.
        """
        waiter = self._waiting.open(command.id)
        if waiter is None:
            return busy("too many requests wait for their answer", self._settings)
        try:
            await self._log.append((self._record(command, timeout_s),))
            return await waiter.replies(timeout_s)
        except RetryableError as error:
            _log.warning("a command was not taken", error=error.message)
            return busy(
                "the request cannot be stored now; nothing was taken",
                self._settings,
                code=error.code,
                retry_after_s=error.retry_after_s,
            )
        finally:
            self._waiting.close(waiter)

    async def tell(self, event: CallEnded, *, cause: str) -> None:
        """Append news for a device's owner, which nobody waits for. Where the log takes none the
        call ends by its own time.
        """
        headers = self._headers(event, cause)
        key = device_key(event.tenant, event.device)
        try:
            await self._log.append((Outgoing(DEVICE_EVENTS, key, _encode(event), headers),))
        except RetryableError as error:
            _log.warning("the end of a call was not taken", call=event.call, error=error.message)

    def _headers(self, event: Command | DeviceCall | CallEnded, cause: str) -> dict[str, str]:
        book = self._rulebooks().get(event.tenant)
        return headers_of(
            event_id=event.id,
            trace=cause,
            cause=cause,
            tenant=event.tenant,
            rules=book.version if book is not None else "",
        )

    def _record(self, command: Command | DeviceCall, timeout_s: float) -> Outgoing:
        headers = self._headers(command, command.id)
        reply_to = ReplyTo(
            instance=self._waiting.instance,
            request=command.id,
            deadline_ms=command.time_ms + round(timeout_s * 1_000),
            partition=self._waiting.partition,
        )
        headers[REPLY_TO] = _encode(reply_to).decode()
        key = device_key(command.tenant, command.device)
        return Outgoing(DEVICE_EVENTS, key, _encode(command), headers)


def _late(command: Command, timeout_s: float) -> Response:
    idempotent = getattr(command, "idempotency", None) is not None
    if isinstance(command, Query) or idempotent:
        said = f"the owner of the device did not answer within {timeout_s:g} s; ask again"
    else:
        said = (
            f"the owner of the device did not answer within {timeout_s:g} s; the command is"
            " stored and will be done: do not send it again"
        )
    return problem(504, "timeout", said, id=command.id)
