"""Ids of uplinks and commands: unique over all processes, in order of time within one."""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_hex


def time_ordered_ids(now_ms: Callable[[], int]) -> Callable[[], str]:
    """Return a source of ids: 32 hex digits, each greater than the one before.

    12 digits of milliseconds, 6 of a counter that goes on from id to id, 14 (56 bits) that this
    process drew by lot: like UUIDv7, without a system call for each. A clock that is set back
    does not break the order: time stands still until it is reached again.
    """
    lot = token_hex(7)
    last_ms = 0
    counter = 0

    def new_id() -> str:
        nonlocal last_ms, counter
        now = now_ms()
        if now > last_ms:
            last_ms = now
            counter = 0
        else:
            counter += 1
            if counter > 0xFFFFFF:
                last_ms += 1
                counter = 0
        return f"{last_ms:012x}{counter:06x}{lot}"

    return new_id
