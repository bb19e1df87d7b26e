"""The worked examples that come with Funicular: rules folders to begin with."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pipeline
from pipeline.errors import UsageError
from pipeline.rulebook.catalogue import suggest

FOLDER = Path(pipeline.__file__).parent / "examples"


def worked_examples() -> Mapping[str, str]:
    """Return what each example is about, by its name: the first paragraph of its README."""
    found = {}
    for each in sorted(FOLDER.iterdir()):
        if each.is_dir():
            paragraphs = (each / "README.md").read_text(encoding="utf-8").split("\n\n")
            found[each.name] = paragraphs[1].strip()
    return found


def copy_example(name: str, folder: Path) -> list[Path]:
    """Copy an example into a folder that is empty or not there; return its files, relative to it.

    UsageError: there is no such example, or something is there already.
    """
    known = worked_examples()
    if name not in known:
        hint = suggest(name, known) or f"there are {', '.join(known)}"
        raise UsageError(f"there is no example `{name}` ({hint})")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already, and not empty; name another folder")
    try:
        shutil.copytree(FOLDER / name, folder, dirs_exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from None
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
