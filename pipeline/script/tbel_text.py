"""Where TBEL makes a text of a double, which Java writes with a point: `"V" + 10 / 10` is `V1.0`.

In: the tokens of a converter. Out: the places of the numbers that must be written so. JavaScript
knows one kind of number, so the kind is found by reading: a quotient, a literal with a point, a
result of functions that give doubles, sums and products with one of these, and variables that are
given nothing else. What comes out of a list, a map or a function of the script is not followed;
it is written as a whole number where it is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Token = tuple[str, str]
Kind = Literal["double", "text", ""]
Span = tuple[int, int]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SIGNED = frozenset("+-!~")
_FACTORS = frozenset("*/%")
_TERMS = frozenset("+-")
_OPEN, _CLOSE = {"(": ")", "[": "]", "{": "}"}, frozenset(")]}")
_CASTS: dict[str, Kind] = {
    "double": "double", "float": "double", "int": "", "long": "", "char": "", "short": "",
    "byte": "", "String": "text",
}  # fmt: skip
_FUNCTIONS = _words(
    "parseFloat parseDouble parseBytesToFloat parseBytesToDouble parseBytesIntToFloat"
    " parseBytesLongToDouble parseHexToFloat parseHexToDouble toFixed intBitsToFloat doubleValue"
    " floatValue sqrt cbrt pow exp log log10 floor ceil sin cos tan asin acos atan atan2"
)
# After these an expression begins, unless they are a sign of a number's own.
_BEGINS = _words("( [ { } , ; : ? = += == != === !== > < >= <= && || ! return")
_ENDS = _words(") ] } , ; :")
_GIVES = _words("= += -= *= /= %=")


def doubles_in_texts(tokens: Sequence[Token]) -> list[Span]:
    """Return the first and the last token of each number to be written with a point.

    `tokens`: those that mean something, as (kind, text), see `tbel.TOKEN`.
    """
    return _Reading(tokens).spans() if _makes_texts(tokens) else []


def _makes_texts(tokens: Sequence[Token]) -> bool:
    """Return whether anything may be put together with a text, or shown as one."""
    words = {text for _, text in tokens}
    return not words.isdisjoint(("toString", "valueOf")) or (
        not words.isdisjoint(("+", "+=")) and any(kind == "text" for kind, _ in tokens)
    )


class _Reading:
    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._names: dict[str, Kind] = {}
        self._spans: list[Span] = []
        self._learn()

    def spans(self) -> list[Span]:
        for at in range(len(self._tokens)):
            before = self._at(at - 1)[1]
            if at == 0 or before in _BEGINS:
                is_text = before == "+=" and self._names.get(self._at(at - 2)[1]) == "text"
                is_text = is_text or self._is_value_of(at)
                self._sum(at, is_text=is_text, keep=True)
            if self._at(at + 1)[1] == "." and self._at(at + 2)[1] == "toString":
                self._shown(at)
        return sorted(set(self._spans))

    def _at(self, at: int) -> Token:
        return self._tokens[at] if 0 <= at < len(self._tokens) else ("", "")

    def _is_value_of(self, at: int) -> bool:
        return [self._at(n)[1] for n in range(at - 4, at)] == ["String", ".", "valueOf", "("]

    def _shown(self, end: int) -> None:
        """`x.toString()`, `(a / b).toString()`."""
        begin = self._opening(end) if self._at(end)[1] == ")" else end
        if begin < 0 or self._at(begin - 1)[0] == "name" or self._at(begin - 1)[1] in (".", ".?"):
            return
        stop, kind = self._primary(begin, is_bare=True)
        if kind == "double" and stop == end + 1:
            self._spans.append((begin, end))

    def _opening(self, end: int) -> int:
        depth = 0
        for at in range(end, -1, -1):
            text = self._at(at)[1]
            depth += (text in _CLOSE) - (text in _OPEN)
            if depth == 0:
                return at
        return -1

    def _closing(self, begin: int) -> int:
        depth = 0
        for at in range(begin, len(self._tokens)):
            text = self._at(at)[1]
            depth += (text in _OPEN) - (text in _CLOSE)
            if depth == 0:
                return at
        return -1

    # ---- variables ----

    def _learn(self) -> None:
        """Find the variables that are given doubles alone, or texts alone."""
        given = self._all_given()
        # Each is taken for what it is given first, until that is found wrong.
        for name, places in sorted(given.items(), key=lambda each: each[1][0]):
            self._names[name] = self._given(places[0])
        while True:
            wrong = [
                name
                for name, places in given.items()
                if self._names[name] and any(self._names[name] != self._given(at) for at in places)
            ]
            if not wrong:
                return
            for name in wrong:
                self._names[name] = ""

    def _all_given(self) -> dict[str, list[tuple[int, str]]]:
        """Return where each variable's values begin, and by which sign it gets them; of those that
        get all of them by such signs.
        """
        given: dict[str, list[tuple[int, str]]] = {}
        unknown = self._parameters()
        for at, (kind, text) in enumerate(self._tokens):
            before, sign = self._at(at - 1)[1], self._at(at + 1)[1]
            if kind != "name" or before in (".", ".?"):
                continue
            if sign in _GIVES:
                given.setdefault(text, []).append((at + 2, sign))
            elif sign in ("++", "--", ":") or before in ("++", "--"):
                unknown.add(text)
        return {name: places for name, places in given.items() if name not in unknown}

    def _given(self, place: tuple[int, str]) -> Kind:
        at, sign = place
        end, kind = self._sum(at)
        if end < 0 or (self._at(end)[1] not in _ENDS and self._at(end)[0] not in ("", "name")):
            return ""
        if sign == "/=":
            return "double"
        if sign == "=":
            return kind
        own = self._names.get(self._at(at - 2)[1], "")
        return own if sign == "+=" and own == "text" else own if kind != "text" else ""

    def _parameters(self) -> set[str]:
        found = set()
        for at in range(len(self._tokens)):
            if self._at(at)[1] != "function":
                continue
            opening = at + 1 if self._at(at + 1)[1] == "(" else at + 2
            for inner in range(opening + 1, max(opening, self._closing(opening))):
                found.add(self._at(inner)[1])
        return found

    # ---- expressions: where each ends, and of what kind it is; an end of -1: not to be read ----

    def _sum(self, at: int, *, is_text: bool = False, keep: bool = False) -> tuple[int, Kind]:
        """Read terms; with `keep`, keep the doubles that become a part of a text."""
        begin, numbers, found = at, "", []
        while True:
            first = at
            at, kind = self._product(at)
            if at < 0:
                return -1, ""
            if is_text:
                found += [(first, at - 1)] if kind == "double" else []
            elif kind == "text":
                is_text = True
                found += [(begin, first - 2)] if numbers == "double" else []
            elif kind == "double":
                numbers = "double"
            if self._at(at)[1] not in _TERMS or self._at(at)[0] != "sign":
                break
            if self._at(at)[1] == "-" and is_text:
                return -1, ""
            at += 1
        if keep:
            self._spans += found
        return at, "text" if is_text else "double" if numbers else ""

    def _product(self, at: int) -> tuple[int, Kind]:
        end, kind = self._unary(at)
        while end >= 0 and self._at(end)[1] in _FACTORS and self._at(end)[0] == "sign":
            sign, before = self._at(end)[1], end - 1
            end, other = self._unary(end + 1)
            if end < 0 or "text" in (kind, other):
                return -1, ""
            is_double = "double" in (kind, other)
            if sign == "/":
                # A byte divided by a whole number may stay whole: `$quotient`.
                is_double = is_double or self._at(before)[1] != "]"
            kind = "double" if is_double else ""
        return end, kind

    def _unary(self, at: int) -> tuple[int, Kind]:
        while self._at(at)[1] in _SIGNED and self._at(at)[0] == "sign":
            at += 1
        name = self._at(at + 1)[1]
        if self._at(at)[1] == "(" and name in _CASTS and self._at(at + 2)[1] == ")":
            end, _ = self._unary(at + 3)
            return end, _CASTS[name]
        return self._primary(at)

    def _primary(self, at: int, *, is_bare: bool = False) -> tuple[int, Kind]:
        kind, text = self._at(at)
        of: Kind = ""
        if text == "(":
            end = self._closing(at)
            inside, of = self._sum(at + 1)
            at, of = end, of if inside == end else ""
        elif kind == "number":
            is_hex = text[:2] in ("0x", "0X")
            of = "double" if not is_hex and set(text) & set(".eEfFdD") else ""
        elif kind == "text":
            of = "text"
        elif kind == "name" and text not in ("new", "function", "return"):
            of = self._names.get(text, "")
        else:
            return -1, ""
        return (at + 1, of) if is_bare and at >= 0 else self._member(at, of)

    def _member(self, at: int, of: Kind) -> tuple[int, Kind]:
        """Go on from an operand's last token over its fields, items and calls."""
        while at >= 0:
            after = self._at(at + 1)[1]
            if after in (".", ".?") and self._at(at + 2)[0] == "name":
                at, of = at + 2, ""
            elif after == "(":
                of = "double" if self._at(at)[1] in _FUNCTIONS else ""
                at = self._closing(at + 1)
            elif after == "[":
                at, of = self._closing(at + 1), ""
            elif after in ("++", "--"):
                at, of = at + 1, ""
            else:
                return at + 1, of
        return -1, ""
