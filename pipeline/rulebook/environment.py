"""`${env:NAME}` and `${file:PATH}` in the string values of a document → their text.

`${env:NAME:-x}` and `${file:PATH:-x}` give `x` where the variable is unset or empty, or the file
is missing, as in a shell. Keys of mappings are never filled in, and any other `${ … }` is an
expression and left alone; `$${env:…}` is the text `${env:…}`. What was filled in is secret: the
document shows it in faults as it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.rulebook.catalogue import Problem, suggest
from pipeline.rulebook.reader import Document
from pipeline.rulebook.reader import Path as Place

SECRET_FILE_BYTES_MAX = 65_536

_REFERENCE = re.compile(r"(?<!\$)\$\{(env|file):([^{}]*)\}")
_UNCLOSED = re.compile(r"(?<!\$)\$\{(env|file):[^{}]*(?:\{|\Z)")
_ESCAPED = re.compile(r"\$(\$\{(?:env|file):)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Missing(Exception):  # noqa: N818 - never leaves this module
    def __init__(self, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.suggestion = suggestion


def fill_in(
    document: Document, folder: Path, env: Mapping[str, str], *, expressions: bool = False
) -> list[Problem]:
    """Fill in the document's references in place; return what cannot be filled in.

    `folder` is where relative paths start. `expressions`: the document's strings hold expressions,
    so what is filled in is kept from being read as one.
    """
    problems: list[Problem] = []

    def resolve(path: Place, text: str) -> str:
        def replace(found: re.Match[str]) -> str:
            try:
                value = _look_up(found[1], found[2], folder, env)
            except _Missing as missing:
                offset = found.start()
                problems.append(Problem(path, missing.message, missing.suggestion, offset))
                return found[0]
            if value and value != found[2].partition(":-")[2]:
                document.secrets.setdefault(value, found[0])
            return value.replace("${", "$${") if expressions else value

        unclosed = _UNCLOSED.search(text)
        if unclosed:
            message = f"`${{{unclosed[1]}:` is not closed, or holds a brace"
            problems.append(Problem(path, message, "end it with `}`", unclosed.start()))
            return text
        made = _REFERENCE.sub(replace, text)
        return made if expressions else _ESCAPED.sub(r"\1", made)

    _substitute(document, resolve)
    return problems


def _look_up(kind: str, reference: str, folder: Path, env: Mapping[str, str]) -> str:
    name, with_default, default = reference.partition(":-")
    if kind == "env":
        if not _NAME.fullmatch(name):
            raise _Missing(f"`{name}` is no name of an environment variable", "write ${env:NAME}")
        value = env.get(name, "")
        if value or with_default:
            return value or default
        if name in env:
            raise _Missing(f"the environment variable {name} is empty", f"set {name}")
        near = suggest(name, env)
        raise _Missing(
            f"the environment variable {name} is not set",
            near or f"set {name}, or give a default: ${{env:{name}:-…}}",
        )
    return _read(name, folder, default if with_default else None)


def _read(name: str, folder: Path, default: str | None) -> str:
    if not name:
        raise _Missing("`${file:…}` names no file", "write ${file:PATH}")
    path = folder / name
    try:
        with path.open("rb") as file:
            raw = file.read(SECRET_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        if default is not None:
            return default
        raise _Missing(f"there is no file {name}", f"it is looked for at {path}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise _Missing(f"the file {name} cannot be read: {reason}") from None
    if len(raw) > SECRET_FILE_BYTES_MAX:
        raise _Missing(f"the file {name} has more than {SECRET_FILE_BYTES_MAX:,} bytes")
    try:
        return raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise _Missing(f"the file {name} is not UTF-8 text") from None


def _substitute(document: Document, resolve: Callable[[Place, str], str]) -> None:
    def walk(value: Any, path: Place) -> Any:
        if isinstance(value, str):
            made = resolve(path, value) if "${" in value else value
            if made != value:
                document.replaced[path] = value
            return made
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        return value

    document.value = walk(document.value, ())
