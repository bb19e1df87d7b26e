"""Whether what was written to a TCP connection has arrived at the other side's machine.

A device that has lost its power takes nothing, and for minutes nobody tells: writing to it
succeeds. Linux knows how many bytes the other side has acknowledged (`struct tcp_info` of
linux/tcp.h, since 4.1) and how many it has not (`SIOCOUTQ`); elsewhere what the operating system
took counts as arrived.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

if sys.platform == "linux":
    from fcntl import ioctl
    from termios import TIOCOUTQ

_ACKED_AT = 120  # of `tcpi_bytes_acked`, 8 bytes
_INFO_BYTES = _ACKED_AT + 8
_LOOK_FIRST_S = 0.001
_LOOK_MAX_S = 0.25


async def arrived(writer: asyncio.StreamWriter) -> None:
    """Return when all that was written before is with the other side's machine.

    ConnectionError: it broke before. Bound it by a timeout: it may never be.
    """
    transport: Any = writer.transport
    while transport.get_write_buffer_size():
        _look_at(transport)
        await asyncio.sleep(_LOOK_FIRST_S)
    acknowledged = _counter(transport.get_extra_info("socket"))
    if acknowledged is None:
        return
    done, waiting = acknowledged()
    wanted = done + waiting
    pause_s = _LOOK_FIRST_S
    while done < wanted:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LOOK_MAX_S)
        _look_at(transport)
        done, _ = acknowledged()


def _look_at(transport: Any) -> None:
    if transport.is_closing():
        raise ConnectionResetError("the connection was closed")


def _counter(connection: Any) -> Callable[[], tuple[int, int]] | None:
    """Return what tells (bytes acknowledged, bytes not yet); None: it cannot be known here."""
    if sys.platform != "linux" or connection is None:
        return None

    def look() -> tuple[int, int]:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        if len(info) < _INFO_BYTES:
            return 0, 0
        outstanding = ioctl(connection.fileno(), TIOCOUTQ, b"\0" * 4)
        done: int = struct.unpack_from("=Q", info, _ACKED_AT)[0]
        return done, struct.unpack("=i", outstanding)[0]

    return look
