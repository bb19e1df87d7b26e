"""How rooms find their files."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.scan import defined


def test_files_are_found_by_what_they_define(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that has the name is found, in the order of names; one without it is not."""
    room = tmp_path / "scanned_room"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "late.py").write_text("PART = 2\n")
    (room / "early.py").write_text("PART = 1\n")
    (room / "other.py").write_text("OTHER = 3\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert list(defined("scanned_room", "PART")) == [("early", 1), ("late", 2)]


def test_plug_ins_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an installed package offers by an entry point is found too."""
    room = tmp_path / "another_room"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "own.py").write_text("PART = 1\n")
    (tmp_path / "plugged_in.py").write_text("PART = 2\n")
    info = tmp_path / "plugged_in-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[funicular.tested]\nextra = plugged_in:PART\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert list(defined("another_room", "PART", "funicular.tested")) == [("own", 1), ("extra", 2)]
