"""Transport `file`: one JSON line a delivery, `{"id", "device", "time", "body"}`, rotated.

In: `delivery.<tenant>.<sink>`. Out: lines that are on the disk before the position moves. A repeat
after a crash has the same `id`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, Field

from pipeline.errors import RetryableError
from pipeline.integrations.document import rfc3339
from pipeline.model.delivery import Delivery
from pipeline.part import Part
from pipeline.sink.batches import make_all
from pipeline.sink.lines import line_of
from pipeline.sink.retry import ByteCount, RetryConfig, Seconds
from pipeline.sink.transport import Context, Result

if sys.platform != "win32":
    import fcntl

_LINE_START = b'{"id":'  # how every line of ours begins; by it a torn line is known as ours
_BLOCK_BYTES = 64 << 10
_STAMP = "%Y%m%dT%H%M%S%f"
_STAMP_PATTERN = "[0-9]" * 8 + "T" + "[0-9]" * 12


class RotateConfig(Part):
    """When a new file is begun: `rotate:`. The old one gets the time into its name."""

    bytes: ByteCount = Field(default=100_000_000, ge=1_000)
    every: Seconds | None = Field(default=None, ge=1)
    keep: int = Field(default=10, ge=0, le=10_000)


class FileConfig(Part):
    """A file of JSON lines: `sinks/<name>.yaml`.

    ```yaml
    transport: file
    path: data/archive.jsonl    # relative to where Funicular runs; folders are made
    rotate:
      bytes: 100MB              # a new file before this one grows past it
      every: 1d                 # and with each new day (UTC); without it: by size alone
      keep: 10                  # so many old files stay, the oldest go
    batch: 1000                 # lines of one write and one sync to disk
    ```
    """

    path: str = Field(min_length=1, max_length=4_096, pattern=r"^[^\x00]*[^/\x00]$")
    rotate: RotateConfig = Field(default_factory=RotateConfig)
    batch: int = Field(default=1_000, ge=1, le=100_000)
    retry: RetryConfig = Field(default_factory=lambda: RetryConfig(max=60))


class FileSink:
    """See `transport.Transport`. Its own thread writes, so that a slow disk blocks nobody."""

    name: ClassVar[str] = "file"
    Config: ClassVar[type[BaseModel]] = FileConfig

    def __init__(self, config: FileConfig, context: Context) -> None:
        self._lines = LineFile(context.settings.folder / config.path, config.rotate)
        self._now_ms = context.now_ms
        self.deliveries_max = config.batch
        self.concurrency = 1
        self.retry = config.retry
        self._thread: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Make folders, open the file, mend a torn last line. RetryableError: it cannot be."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sink-file")
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._lines.open)
        except OSError as error:
            raise RetryableError(_what(error, self._lines.path), code="file") from error

    async def deliver(self, batch: Sequence[Delivery]) -> list[Result]:
        """Write all lines and sync once. RetryableError: none of them counts as written."""
        assert self._thread is not None, "open() comes first"
        lines, results = make_all(batch, _line)
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._lines.write, lines, self._now_ms())
        except OSError as error:
            raise RetryableError(_what(error, self._lines.path), code="file") from error
        return results

    async def close(self) -> None:
        """Close the file, once what is being written is on the disk."""
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(thread, self._lines.close)
            finally:
                thread.shutdown(wait=False)


def _line(delivery: Delivery) -> bytes:
    return line_of(delivery, rfc3339(delivery.time_ms), delivery.body)


def _what(error: OSError, path: Path) -> str:
    return f"cannot write {path}: {error.strerror or error}"


class LineFile:
    """An append-only file of JSON lines with rotation; blocking, of one thread.

    It holds a lock on the file, so that no second process tears its lines.
    """

    def __init__(self, path: Path, rotate: RotateConfig) -> None:
        self.path = path
        self._rotate = rotate
        self._file = -1
        self._size = 0
        self._written_ms = 0

    def open(self) -> None:
        """Open to append, with the last line whole. OSError: it cannot be; again is fine."""
        if self._file >= 0:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            _lock(file)
            self._size = _mend(file)
            _sync_folder(self.path.parent)
        except BaseException:
            os.close(file)
            raise
        self._written_ms = int(os.fstat(file).st_mtime * 1_000) if self._size else 0
        self._file = file

    def write(self, lines: Sequence[bytes], now_ms: int) -> None:
        """Append the lines and sync. OSError: the file is as it was before, or mended at `open`."""
        if not lines:
            return
        block = b"\n".join(lines) + b"\n"
        if self._is_elsewhere():
            self.close()
        self.open()
        try:
            if self._is_due(len(block), now_ms):
                self._begin_anew(now_ms)
            self._append(block)
        except OSError:
            self.close()
            raise
        self._size += len(block)
        self._written_ms = now_ms

    def close(self) -> None:
        """Let go of the file; again is fine."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _append(self, block: bytes) -> None:
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fsync(self._file)
        except OSError:
            # A batch that is written in part would be repeated whole; nothing of it stays.
            os.ftruncate(self._file, self._size)
            raise

    def _is_elsewhere(self) -> bool:
        """Return whether somebody moved or removed the file: lines would go where nobody looks."""
        if self._file < 0:
            return False
        try:
            return not os.path.samestat(self.path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            return True

    def _is_due(self, more: int, now_ms: int) -> bool:
        if self._size == 0:
            return False
        every = self._rotate.every
        if every is not None and self._written_ms:
            period_ms = int(every * 1_000)
            if now_ms // period_ms > self._written_ms // period_ms:
                return True
        return self._size + more > self._rotate.bytes

    def _begin_anew(self, now_ms: int) -> None:
        old = self._old_name(now_ms)
        self.path.rename(old)
        self.close()
        self.open()
        _sync_folder(self.path.parent)
        olds = sorted(self.path.parent.glob(self._old_pattern()))
        for name in olds[: max(0, len(olds) - self._rotate.keep)]:
            name.unlink(missing_ok=True)

    def _old_name(self, now_ms: int) -> Path:
        while True:
            stamp = datetime.fromtimestamp(now_ms / 1_000, UTC).strftime(_STAMP)
            old = self.path.with_name(f"{self.path.stem}.{stamp}{self.path.suffix}")
            if not old.exists():
                return old
            now_ms += 1

    def _old_pattern(self) -> str:
        return f"{_literal(self.path.stem)}.{_STAMP_PATTERN}{_literal(self.path.suffix)}"


def _literal(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _lock(file: int) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(error.errno, "another sink or process writes it") from None


def _mend(file: int) -> int:
    """Cut off a last line that a crash tore, and return the size then.

    Only what begins as our lines do (or is nothing but zeros, as a power cut leaves them) is cut;
    the unfinished line of somebody else's file is ended instead.
    """
    size = os.fstat(file).st_size
    start = size
    tail = b""
    while start > 0 and b"\n" not in tail:
        length = min(_BLOCK_BYTES, start)
        start -= length
        block = os.pread(file, length, start)
        cut = block.rfind(b"\n")
        if cut >= 0:
            start += cut + 1
            break
    if start == size:
        return size
    head = os.pread(file, len(_LINE_START), start).rstrip(b"\0")
    if not head or _LINE_START.startswith(head) or head.startswith(_LINE_START):
        os.ftruncate(file, start)
        os.fsync(file)
        return start
    os.write(file, b"\n")
    return size + 1


def _sync_folder(folder: Path) -> None:
    """Make a new name in the folder survive a power cut."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


TRANSPORT = FileSink
