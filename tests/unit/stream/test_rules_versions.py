"""The topic of rules: what is written to it, and which versions come of what is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.errors import UsageError
from pipeline.stream.rules_versions import (
    Publication,
    RulesVersions,
    VersionFolders,
    is_path,
)

ONE = {"funicular.yaml": b"tenant: t\n", "chains/a.yaml": b"a"}
TWO = {"funicular.yaml": b"tenant: t\n", "chains/b.yaml": b"b"}


def published(
    versions: RulesVersions, contents: dict[str, bytes], version: str = "v"
) -> Publication:
    found = versions.publication("t", version, contents)
    assert found is not None
    return found


def taken(versions: RulesVersions, found: Publication, but: str = "") -> None:
    for key, value in found.records:
        if key != but:
            versions.take(key, value)


def test_first_publication() -> None:
    """The first version has all files and number 1; its manifest comes last."""
    found = published(RulesVersions(), ONE)

    assert [key for key, _ in found.records] == ["t/chains/a.yaml", "t/funicular.yaml", "t/"]
    assert found.manifest.sequence == 1
    assert (found.added, found.changed, found.removed) == (tuple(sorted(ONE)), (), ())


def test_second_publication() -> None:
    """The next version writes what differs, tombstones what is gone, and counts on."""
    versions = RulesVersions()
    taken(versions, published(versions, ONE))
    found = published(versions, {**TWO, "funicular.yaml": b"tenant: t\n#\n"})

    assert dict(found.records[:-1]) == {
        "t/chains/b.yaml": b"b",
        "t/funicular.yaml": b"tenant: t\n#\n",
        "t/chains/a.yaml": None,
    }
    assert found.records[-1][0] == "t/"
    assert found.manifest.sequence == 2


def test_published_already() -> None:
    """A folder that is the newest version already is not written again."""
    versions = RulesVersions()
    taken(versions, published(versions, ONE))

    assert versions.publication("t", "v", ONE) is None


def test_version_becomes_a_folder(tmp_path: Path) -> None:
    """A complete version is a folder with exactly its files, given once."""
    versions, folders = RulesVersions(), VersionFolders(tmp_path)
    taken(versions, published(versions, ONE))
    folders.news(versions)
    taken(versions, published(versions, TWO))
    found = folders.news(versions)["t"]

    assert found is not None
    files = {str(f.relative_to(found)): f.read_bytes() for f in found.rglob("*") if f.is_file()}
    assert files == TWO
    assert folders.news(versions) == {}


@pytest.mark.parametrize("lost", ["t/chains/b.yaml", "t/chains/a.yaml"])
def test_incomplete_version_waits(tmp_path: Path, lost: str) -> None:
    """A version waits, and says so once, until each of its files is there with its hash; what a
    removed file still says does not matter.
    """
    versions, folders = RulesVersions(), VersionFolders(tmp_path)
    taken(versions, published(versions, ONE))
    folders.news(versions)
    found = published(versions, TWO)
    taken(versions, found, but=lost)
    with capture_logs() as logs:
        first, second = folders.news(versions), folders.news(versions)
    if lost == "t/chains/b.yaml":
        assert (first, second) == ({}, {})
        assert [line["missing"] for line in logs] == [["chains/b.yaml"]]
        versions.take("t/chains/b.yaml", b"wrong")
        assert folders.news(versions) == {}
        versions.take("t/chains/b.yaml", b"b")
        first = folders.news(versions)
    assert first.keys() == {"t"}


def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    """Two workers that keep their versions in one place give the same folder."""
    versions = RulesVersions()
    taken(versions, published(versions, ONE))

    assert VersionFolders(tmp_path).news(versions) == VersionFolders(tmp_path).news(versions)


def test_old_folders_go(tmp_path: Path) -> None:
    """The disk keeps the newest version and the one before."""
    versions, folders = RulesVersions(), VersionFolders(tmp_path)
    for number in range(5):
        taken(versions, published(versions, {**ONE, "x.yaml": str(number).encode()}))
        folders.news(versions)

    assert [each.name[:8] for each in sorted((tmp_path / "t").iterdir())] == [
        "00000004",
        "00000005",
    ]


def test_tenant_withdrawn(tmp_path: Path) -> None:
    """A tenant whose manifest is deleted is gone, once."""
    versions, folders = RulesVersions(), VersionFolders(tmp_path)
    taken(versions, published(versions, ONE))
    folders.news(versions)
    versions.take("t/", None)

    assert folders.news(versions) == {"t": None}
    assert folders.news(versions) == {}


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a/", "a\\b", "a\0b", "x" * 256]
)
def test_paths_that_lead_out(path: str) -> None:
    """A path that could leave the folder, or has two spellings, is none."""
    assert not is_path(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("t/../../x", b""),
        ("UPPER/a.yaml", b""),
        ("nothing", b""),
        ("t/", b"{"),
        ("t/", b'{"version":"v","sequence":2,"files":{"../x":""}}'),
    ],
)
def test_foreign_records(tmp_path: Path, key: str, value: bytes) -> None:
    """Records that nobody of ours wrote are logged, and change nothing."""
    versions, folders = RulesVersions(), VersionFolders(tmp_path)
    taken(versions, published(versions, ONE))
    folders.news(versions)
    with capture_logs() as logs:
        versions.take(key, value)

    assert len(logs) == 1
    assert folders.news(versions) == {}


def test_publish_refuses_bad_paths() -> None:
    """A folder with a file name that no worker would write is refused."""
    with pytest.raises(UsageError, match="rename"):
        RulesVersions().publication("t", "v", {"chains/a\\b.yaml": b""})


def test_newer_versions_by_their_place() -> None:
    """A manifest of another version than the one in force is told by its offset; one that is in
    force is not, and a tenant whose rules are gone has none.
    """
    versions = RulesVersions()
    for offset, (key, value) in enumerate(published(versions, ONE, "v1").records):
        versions.take(key, value, offset)
    assert versions.newer({}) == [2]
    assert versions.newer({"t": "v0"}) == [2]
    assert versions.newer({"t": "v1"}) == []
    versions.take("t/", None, 9)
    assert versions.newer({"t": "v1"}) == []
