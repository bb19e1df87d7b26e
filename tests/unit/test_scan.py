"""How rooms find their files."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.scan import Parts

Make = Callable[..., None]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what makes a package of modules, each with its one line."""

    def made(package: str, **modules: str) -> None:
        room = tmp_path / package
        room.mkdir()
        for name, line in {"__init__": "", **modules}.items():
            (room / f"{name}.py").write_text(f"{line}\n")

    monkeypatch.syspath_prepend(tmp_path)
    return made


def test_files_are_found_by_what_they_define(make: Make) -> None:
    """A module that has the name is found, in the order of names; one without it is not."""
    make("scanned_room", late="PART = 2", early="PART = 1", other="OTHER = 3")
    parts: Parts[int] = Parts("scanned_room", "PART")

    assert list(parts.items()) == [("early", 1), ("late", 2)]
    assert len(parts) == 2
    assert "other" not in parts
    assert parts.get("nobody") is None
    assert list(Parts("scanned_room", "PART", of=str).values()) == ["1", "2"]


def test_a_file_is_imported_when_it_is_asked_for(make: Make) -> None:
    """Those that nobody asks for are not."""
    make("lazy_room", used="PART = 1", broken="raise RuntimeError")
    parts: Parts[int] = Parts("lazy_room", "PART")

    assert parts["used"] == 1
    assert "nobody" not in parts
    assert "lazy_room.broken" not in sys.modules
    with pytest.raises(RuntimeError):
        parts["broken"]


def test_plug_ins_are_found_too(tmp_path: Path, make: Make) -> None:
    """What an installed package offers by an entry point, by its name; of our files only one
    that has such a part itself counts more.
    """
    make("another_room", own="PART = 1", helper="OTHER = 3")
    (tmp_path / "plugged_in.py").write_text("PART = 2\n")
    info = tmp_path / "plugged_in-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-in\nVersion: 1\n")
    names = ("extra", "own", "helper")
    points = "".join(f"{name} = plugged_in:PART\n" for name in names)
    (info / "entry_points.txt").write_text(f"[funicular.tested]\n{points}")
    importlib.invalidate_caches()

    found: Parts[int] = Parts("another_room", "PART", "funicular.tested")
    assert list(found.items()) == [("extra", 2), ("helper", 2), ("own", 1)]
