"""Windows that this worker holds open: ways back to devices over a connection, an address, an
observation.

In: what the stages send to a window (topic `reply`). Out: downlinks for whoever holds the
connection, and reports of what became of each. A window that is closed knows nothing more of its
downlinks: those that come then are reported as too late, and wait for the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
import orjson

from pipeline.model.reply import Reply, ReplyTo

from .reports import Outcome, Reports
from .waiting import Waiting

TAKEN_MAX = 256
"""Downlinks that a window remembers, so that one that comes twice (an engine that writes at least
once) leaves once."""

_encode = msgspec.json.Encoder().encode


class Leaving:
    """One downlink that is to leave by a window: `body` are its bytes, or its fields as JSON."""

    __slots__ = ("_reply", "_reports", "_tenant", "_told", "_trace", "body", "device", "is_json")

    def __init__(self, reply: Reply, tenant: str, trace: str, reports: Reports) -> None:
        self.is_json = reply.payload is None
        self.body = reply.payload if reply.payload is not None else orjson.dumps(reply.fields)
        self.device = reply.device
        self._reply = reply
        self._tenant = tenant
        self._trace = trace
        self._reports = reports
        self._told = False

    def told(self, outcome: Outcome, reason: str = "") -> None:
        """Say what became of it; once, what is said later counts for nothing. `reason` says why
        it was refused.
        """
        if not self._told:
            self._told = True
            self._reports.add(self._tenant, self._reply, self._trace, outcome, reason)


class Window:
    """One way back; all messages that come by it carry `way_back`."""

    def __init__(
        self,
        waiting: Waiting,
        reports: Reports,
        hand_over: Callable[[Leaving], None],
        *,
        tenant: str,
        request: str,
        lasts_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        """`hand_over` is called on the loop for each downlink, and must not block. The window
        lasts `lasts_s` past the last message, if nobody closes it before.
        """
        self._waiting = waiting
        self._reports = reports
        self._hand_over = hand_over
        self._tenant = tenant
        self._request = request
        self._lasts_ms = round(lasts_s * 1_000)
        self._now_ms = now_ms
        self._deadline_ms = 0
        self._header = ""
        self._taken: deque[str] = deque(maxlen=TAKEN_MAX)
        waiting.keep(request, self._take)

    def way_back(self) -> str:
        """Return the header `reply_to` of a message that came by it now.

        It is the same for a while, so that the stages need not write at each message; it promises
        up to twice what the window lasts, and is tried in vain past its end.
        """
        now_ms = self._now_ms()
        if self._deadline_ms - now_ms < self._lasts_ms:
            self._deadline_ms = now_ms + 2 * self._lasts_ms
            reply_to = ReplyTo(
                instance=self._waiting.instance,
                request=self._request,
                deadline_ms=self._deadline_ms,
                partition=self._waiting.partition,
                mode="open",
            )
            self._header = _encode(reply_to).decode()
        return self._header

    def close(self) -> None:
        """Take nothing more; again is fine."""
        self._waiting.end(self._request, self._taken)

    def _take(self, reply: Reply, trace: str) -> bool:
        if reply.downlink_id and reply.downlink_id not in self._taken:
            self._taken.append(reply.downlink_id)
            self._hand_over(Leaving(reply, self._tenant, trace, self._reports))
        return True
