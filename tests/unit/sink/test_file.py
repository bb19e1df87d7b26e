from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from pipeline.errors import RetryableError
from pipeline.sink.file import FileConfig, FileSink, LineFile, RotateConfig
from pipeline.sink.transport import DELIVERED
from tests.unit.sink.fakes import START_MS, context, delivery, run

DAY_MS = 86_400_000


def lines(path: Path) -> list[Any]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def writing(
    folder: Path, test: Callable[[FileSink], Awaitable[None]], *, now_ms: Any = None, **config: Any
) -> None:
    """Run a test with an open sink to `out/a.jsonl`."""

    async def main() -> None:
        surroundings = context(folder, now_ms or (lambda: START_MS))
        sink = FileSink(FileConfig(path="out/a.jsonl", **config), surroundings)
        await sink.open()
        try:
            await test(sink)
        finally:
            await sink.close()

    run(main())


def test_one_line_a_delivery(tmp_path: Path) -> None:
    """A line has the id, the device, the time and the body; folders are made."""

    async def test(sink: FileSink) -> None:
        assert await sink.deliver([delivery(1), delivery(2)]) == [DELIVERED] * 2

    writing(tmp_path, test)
    assert lines(tmp_path / "out/a.jsonl") == [
        {
            "id": f"d{n}",
            "device": "dev1",
            "time": f"2025-10-09T08:53:20.00{n}Z",
            "body": {"n": n, "device": "dev1"},
        }
        for n in (1, 2)
    ]


def test_each_batch_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch counts as delivered only once it was synced to the disk."""
    synced: list[int] = []
    fsync = os.fsync

    def noting(file: int) -> None:
        fsync(file)
        synced.append(os.fstat(file).st_size)

    async def test(sink: FileSink) -> None:
        monkeypatch.setattr(os, "fsync", noting)
        await sink.deliver([delivery(1), delivery(2)])
        assert synced == [(tmp_path / "out/a.jsonl").stat().st_size]

    writing(tmp_path, test)


@pytest.mark.parametrize("torn", [b'{"id":"d9","dev', b'{"i', b"{", b"\0\0\0"])
def test_a_torn_line_is_cut(tmp_path: Path, torn: bytes) -> None:
    """What a crash left of a line of ours is cut off; whole lines stay."""
    path = tmp_path / "out/a.jsonl"
    path.parent.mkdir()
    path.write_bytes(b'{"id":"d0"}\n' + torn)

    async def test(sink: FileSink) -> None:
        await sink.deliver([delivery(1)])

    writing(tmp_path, test)
    assert [line["id"] for line in lines(path)] == ["d0", "d1"]


def test_a_long_torn_line_is_cut(tmp_path: Path) -> None:
    """A torn line longer than a read block is found to its beginning."""
    path = tmp_path / "a"
    path.write_bytes(b'{"id":"d0"}\n{"id":"d1","body":"' + b"x" * 300_000)
    file = LineFile(path, RotateConfig())
    file.open()
    file.close()
    assert path.read_bytes() == b'{"id":"d0"}\n'


def test_somebody_elses_last_line_is_kept(tmp_path: Path) -> None:
    """A file that we did not write loses nothing; its last line is ended."""
    path = tmp_path / "a"
    path.write_bytes(b"notes of mine")
    file = LineFile(path, RotateConfig())
    file.write([b'{"id":"d1"}'], START_MS)
    file.close()
    assert path.read_bytes() == b'notes of mine\n{"id":"d1"}\n'


def test_rotation_by_size(tmp_path: Path) -> None:
    """A file is put away before it would grow past its size; the newest `keep` old ones stay."""
    now = [START_MS]

    async def test(sink: FileSink) -> None:
        for number in range(5):
            now[0] += 1_000
            await sink.deliver([delivery(number, body="x" * 600)])

    writing(tmp_path, test, now_ms=lambda: now[0], rotate=RotateConfig(bytes=1_000, keep=2))
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == [
        "a.20251009T085324000000.jsonl",
        "a.20251009T085325000000.jsonl",
        "a.jsonl",
    ]
    assert [[line["id"] for line in lines(path)] for path in files] == [["d2"], ["d3"], ["d4"]]


def test_rotation_by_age(tmp_path: Path) -> None:
    """With `every: 1d` a new UTC day begins a new file, also after a restart."""
    path = tmp_path / "out/a.jsonl"
    rotate = RotateConfig.model_validate({"every": "1d"})

    async def first(sink: FileSink) -> None:
        await sink.deliver([delivery(1)])

    async def second(sink: FileSink) -> None:
        await sink.deliver([delivery(2)])
        await sink.deliver([delivery(3)])

    writing(tmp_path, first, rotate=rotate)
    os.utime(path, (START_MS / 1_000, START_MS / 1_000))
    writing(tmp_path, second, now_ms=lambda: START_MS + DAY_MS, rotate=rotate)
    assert [line["id"] for line in lines(path)] == ["d2", "d3"]
    assert len(list(path.parent.iterdir())) == 2


def test_two_rotations_in_one_moment_keep_both_files(tmp_path: Path) -> None:
    """An old file is never overwritten by the next, even at the same millisecond."""
    file = LineFile(tmp_path / "a.jsonl", RotateConfig(bytes=1_000))
    for number in range(4):
        file.write([b'{"id":"%d%s"}' % (number, b"x" * 900)], START_MS)
    file.close()
    assert len(list(tmp_path.iterdir())) == 4


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    """Only files that rotation itself named are ever removed."""
    for name in ("a.backup.jsonl", "a.2025.jsonl", "b.20251009T085324000000.jsonl"):
        (tmp_path / name).write_text("mine")
    file = LineFile(tmp_path / "a.jsonl", RotateConfig(bytes=1_000, keep=0))
    for _ in range(3):
        file.write([b'{"id":"x"}' * 90], START_MS)
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.2025.jsonl",
        "a.backup.jsonl",
        "a.jsonl",
        "b.20251009T085324000000.jsonl",
    ]


def test_a_full_disk_is_retried_and_leaves_no_half_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written of a batch when the disk was full is taken back; later it is whole."""
    write = os.write
    room = [20]

    def filling(file: int, data: Any) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = bytes(data)[: room[0]]
        room[0] -= len(part)
        return write(file, part)

    async def test(sink: FileSink) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", filling)
            with pytest.raises(RetryableError, match="No space left"):
                await sink.deliver([delivery(1)])
        assert (tmp_path / "out/a.jsonl").read_bytes() == b""
        assert await sink.deliver([delivery(1)]) == [DELIVERED]

    writing(tmp_path, test)
    assert [line["id"] for line in lines(tmp_path / "out/a.jsonl")] == ["d1"]


def test_a_moved_file_is_noticed(tmp_path: Path) -> None:
    """When somebody moves or removes the file, the next lines go to a new one of its name."""
    path = tmp_path / "out/a.jsonl"

    async def test(sink: FileSink) -> None:
        await sink.deliver([delivery(1)])
        path.rename(tmp_path / "moved")
        await sink.deliver([delivery(2)])
        path.unlink()
        await sink.deliver([delivery(3)])

    writing(tmp_path, test)
    assert [line["id"] for line in lines(path)] == ["d3"]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """Two sinks cannot tear each other's lines: the second waits, and says why."""

    async def test(sink: FileSink) -> None:
        other = FileSink(FileConfig(path="out/a.jsonl"), context(tmp_path))
        with pytest.raises(RetryableError, match="another sink or process writes it"):
            await other.open()
        await other.close()

    writing(tmp_path, test)


def test_a_path_that_cannot_be_is_retried(tmp_path: Path) -> None:
    """A folder that is a file is said, with the path."""
    (tmp_path / "out").write_text("a file")

    async def main() -> None:
        sink = FileSink(FileConfig(path="out/a.jsonl"), context(tmp_path))
        with pytest.raises(RetryableError, match="out"):
            await sink.open()
        await sink.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "config",
    [
        {"path": ""},
        {"path": "data/"},
        {"path": "a\0b"},
        {"path": "a", "rotate": {"bytes": "10"}},
        {"path": "a", "rotate": {"every": "0s"}},
        {"path": "a", "batch": 0},
    ],
)
def test_a_bad_config_of_a_file_is_refused(config: dict[str, Any]) -> None:
    """A path that is no file, and limits that cannot work, are refused when rules are read."""
    with pytest.raises(ValidationError):
        FileConfig.model_validate(config)
