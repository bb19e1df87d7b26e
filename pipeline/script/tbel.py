"""ThingsBoard's TBEL (its dialect of MVEL) → JavaScript of the same meaning, line for line.

In: a converter's text. Out: JavaScript for the same engine, which finds what TBEL has and
JavaScript lacks in `tbel.js`. It goes token by token:

- `foreach (x : list)` and `for (x : list)` go over `$each(list)`;
- `a.?b.c` is null where `b` is, as `a?.b?.c` is undefined, which comes out as null too;
- `===` is `==`: a missing value is null in TBEL;
- methods of Java's lists, maps and texts have names of their own (`.size()` → `.$size()`), so that
  a value of that name is never taken for one;
- a double that becomes a part of a text is `$double(…)`, which writes it as Java does;
- `1L`, `2.5f` lose their letters, `new int[3]` and typed variables their types.

What is not translated: lambdas, `with`, `isdef`, `soundslike`, imports. Whole numbers past 2^53 are
doubles, and those past 32 bits are cut to 32 by shifts and masks, as in JavaScript.
"""

from __future__ import annotations

import re

from pipeline.script.tbel_text import doubles_in_texts

TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<comment>//[^\n]*|/\*.*?\*/)
    |(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<number>0[xX][0-9A-Fa-f]+[lL]?|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[lLfFdDB]?)
    |(?P<name>[A-Za-z_$][\w$]*)
    |(?P<sign>===|!==|\.\?|>>>=|>>>|<<=|>>=|[-+*/%&|^=!<>]=|&&|\|\||\+\+|--|<<|>>|.)""",
    re.VERBOSE | re.DOTALL,
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


METHODS = _words(
    "add addAll clear contains containsKey containsValue entrySet equals equalsIgnoreCase get"
    " getKey getOrDefault getValue hashCode intValue doubleValue longValue floatValue byteValue"
    " isEmpty isBlank keySet keys length put putAll putIfAbsent remove removeAll replace replaceAll"
    " replaceFirst set size subList toArray toList toUpperCase toLowerCase toString values sort"
    " matches split indexOf lastIndexOf compareTo getBytes strip shift sum avg"
)
_TYPES = _words(
    "int long double float short byte char boolean String Integer Long Double Float Byte Boolean"
    " Object List Map ArrayList HashMap def"
)
_CLASSES = _words(
    "Integer Long Double Float Byte Boolean String Math Arrays Collections Date JSON Object"
)
_ARRAYS = _words("int long double float short byte char boolean String Object")
_CASTS = {"int": "$int(", "long": "$int(", "char": "$char(", "float": "$float(", "double": "("}
_OPEN, _CLOSE = {"(": ")", "[": "]", "{": "}"}, frozenset(")]}")


def translate(source: str) -> str:
    """Return the JavaScript. What is no TBEL comes out as it is, for the engine to complain."""
    return _Translation(source).text()


class _Translation:
    def __init__(self, source: str) -> None:
        found = [(match.lastgroup or "", match[0]) for match in TOKEN.finditer(source)]
        self._tokens = found
        self._out = [text for _, text in found]
        self._prefixes: dict[int, str] = {}
        self._suffixes: dict[int, str] = {}
        # Where each token that means something stands, and its place among those.
        self._places = [i for i, (kind, _) in enumerate(found) if kind not in ("space", "comment")]

    def text(self) -> str:
        """Return the translation."""
        for order in range(len(self._places)):
            kind, text = self._at(order)
            if kind == "number":
                self._number(order, text)
            elif kind == "name":
                self._name(order, text)
            elif kind == "sign":
                self._sign(order, text)
        self._scope_blocks()
        for begin, end in doubles_in_texts([self._tokens[place] for place in self._places]):
            self._before(begin, "$double(")
            self._after(end, ")")
        for place, text in self._prefixes.items():
            self._out[place] = text + self._out[place]
        for place, text in self._suffixes.items():
            self._out[place] += text
        return "".join(self._out)

    def _sign(self, order: int, text: str) -> None:
        if text == ".?":
            self._safe(order)
        elif text in ("===", "!=="):
            self._put(order, text[:2])
        elif text == "(" and self._at(order + 1)[1] in _CASTS and self._is(order + 2, ")"):
            self._cast(order)
        elif text == "/":
            self._division(order)
        elif text == "?":
            self._choice(order)

    def _before(self, order: int, text: str) -> None:
        place = self._places[order]
        self._prefixes[place] = text + self._prefixes.get(place, "")

    def _after(self, order: int, text: str) -> None:
        place = self._places[order]
        self._suffixes[place] = self._suffixes.get(place, "") + text

    def _at(self, order: int) -> tuple[str, str]:
        if not 0 <= order < len(self._places):
            return "", ""
        return self._tokens[self._places[order]]

    def _is(self, order: int, text: str) -> bool:
        return self._at(order)[1] == text

    def _put(self, order: int, text: str) -> None:
        self._out[self._places[order]] = text

    def _closing(self, order: int) -> int:
        """Return the place of the bracket that closes the one at `order`; -1: there is none."""
        depth = 0
        for at in range(order, len(self._places)):
            text = self._at(at)[1]
            if text in _OPEN:
                depth += 1
            elif text in _CLOSE:
                depth -= 1
                if depth == 0:
                    return at
        return -1

    def _number(self, order: int, text: str) -> None:
        if text[:2] in ("0x", "0X"):
            self._put(order, text.rstrip("lL"))
        else:
            self._put(order, text.rstrip("lLfFdDB"))

    def _name(self, order: int, text: str) -> None:
        before = self._at(order - 1)[1]
        if before in (".", ".?"):
            after = self._at(order + 1)[1]
            if self._at(order - 2)[1] in _CLASSES:
                return
            if after == "(" and text in METHODS:
                self._put(order, f"${text}")
            elif (text == "size" and after not in ("(", "=", "++", "--", "+=", "-=")) or (
                text == "keys" and after == "."
            ):
                self._put(order, f"${text}Of()")
        elif text in ("foreach", "for") and self._is(order + 1, "("):
            self._loop(order)
        elif text == "new" and self._at(order + 1)[1] in _ARRAYS and self._is(order + 2, "["):
            self._array(order)
        elif text in _TYPES and self._at(order + 1)[0] == "name" and self._is(order + 2, "="):
            if before in ("", ";", "{", "}", "(", ")"):
                self._put(order, "var")
        elif text in ("nil", "empty") and before in ("==", "!=", "===", "!=="):
            self._put(order, "null")

    def _loop(self, order: int) -> None:
        at = order + 2
        while self._at(at + 1)[0] == "name":  # a type, or `var`
            at += 1
        if self._at(at)[0] != "name" or not self._is(at + 1, ":"):
            return
        closing = self._closing(order + 1)
        if closing < 0:
            return
        for typed in range(order + 2, at):
            self._put(typed, "")
        self._put(order, "for")
        self._put(at, f"var {self._at(at)[1]}")
        self._put(at + 1, " of $each(")
        self._put(closing, "))")

    def _array(self, order: int) -> None:
        closing = self._closing(order + 2)
        if closing < 0:
            return
        self._put(order, "")
        self._put(order + 1, "")
        if self._is(closing + 1, "{"):  # new int[] {1, 2}
            self._put(order + 2, "")
            self._put(closing, "")
            end = self._closing(closing + 1)
            self._put(closing + 1, "[")
            if end > 0:
                self._put(end, "]")
            return
        self._put(order + 2, "$array(")
        self._put(closing, ")")

    def _safe(self, order: int) -> None:
        """`a.?b.c` → `a?.b?.c`."""
        self._put(order, "?.")
        after = self._at(order + 2)[1]
        if after in (".", "["):
            self._put(order + 2, "?." if after == "." else "?.[")

    def _operand(self, order: int) -> int:
        """Return where the operand that begins at `order` ends; -1: it is not a plain one."""
        kind, text = self._at(order)
        if text == "(":
            order = self._closing(order)
        elif kind not in ("number", "name"):
            return -1
        while order >= 0:
            after = self._at(order + 1)[1]
            if after in (".", ".?") and self._at(order + 2)[0] == "name":
                order += 2
            elif after in ("(", "["):
                order = self._closing(order + 1)
            else:
                return order
        return -1

    def _cast(self, order: int) -> None:
        """`(int) x` → `$int(x)`."""
        end = self._operand(order + 3)
        if end < 0 or self._at(order - 1)[0] == "name":
            return
        self._put(order, "")
        self._put(order + 1, "")
        self._put(order + 2, _CASTS[self._at(order + 1)[1]])
        self._after(end, ")")

    def _division(self, order: int) -> None:
        """`bytes[i] / 2` → `$quotient(bytes, bytes[i] / 2)`."""
        if not self._is(order - 1, "]") or self._at(order + 1)[0] != "number":
            return
        opening, depth = order - 1, 0
        while opening >= 0:
            text = self._at(opening)[1]
            depth += (text in _CLOSE) - (text in _OPEN)
            if depth == 0:
                break
            opening -= 1
        kind, name = self._at(opening - 1)
        number = self._at(order + 1)[1]
        if kind != "name" or self._at(opening - 2)[1] in (".", ".?") or not number.isdigit():
            return
        self._before(opening - 1, f"$quotient({name}, ")
        self._after(order + 1, ")")

    def _choice(self, order: int) -> None:
        """`{a: x ? "b" : c}` is `{"b": c}` to TBEL: within a map, the last colon counts."""
        if self._at(order + 1)[0] not in ("text", "name", "number") or not self._is(order + 2, ":"):
            return
        at, depth = order - 1, 0
        while at > 0:
            text = self._at(at)[1]
            depth += (text in _CLOSE) - (text in _OPEN)
            if depth < 0 or (depth == 0 and text in (";", "?", "=", "return", "case")):
                return
            if depth == 0 and text == ":":
                break
            at -= 1
        if self._at(at - 1)[0] in ("name", "text") and self._at(at - 2)[1] in ("{", ","):
            for erased in range(at - 1, order + 1):
                self._put(erased, "")

    def _scope_blocks(self) -> None:
        """Let a variable of a block be its own where its function reads the outer one before."""
        functions = []
        for order in range(len(self._places)):
            if self._is(order, "function"):
                opening = order
                while opening < len(self._places) and not self._is(opening, "{"):
                    opening += 1
                functions.append((opening, self._closing(opening)))
        declared = [
            (order, self._at(order + 1)[1])
            for order in range(len(self._places))
            if self._is(order, "var") and self._at(order + 1)[0] == "name"
        ]
        outer = {
            name
            for order, name in declared
            if not any(begin < order < end for begin, end in functions)
        }
        for begin, end in functions:
            inner = [each for each in declared if begin < each[0] < end and each[1] in outer]
            for name in {name for _, name in inner}:
                first = min(order for order, each in inner if each == name)
                if any(self._reads(order, name) for order in range(begin, first)):
                    for order, each in inner:
                        if each == name:
                            self._put(order, "let")

    def _reads(self, order: int, name: str) -> bool:
        return (
            self._is(order, name)
            and not self._is(order + 1, ":")
            and self._at(order - 1)[1] not in (".", ".?")
        )
