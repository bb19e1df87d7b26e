"""Windows that stay open: the ways on which a device can be reached at any time, while they last.

In: the `reply_to` of a window (a connection, a peer's address, an observation). Out: which window
leads to the device now. Part of a key: `open/<integration>`; the newest one counts. That one is
closed is learnt when a downlink does not leave by it.
"""

from __future__ import annotations

import msgspec

from pipeline.model.reply import ReplyTo
from pipeline.ports import DeviceState


class OpenWindows:
    """Of one device."""

    def __init__(self, state: DeviceState, key: str, now_ms: int) -> None:
        self._state = state
        self._key = key
        self._now_ms = now_ms

    def open(self, integration: str, reply_to: ReplyTo) -> None:
        """Note that a window is open; it takes the place of the one before."""
        stored = msgspec.to_builtins(reply_to)
        if stored != self._state.get(self._key, f"open/{integration}"):
            self._state.put(self._key, f"open/{integration}", stored)

    def leading(self, integration: str) -> ReplyTo | None:
        """Return the integration's window to the device; None: none is open, or its time is up."""
        stored = self._state.get(self._key, f"open/{integration}")
        if stored is None:
            return None
        window = msgspec.convert(stored, ReplyTo)
        if window.deadline_ms > self._now_ms:
            return window
        self.close(integration, window.request)
        return None

    def close(self, integration: str, request: str) -> None:
        """Forget a window, by its id, where it is the one that counts."""
        stored = self._state.get(self._key, f"open/{integration}")
        if stored is not None and stored["request"] == request:
            self._state.delete(self._key, f"open/{integration}")
