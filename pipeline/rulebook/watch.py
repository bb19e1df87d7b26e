"""Watches rules folders on the disk: which of them were edited, and are quiet again.

In: folders. Out: the names of those to be loaded. It looks at names, sizes and times alone; what is
in the files is read when a folder is loaded. Files that `${file:…}` names are not watched.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.rulebook.folder import FILES_MAX

_DEPTH_MAX = 3  # converters/<vendor>/<model>.yaml
_Seen = tuple[tuple[str, int, int, int, int], ...]


class RulesSource(Protocol):
    """Where new rules come from: a folder that is edited, or a topic."""

    def changed(self) -> Mapping[str, Path | None]:
        """Return what is new since the last call: folders to load, by a name that each keeps; None:
        its rules are gone. May block for a moment; called from one thread at a time.
        """
        ...

    def steady(self, name: str) -> bool:
        """Return whether a folder is still as it was when `changed` returned it."""
        ...

    def place(self, versions: Mapping[str, str]) -> int:
        """Return how far what `changed` has seen is in force where these versions are, by tenant:
        a number that all workers understand. 0: versions have no order here.
        """
        ...

    def close(self) -> None:
        """Let go of what it reads from."""
        ...


class FolderWatch:
    """See `RulesSource`. An edit counts once two looks in a row see the same: an editor, a copy or
    a `git pull` writes one file after the other, and half of an edit may be valid by chance.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        """Look at the folders: what is there now is taken as known."""
        self._folders = {str(folder): folder for folder in folders}
        self._known = {name: _look(folder) for name, folder in self._folders.items()}
        self._last = dict(self._known)

    def changed(self) -> Mapping[str, Path | None]:
        """Return the folders that were edited and are quiet again."""
        found: dict[str, Path | None] = {}
        for name, folder in self._folders.items():
            seen = _look(folder)
            if seen != self._known[name] and seen == self._last[name]:
                self._known[name] = seen
                found[name] = folder
            self._last[name] = seen
        return found

    def steady(self, name: str) -> bool:
        """Return whether a folder is still as it was when `changed` returned it."""
        return _look(self._folders[name]) == self._known[name]

    def place(self, _: Mapping[str, str]) -> int:
        """Return 0: each worker's folder is its operator's."""
        return 0

    def close(self) -> None:
        """Nothing is held."""


def _look(folder: Path) -> _Seen:
    found: list[tuple[str, int, int, int, int]] = []
    for entry in _entries(folder, _DEPTH_MAX):
        try:
            # What a link leads to: config maps of Kubernetes change by their links.
            stat = entry.stat()
        except OSError:
            found.append((entry.path, 0, 0, 0, 0))
            continue
        found.append((entry.path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
        if len(found) > FILES_MAX:
            break
    return tuple(sorted(found))


def _entries(folder: Path | str, depth: int) -> Iterator[os.DirEntry[str]]:
    """Yield all files below; a folder that is gone has none."""
    try:
        with os.scandir(folder) as scanned:
            entries = [entry for entry in scanned if not entry.name.startswith(".")]
    except OSError:
        return
    for entry in entries:
        if not entry.is_dir():
            yield entry
        elif depth > 1:
            yield from _entries(entry.path, depth - 1)
