"""One connection of a device or a gateway over TCP: its messages in, its downlinks out.

Two tasks: one reads, stores and acknowledges; one writes downlinks and waits for each to arrive.
Either one's end is the connection's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from pipeline.errors import MessageError
from pipeline.ingest.source import Context, Inlet
from pipeline.ingest.windows import Leaving, Window
from pipeline.model.http import Request
from pipeline.rulebook.connections.device_naming import HandshakeNaming
from pipeline.rulebook.connections.framing import FrameReader
from pipeline.rulebook.connections.tcp_server import TcpServerConfig

from .raw_message import WRONG_TOKEN, address_text, named, request_of
from .tcp_arrival import arrived

CHUNK_BYTES = 65_536
OUTBOX_MAX = 1_000
"""Downlinks that wait for one connection: one a device at a time, so that it is one of a gateway
with as many devices that fills it."""


class _EndError(Exception):
    """The connection is to be closed; the text says why, for the counts. Empty: no fault."""


class TcpConnection:
    """One connection, admitted already; whoever runs it aborts it at the end."""

    def __init__(  # noqa: PLR0917 - each is a part of the one connection
        self,
        config: TcpServerConfig,
        context: Context,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        inlet: Inlet,
        peer: tuple[str, int],
    ) -> None:
        self._config = config
        self._batch_max = context.batch_max
        self._timeout_s = min(config.write_timeout, context.integration.answer_timeout_s)
        self._reader = reader
        self._writer = writer
        self._inlet = inlet
        self._address = peer[0]
        self._peer = address_text(peer)
        self._frames = FrameReader(config.framing, config.frame_bytes_max)
        self._begun_s: float | None = None  # when the frame began that is not whole
        self._device = ""  # who the handshake says it is
        self._greeted = not isinstance(config.device, HandshakeNaming)
        self._outbox: asyncio.Queue[Leaving] = asyncio.Queue(OUTBOX_MAX)
        self._window: Window | None = None
        if context.integration.stays_open:
            self._window = inlet.window(self._hand_over, config.idle_timeout)

    async def run(self) -> None:
        """Serve it to its end. Whatever the other side does ends it, and nothing else."""
        reading = asyncio.ensure_future(self._read())
        writing = asyncio.ensure_future(self._write())
        tasks = {reading, writing}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if self._window is not None:
                self._window.close()
            for task in tasks:
                task.cancel()
            try:
                await asyncio.wait(tasks)
                await self._close()
            finally:  # Also when it is cancelled meanwhile.
                while not self._outbox.empty():
                    self._outbox.get_nowait().told("too_late")
        for task in tasks:
            if not task.cancelled():
                self._judge(task.exception())

    def _judge(self, error: BaseException | None) -> None:
        if isinstance(error, _EndError):
            if str(error):
                self._inlet.pass_over(1, f"connections that were closed: {error}")
        elif isinstance(error, OSError):  # Reset, timed out, or the like.
            if self._frames.within:
                self._inlet.pass_over(1, "connections that broke within a message")
        elif error is not None:
            raise error

    async def _close(self) -> None:
        """Let what was written leave, but do not wait long for it."""
        self._writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._timeout_s):
                await self._writer.wait_closed()

    async def _read(self) -> None:
        while True:
            chunk = await self._next_chunk()
            if not chunk:
                raise _EndError("they ended within a message" if self._frames.within else "")
            frames = self._frames.feed(chunk)
            if frames or not self._frames.within:
                self._begun_s = None
            for begin in range(0, len(frames), self._batch_max):
                await self._take(frames[begin : begin + self._batch_max])
            if self._frames.fault:
                await self._refuse(self._frames)

    async def _next_chunk(self) -> bytes:
        loop = asyncio.get_running_loop()
        if self._frames.within:
            self._begun_s = loop.time() if self._begun_s is None else self._begun_s
            until_s = self._begun_s + self._config.frame_timeout
            why = "a message took longer than `frame_timeout`"
        else:
            until_s = loop.time() + self._config.idle_timeout
            why = ""  # Nothing is wrong with a device that has nothing to say.
        try:
            async with asyncio.timeout_at(until_s):
                return await self._reader.read(CHUNK_BYTES)
        except TimeoutError:
            raise _EndError(why) from None

    async def _take(self, frames: Sequence[bytes]) -> None:
        taken = len(frames)
        if not self._greeted:
            await self._greet(frames[0])
            frames = frames[1:]
        requests = [request for request in map(self._request, frames) if request is not None]
        if requests:
            back = self._window.way_back() if self._window is not None else ""
            await self._inlet.take(requests, ways_back=[back] * len(requests))
        unproven = len(frames) - len(requests)
        await self._acknowledge(taken - unproven)
        if unproven:
            self._inlet.pass_over(unproven, WRONG_TOKEN)
            raise _EndError("a message with a wrong token")

    async def _acknowledge(self, count: int) -> None:
        acknowledge = self._config.acknowledge
        if acknowledge is None:
            return
        self._writer.write(acknowledge * count)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._writer.drain()
        except TimeoutError:
            raise _EndError("they did not read what they were sent") from None

    async def _greet(self, frame: bytes) -> None:
        config = self._config
        assert isinstance(config.device, HandshakeNaming)
        found = config.device.read(frame)
        if not found.name or not config.proven(found.name, found.token):
            raise _EndError("a handshake without a name, or with a wrong token")
        if self._window is not None:
            try:
                await self._inlet.announce(found.name, self._window.way_back())
            except MessageError as error:
                raise _EndError(f"a handshake of a name that cannot be: {error.code}") from None
        self._device, self._greeted = found.name, True

    def _request(self, frame: bytes) -> Request | None:
        """Return a message; None: its token is wrong."""
        if self._device:
            return request_of(frame, self._device, self._peer)
        config = self._config
        found = named(config.device, frame, self._address, token=config.wanted)
        if not config.proven(found.name, found.token):
            return None
        return request_of(found.body, found.name, self._peer)

    async def _refuse(self, frames: FrameReader) -> None:
        """End a stream that cannot be read on; the beginning of what was too long is kept."""
        beginning = request_of(
            frames.rest[: self._config.frame_bytes_max], self._device, self._peer
        )
        await self._inlet.bury(beginning, "frame_length", f"the frame is not read: {frames.fault}")
        raise _EndError("a frame that is not read (`frame_length` in the dead letters)")

    def _hand_over(self, leaving: Leaving) -> None:
        try:
            self._outbox.put_nowait(leaving)
        except asyncio.QueueFull:
            leaving.told("too_late")

    async def _write(self) -> None:
        while True:
            leaving = [await self._outbox.get()]
            while not self._outbox.empty():
                leaving.append(self._outbox.get_nowait())
            written = [each for each in leaving if self._written(each)]
            try:
                async with asyncio.timeout(self._timeout_s):
                    await arrived(self._writer)
            except TimeoutError:
                raise _EndError("they did not take a downlink") from None
            else:
                for each in written:
                    each.told("answered")
            finally:
                for each in written:
                    each.told("not_answered")  # counts where nothing better is known

    def _written(self, leaving: Leaving) -> bool:
        """Write one, but only whole: where it is known that nothing can arrive, say so."""
        if self._writer.is_closing():
            leaving.told("too_late")
            return False
        try:
            frame = self._config.framing.frame(leaving.body)
        except MessageError as error:
            leaving.told("refused", error.message)
            return False
        self._writer.write(frame)
        return True
