"""The text of a literal in, its value out: numbers, and the escapes of strings and bytes."""

from __future__ import annotations

import re

from pipeline.expression.fault import ExpressionFault
from pipeline.expression.kinds import INT_MAX, UINT_MAX, UInt

_ESCAPE = re.compile(
    r"""\\(?:
      (?P<sign>   [abfnrtv\\?"'`] )
    | (?P<byte>   [xX][0-9a-fA-F]{2} | [0-3][0-7][0-7] )
    | (?P<point>  u[0-9a-fA-F]{4} | U[0-9a-fA-F]{8} )
    | (?P<other>  .? )
    )""",
    re.VERBOSE | re.DOTALL,
)
_SIGNS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def number_value(text: str) -> tuple[int | float, str]:
    """Return value and CEL type of a number without a sign.

    An int is not checked against its range here: the smallest one has its sign before it.
    """
    if text[-1] in "uU":
        return UInt(int(text[:-1], 0) if text.startswith("0x") else _decimal(text[:-1])), "uint"
    if text.startswith("0x"):
        return int(text, 16), "int"
    if any(sign in text for sign in ".eE"):
        return float(text), "double"
    return _decimal(text), "int"


def _decimal(digits: str) -> int:
    """Read digits. Python refuses thousands of them; all past the range are alike here."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 20 else UINT_MAX + 1


def in_range(value: int, kind: str, *, negative: bool) -> bool:
    """Return whether a whole number may be a literal of this type."""
    if kind == "uint":
        return not negative and value <= UINT_MAX
    return value <= INT_MAX + negative


def string_value(inner: str, at: int, *, raw: bool) -> str:
    """Return the string that stands between quotes; `at` is where it begins in the source."""
    if raw or "\\" not in inner:
        return inner

    def unescape(found: re.Match[str]) -> str:
        kind, text = _escape(found, at)
        if kind == "sign":
            return _SIGNS.get(text, text)
        code = int(text, 8) if text[0] in "0123" else int(text[1:], 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise ExpressionFault(f"\\{text} is no Unicode character", at + found.start())
        return chr(code)

    return _ESCAPE.sub(unescape, inner)


def bytes_value(inner: str, at: int, *, raw: bool) -> bytes:
    """Return the bytes that stand between quotes: UTF-8, with octal and hex escapes as octets."""
    if raw or "\\" not in inner:
        return inner.encode()
    parts: list[bytes] = []
    done = 0
    for found in _ESCAPE.finditer(inner):
        parts.append(inner[done : found.start()].encode())
        done = found.end()
        kind, text = _escape(found, at)
        if kind == "sign":
            parts.append(_SIGNS.get(text, text).encode())
        elif kind == "byte":
            parts.append(bytes([int(text, 8) if text[0] in "0123" else int(text[1:], 16)]))
        else:
            raise ExpressionFault(
                f"\\{text} cannot stand in bytes", at + found.start(), "write octets: \\xff"
            )
    parts.append(inner[done:].encode())
    return b"".join(parts)


def _escape(found: re.Match[str], at: int) -> tuple[str, str]:
    """Return kind and text of one escape."""
    kind = found.lastgroup or "other"
    text = found.group(kind)
    if kind == "other":
        raise ExpressionFault(
            f"there is no escape \\{text}",
            at + found.start(),
            f'for a backslash write \\\\{text}, or a raw text: r"…"',
        )
    return kind, text
