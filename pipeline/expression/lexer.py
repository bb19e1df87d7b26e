"""Source text in, tokens out: the lexis of the CEL language definition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.expression.fault import ExpressionFault
from pipeline.expression.literals import bytes_value, number_value, string_value

KEYWORDS = frozenset({"true", "false", "null", "in"})
RESERVED = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let"}
    | {"loop", "package", "namespace", "return", "var", "void", "while"}
)

# Longest first where one is the beginning of another. A number never holds its sign: the parser
# joins the two, so that the smallest int can be written.
_TOKEN = re.compile(
    r"""
    (?P<space>   (?: [\t\n\f\r ]+ | //[^\n]* )+ )
  | (?P<text>    [bB]?[rR]? (?: \"\"\" | ''' | " | ' ) )
  | (?P<number>  0x[0-9a-fA-F]+[uU]? | (?: [0-9]*\.[0-9]+ (?:[eE][+-]?[0-9]+)?
                 | [0-9]+[eE][+-]?[0-9]+ ) | [0-9]+[uU]? )
  | (?P<word>    [_a-zA-Z][_a-zA-Z0-9]* )
  | (?P<quoted>  `[a-zA-Z0-9_.\-/ ]+` )
  | (?P<sign>    && | \|\| | == | != | <= | >= | [-+*/%<>!?:.,()\[\]{}] )
    """,
    re.VERBOSE,
)
_HINTS = {
    "=": "to compare, write `==`",
    "&": "and is written `&&`",
    "|": "or is written `||`",
    "“": 'write straight quotes: "…"',
    "”": 'write straight quotes: "…"',
    "\u2018": "write straight quotes: '…'",
    "\u2019": "write straight quotes: '…'",
}


@dataclass(frozen=True, slots=True)
class Token:
    """One token. `kind`: `word`, `quoted`, `literal`, `end`, or the sign or keyword itself.

    `value` is a literal's value, else the text; `type` is a literal's CEL type; `end` is the
    offset behind it.
    """

    kind: str
    value: Any
    at: int
    end: int
    type: str = ""


def tokens(source: str, start: int = 0) -> Iterator[Token]:
    """Yield the tokens of `source` from `start` on, and `end` as the last one.

    Lazy: a caller that stops early, as a template does at its closing brace, never sees a fault
    behind that place. Raises `ExpressionFault` at what is no token.
    """
    at = start
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            char = source[at]
            raise ExpressionFault(f"unexpected character {char!r}", at, _HINTS.get(char, ""))
        kind = found.lastgroup
        if kind == "text":
            token = _text(source, found)
        elif kind == "number":
            token = _number(found)
        else:
            token = _plain(found)
        at = token.end
        if kind != "space":
            yield token
    yield Token("end", "", len(source), len(source))


def _plain(found: re.Match[str]) -> Token:
    text, at, end = found.group(), found.start(), found.end()
    kind = found.lastgroup
    if text in KEYWORDS:
        if text == "in":
            return Token("in", text, at, end)
        value = {"true": True, "false": False, "null": None}[text]
        return Token("literal", value, at, end, "null" if value is None else "bool")
    if kind == "quoted":
        return Token("quoted", text[1:-1], at, end)
    return Token("word" if kind == "word" else text, text, at, end)


def _number(found: re.Match[str]) -> Token:
    text, at = found.group(), found.start()
    value, kind = number_value(text)
    after = found.string[found.end() : found.end() + 1]
    if after == "_" or (after.isascii() and after.isalnum()):
        raise ExpressionFault(f"{text}{after}… is no number", at)
    return Token("literal", value, at, found.end(), kind)


def _text(source: str, found: re.Match[str]) -> Token:
    opening, at, start = found.group(), found.start(), found.end()
    prefix = opening.rstrip("\"'").lower()
    quote = opening[len(prefix) :]
    raw = "r" in prefix
    end = _closing(source, start, quote, raw=raw)
    if end < 0:
        raise ExpressionFault(f"the text that begins here has no closing {quote}", at)
    inner = source[start:end]
    if "b" in prefix:
        return Token("literal", bytes_value(inner, start, raw=raw), at, end + len(quote), "bytes")
    return Token("literal", string_value(inner, start, raw=raw), at, end + len(quote), "string")


def _closing(source: str, start: int, quote: str, *, raw: bool) -> int:
    """Return where the closing quote stands, or -1. Only triple quotes may span lines."""
    at = start
    while at < len(source):
        char = source[at]
        if char == "\\" and not raw:
            at += 2
        elif source.startswith(quote, at):
            return at
        elif char in "\r\n" and len(quote) == 1:
            return -1
        else:
            at += 1
    return -1
