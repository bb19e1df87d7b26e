"""A worker's slot: one process holds it, and it has a name that lasts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.stream.kafka_slot import Slot


def test_the_first_free_slot_is_taken(tmp_path: Path) -> None:
    """Workers take one slot after the other, and a freed one comes first again."""
    first, second = Slot(tmp_path, None, 9), Slot(tmp_path, None, 9)
    assert (first.number, second.number) == (0, 1)
    first.release()
    third = Slot(tmp_path, None, 9)
    assert third.number == 0
    second.release()
    third.release()


def test_a_taken_slot_is_refused(tmp_path: Path) -> None:
    """Who asks for a slot that is held, or when all are, is told."""
    held = Slot(tmp_path, 3, 9)
    with pytest.raises(UsageError, match="Another process holds slot 3"):
        Slot(tmp_path, 3, 9)
    other = Slot(tmp_path, None, 1)
    with pytest.raises(UsageError, match="All 1 slots"):
        Slot(tmp_path, None, 1)
    held.release()
    other.release()


def test_a_slot_keeps_its_name(tmp_path: Path) -> None:
    """The made-up name is the same after a restart, and another one in another folder."""
    names = []
    for folder in (tmp_path / "a", tmp_path / "a", tmp_path / "b"):
        slot = Slot(folder, 0, 9)
        names.append(slot.name())
        slot.release()
    assert names[0] == names[1] != names[2]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A state folder that is none is the operator's mistake, said with its path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Cannot keep state in"):
        Slot(tmp_path / "file", None, 9)
