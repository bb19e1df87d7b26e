"""Folders that are watched: when an edit counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.rulebook.watch import FolderWatch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rules = tmp_path / "rules"
    (rules / "converters/acme").mkdir(parents=True)
    (rules / "funicular.yaml").write_text("tenant: t\n")
    (rules / "converters/acme/meter.js").write_text("1")
    return rules


def test_nothing_new(folder: Path) -> None:
    """What was there when the watch began is not new."""
    watch = FolderWatch([folder])

    assert [watch.changed(), watch.changed()] == [{}, {}]


def test_edit_counts_when_it_is_quiet(folder: Path) -> None:
    """An edit is returned once, at the first look that sees the same as the look before."""
    watch = FolderWatch([folder])
    (folder / "converters/acme/meter.js").write_text("12")
    first = watch.changed()
    (folder / "funicular.yaml").write_text("tenant: other\n")

    assert first == {}
    assert watch.changed() == {}, "it went on changing"
    assert watch.changed() == {str(folder): folder}
    assert watch.changed() == {}


def test_equal_size_and_time(folder: Path) -> None:
    """An edit that keeps size and time of modification is seen."""
    watch = FolderWatch([folder])
    file = folder / "converters/acme/meter.js"
    before = file.stat()
    file.write_text("2")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    watch.changed()

    assert watch.changed() == {str(folder): folder}


def test_edit_undone(folder: Path) -> None:
    """A file that comes and goes between two looks is no edit."""
    watch = FolderWatch([folder])
    extra = folder / "converters/acme/extra.js"
    extra.write_text("")
    watch.changed()
    extra.unlink()

    assert [watch.changed(), watch.changed()] == [{}, {}]


def test_links_of_config_maps(tmp_path: Path) -> None:
    """A folder whose files are links through a hidden folder is seen to change with that folder, as
    Kubernetes' config maps do.
    """
    rules = tmp_path / "rules"
    for version in ("..1", "..2"):
        (rules / version).mkdir(parents=True)
        (rules / version / "funicular.yaml").write_text("tenant: t\n")
    (rules / "..data").symlink_to("..1")
    (rules / "funicular.yaml").symlink_to("..data/funicular.yaml")
    watch = FolderWatch([rules])
    (rules / "..new").symlink_to("..2")
    (rules / "..new").rename(rules / "..data")
    watch.changed()

    assert watch.changed() == {str(rules): rules}


def test_folder_moves_away(folder: Path) -> None:
    """A folder that is gone is an edit; the watch goes on when it is back."""
    watch = FolderWatch([folder])
    away = folder.rename(folder.with_name("away"))
    watch.changed()
    gone = watch.changed()
    away.rename(folder)
    watch.changed()

    assert gone == {str(folder): folder}
    assert watch.changed() == {str(folder): folder}


def test_edited_while_it_is_read(folder: Path) -> None:
    """A folder that changed after it was returned is not steady, until it is returned again."""
    watch = FolderWatch([folder])
    file = folder / "funicular.yaml"
    file.write_text("tenant: a\n")
    watch.changed()
    watch.changed()
    before = watch.steady(str(folder))
    file.write_text("tenant: ab\n")

    assert before
    assert not watch.steady(str(folder))
    watch.changed()
    watch.changed()
    assert watch.steady(str(folder))


def test_only_the_edited_one(folder: Path, tmp_path: Path) -> None:
    """Of several folders only those that were edited are returned."""
    other = tmp_path / "other"
    other.mkdir()
    watch = FolderWatch([folder, other])
    (other / "funicular.yaml").write_text("tenant: o\n")
    watch.changed()

    assert watch.changed() == {str(other): other}
