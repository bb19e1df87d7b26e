"""How rooms find their files."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.scan import Parts


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
    parts: Parts[int] = Parts("scanned_room", "PART")

    assert list(parts.items()) == [("early", 1), ("late", 2)]
    assert len(parts) == 2
    assert "other" not in parts
    assert parts.get("nobody") is None
    assert list(Parts("scanned_room", "PART", of=str).values()) == ["1", "2"]


def test_a_file_is_imported_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that nobody asks for are not."""
    room = tmp_path / "lazy_room"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "used.py").write_text("PART = 1\n")
    (room / "broken.py").write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(tmp_path)
    parts: Parts[int] = Parts("lazy_room", "PART")

    assert parts["used"] == 1
    assert "nobody" not in parts
    assert "lazy_room.broken" not in sys.modules
    with pytest.raises(RuntimeError):
        parts["broken"]


def test_plug_ins_are_found_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an installed package offers by an entry point, by its name; a file of ours of the same
    name counts more.
    """
    room = tmp_path / "another_room"
    room.mkdir()
    (room / "__init__.py").write_text("")
    (room / "own.py").write_text("PART = 1\n")
    (tmp_path / "plugged_in.py").write_text("PART = 2\n")
    info = tmp_path / "plugged_in-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[funicular.tested]\nextra = plugged_in:PART\nown = plugged_in:PART\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    found: Parts[int] = Parts("another_room", "PART", "funicular.tested")
    assert list(found.items()) == [("extra", 2), ("own", 1)]
