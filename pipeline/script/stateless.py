"""Whether a JavaScript source is functions alone, which hold nothing from one call to the next.

In: a script's text. Out: yes, where its functions need not be made anew for each call; no wherever
that is not plain to see. It is plain where the top has only declarations of functions, and each of
their names is only ever called: so none of them can be given fields, or be replaced.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
    |(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<name>[A-Za-z_$][\w$]*)
    |(?P<number>(?:0[xXbBoO][\da-fA-F]+|\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)n?)
    |(?P<sign>[-+*%&|^=!<>?:;,.~(){}\[\]])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_PATTERN = re.compile(r"/(?![*/])(?:[^\\/\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*")
# With these a function may be had without its name.
_REACHING = frozenset({"eval", "Function", "with", "callee", "caller", "prepareStackTrace"})
# After these words a slash begins a pattern.
_BEFORE_VALUES = frozenset(
    {"return", "typeof", "case", "in", "of", "delete", "void", "throw", "new", "else", "do"}
)
_OPEN, _CLOSE = frozenset("([{"), frozenset(")]}")


def is_stateless(source: str) -> bool:
    """Return whether the script's functions may serve all calls."""
    tokens = _tokens(source)
    if not tokens:
        return False
    names = _declared(tokens)
    return names is not None and all(
        _is_called(tokens, at) for at, token in enumerate(tokens) if token in names
    )


def _tokens(source: str) -> list[str] | None:
    """Return the texts of tokens; a text or a pattern is a quote. None: it is not plain."""
    tokens: list[str] = []
    at = 0
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is not None:
            kind, text = found.lastgroup, found[0]
            if text in _REACHING:
                return None
            if kind != "space":
                tokens.append('"' if kind == "text" else text)
            at = found.end()
            continue
        if source[at] != "/":  # a template, an escape in a name, a letter past ASCII, …
            return None
        before = tokens[-1] if tokens else ""
        if before in _BEFORE_VALUES or (before and before in "([{,;=:?!&|+-*%~^<>"):
            pattern = _PATTERN.match(source, at)
            if pattern is None:
                return None
            tokens.append('"')
            at = pattern.end()
            continue
        if before in (")", "}") and "/" in source[at + 1 :].split("\n", 1)[0]:
            return None  # a quotient, or a pattern after a condition or a block
        tokens.append("/")
        at += 1
    return tokens


def _declared(tokens: list[str]) -> frozenset[str] | None:
    """Return the functions' names; None: there is something else at the top."""
    names = set()
    at = 0
    if tokens[0] == '"':  # 'use strict'
        at = 2 if tokens[1:2] == [";"] else 1
    while at < len(tokens):
        if tokens[at] == ";":
            at += 1
            continue
        if tokens[at] != "function" or tokens[at + 2 : at + 3] != ["("]:
            return None
        names.add(tokens[at + 1])
        body = _behind(tokens, at + 2)
        if tokens[body : body + 1] != ["{"]:
            return None
        at = _behind(tokens, body)
        if at < 0:
            return None
    return frozenset(names) if names else None


def _behind(tokens: list[str], opening: int) -> int:
    """Return the place behind the bracket that closes the one here; -1: there is none."""
    depth = 0
    for at in range(opening, len(tokens)):
        depth += (tokens[at] in _OPEN) - (tokens[at] in _CLOSE)
        if depth == 0:
            return at + 1
    return -1


def _is_called(tokens: list[str], at: int) -> bool:
    before = tokens[at - 1] if at else ""
    return before == "." or (before != "new" and tokens[at + 1 : at + 2] == ["("])
