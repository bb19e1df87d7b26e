from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.rulebook import folder as folder_module
from pipeline.rulebook.folder import CONVERTER_RULE, read_folder

RULE = "names are made of a-z, 0-9, - and _, start with a letter or digit, 64 at most"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("chain/a.yaml", "chain/: unknown folder (did you mean `chains`?)"),
        (
            "x/a.yaml",
            (
                "x/: unknown folder"
                " (there are integrations, converters, chains, sinks, tables, templates)"
            ),
        ),
        ("funicular.yml", "funicular.yml: unknown file (did you mean `funicular.yaml`?)"),
        ("notes.txt", "notes.txt: unknown file (put it in one of the folders)"),
        ("sinks/a.yml", "sinks/a.yml: unknown file (rename it to a.yaml)"),
        ("sinks/a.json", "sinks/a.json: unknown file (only .yaml files are read here)"),
        ("sinks/Makefile", "sinks/Makefile: unknown file (only .yaml files are read here)"),
        ("chains/sub/a.yaml", "chains/sub/: folders are not read here (move it up)"),
        (
            "chains/a.py",
            "chains/a.py: unknown file (only .yaml, .js, .lua and .tbel files are read here)",
        ),
        (
            "converters/a.yaml",
            (
                "converters/a.yaml: a converter belongs to a vendor"
                " (move it to converters/<vendor>/a.yaml)"
            ),
        ),
        ("converters/a.js", "converters/a.js: unknown file (only .yaml, .js, .lua, .tbel"),
        ("converters/v/a.py", "converters/v/a.py: unknown file (only .yaml, .js, .lua, .tbel"),
        ("converters/v/w/x/a.js", "converters/v/w/x/: folders are not read here (move it up)"),
        (
            "chains/a_test.yaml",
            "chains/a_test.yaml: tests the chain `a`, which is not there",
        ),
    ],
)
def test_what_does_not_belong_is_told(rules: Any, path: str, expected: str) -> None:
    """An unknown file or folder is a fault that says where it might belong."""
    rules.write(path, "{}\n")
    faults = [str(fault) for fault in read_folder(rules.folder).faults]

    assert [fault[: len(expected)] for fault in faults] == [expected]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("sinks/My Sink.yaml", f"`My Sink` cannot be a name: {RULE} (call it my-sink)"),
        ("chains/-a.yaml", f"`-a` cannot be a name: {RULE} (call it a)"),
        ("integrations/ä.yaml", f"`ä` cannot be a name: {RULE}"),
        ("converters/-ACME/a.yaml", f"`-ACME` cannot be a name: {CONVERTER_RULE} (call it acme)"),
        (f"sinks/{'a' * 65}.yaml", f"`{'a' * 65}` cannot be a name: {RULE}"),
        (
            "sinks/downlink-a.yaml",
            "names that start with `downlink-` are kept for downlinks (give the sink another name)",
        ),
    ],
)
def test_names_follow_one_rule(rules: Any, path: str, expected: str) -> None:
    """A file's name is its thing's name, and goes into topics and addresses."""
    rules.write(path, "{}\n")

    assert [str(fault) for fault in read_folder(rules.folder).faults] == [f"{path}: {expected}"]


def test_read_me_and_dot_files_are_passed_over(rules: Any) -> None:
    """What editors, git and people leave lying about is no fault and no part of the version."""
    rules.write("sinks/a.yaml", "{}\n")
    before = read_folder(rules.folder)
    for path in (".gitignore", ".git/config", "README.md", "sinks/.a.yaml.swp", "chains/NOTES.md"):
        rules.write(path, "x")
    after = read_folder(rules.folder)

    assert after.faults == []
    assert after.contents.keys() == {"sinks/a.yaml"}
    assert after.version == before.version


def test_files_are_sorted_into_their_kinds(rules: Any) -> None:
    """Names lead to files."""
    for path in (
        "funicular.yaml",
        "integrations/i.yaml",
        "converters/v/m.yaml",
        "converters/v/m.js",
        "chains/c.yaml",
        "chains/c_test.yaml",
        "sinks/s.yaml",
    ):
        rules.write(path, "{}\n")
    found = read_folder(rules.folder)

    assert found.faults == []
    assert found.settings == "funicular.yaml"
    assert found.integrations == {"i": "integrations/i.yaml"}
    assert found.converters == {"v/m": "converters/v/m.yaml"}
    assert found.scripts == ["converters/v/m.js"]
    assert found.chains == {"c": "chains/c.yaml"}
    assert found.tests == {"c": "chains/c_test.yaml"}
    assert found.sinks == {"s": "sinks/s.yaml"}


def test_the_version_changes_with_any_path_or_content(rules: Any) -> None:
    """Equal folders have equal versions, wherever they are; any edit makes another."""
    rules.write("sinks/a.yaml", "ab")
    versions = {read_folder(rules.folder).version}
    assert {read_folder(rules.folder).version} == versions
    rules.write("sinks/a.yaml", "abc")
    versions.add(read_folder(rules.folder).version)
    (rules.folder / "sinks/a.yaml").rename(rules.folder / "sinks/b.yaml")
    versions.add(read_folder(rules.folder).version)
    rules.write("sinks/c.yaml", "")
    versions.add(read_folder(rules.folder).version)

    assert len(versions) == 4
    assert all(len(version) == 12 for version in versions)


def test_links_to_files_are_followed(rules: Any) -> None:
    """Kubernetes mounts config maps as links into a dot folder."""
    rules.write("sinks/..data/a.yaml", "{}\n")
    (rules.folder / "sinks/a.yaml").symlink_to("..data/a.yaml")
    (rules.folder / "sinks/b.yaml").symlink_to("nowhere")
    found = read_folder(rules.folder)

    assert found.sinks == {"a": "sinks/a.yaml"}
    assert [str(fault) for fault in found.faults] == [
        "sinks/b.yaml: neither a file nor a folder (a link that leads nowhere?)"
    ]


def test_no_such_folder(tmp_path: Path) -> None:
    """A missing folder, and a file in its place, are faults and not exceptions."""
    (tmp_path / "file").write_text("")

    assert [
        str(read_folder(tmp_path / name).faults[0]).removeprefix(str(tmp_path))
        for name in ("none", "file")
    ] == [
        "/none: there is no such folder (name a folder with integrations/)",
        "/file: this is no folder (name a folder with integrations/)",
    ]


def test_sizes_are_limited(rules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, all files together and their number have limits."""
    for name in "abc":
        rules.write(f"sinks/{name}.yaml", "x" * 10)
    monkeypatch.setattr(folder_module, "FILE_BYTES_MAX", 9)
    big = [str(fault) for fault in read_folder(rules.folder).faults]
    monkeypatch.setattr(folder_module, "FILE_BYTES_MAX", 100)
    monkeypatch.setattr(folder_module, "FOLDER_BYTES_MAX", 15)
    together = [str(fault) for fault in read_folder(rules.folder).faults]
    monkeypatch.setattr(folder_module, "FOLDER_BYTES_MAX", 100)
    monkeypatch.setattr(folder_module, "FILES_MAX", 2)
    many = [str(fault) for fault in read_folder(rules.folder).faults]

    assert big == [f"sinks/{name}.yaml: more than 9 bytes" for name in "abc"]
    assert together == ["sinks/b.yaml: more than 15 bytes in all"]
    assert many == ["sinks/c.yaml: more than 2 files"]
