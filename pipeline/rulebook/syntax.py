"""What a YAML reader says of broken YAML → what is wrong, where, and what to do about it."""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from pipeline.errors import Fault

# What ruamel.yaml says (problem, or context where that tells more) → our words, a suggestion, and
# whether the fault stands where the broken thing began.
_WORDS: tuple[tuple[str, str, str, bool], ...] = (
    (r"character '\\t'", "a tab; YAML indents with spaces", "use two spaces", False),
    (
        r"character '([@`%])'",
        r"a text cannot start with `\1`",
        "put the text in quotes",
        False,
    ),
    (
        r"mapping values are not allowed here",
        "a second `: ` here makes no sense to YAML",
        "put a text that holds `: ` in quotes; check the indentation and the line above",
        False,
    ),
    (
        r"sequence entries are not allowed here",
        "a list cannot start on its key's line",
        "put `- …` on the next line",
        False,
    ),
    (r"unexpected end of stream", "the quote that opens here is never closed", "", True),
    (
        r"expected ',' or '[\]}]', but got '\{'",
        "a `{` in the middle of a value, within `{ }` or `[ ]`",
        "put a value that holds `${…}` in quotes here",
        False,
    ),
    (r"expected ',' or '\]'", "the `[` that opens here is not closed", "add `]` or `,`", True),
    (r"expected ',' or '\}'", "the `{` that opens here is not closed", "add `}` or `,`", True),
    (
        r"expected the node content",
        "a value is missing here",
        "close the `[` or `{` above, or write the value",
        False,
    ),
    (r"unknown escape character '(.)'", r"`\\\1` is no escape", "use '…' or double the \\", False),
    (r"could not find expected ':'", "this line has no `key: value`", "", True),
    (
        r"expected <block end>|expected '<document start>'",
        "this line's indentation fits nothing above it",
        "line it up with the keys or the `-` it belongs to",
        False,
    ),
    (
        r"expected alphabetic or numeric",
        "`*` and `&` start an alias or an anchor",
        "put a text that starts with them in quotes",
        True,
    ),
)


def syntax_fault(file: str, error: MarkedYAMLError) -> Fault:
    """Return the fault of a file that is not YAML."""
    problem = str(error.problem or error.context or "")
    for pattern, message, suggestion, at_start in _WORDS:
        found = re.search(pattern, problem)
        if found:
            mark = (error.context_mark if at_start else None) or error.problem_mark
            return Fault(file, *_place(mark), found.expand(message), suggestion)
    mark = error.problem_mark or error.context_mark
    return Fault(file, *_place(mark), f"not YAML: {problem}")


def _place(mark: Any) -> tuple[int, int]:
    return (0, 0) if mark is None else (mark.line + 1, mark.column + 1)


def character_fault(file: str, text: str, error: ReaderError) -> Fault:
    """Return the fault of a file with a character that YAML does not allow."""
    before = text[: error.position]
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    return Fault(file, line, column, "a control character that YAML does not allow", "remove it")
