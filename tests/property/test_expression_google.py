"""Expressions give what Google's own runtime gives, wherever the two mean to agree.

The generator writes well-typed expressions over a fixed scope, now and then with an operand that
fails or is of a wrong type, so that errors and their absorption are compared as well. It stays
inside of what `pipeline.expression` does not do differently on purpose: arithmetic of one numeric
type, no texts of doubles or times, times in whole microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from cel_expr_python import cel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import ExpressionError
from pipeline.expression import compile_expression

SCOPE: dict[str, Any] = {
    "i": 7,
    "j": -3,
    "big": 2**63 - 1,
    "d": 2.5,
    "e": -0.0,
    "s": "héllo😀",
    "t": True,
    "f": False,
    "n": None,
    "l": [1, 2, 3, 2],
    "names": ["a", "b", "ab", ""],
    "mixed": [1, 1.0, True, "1", None, [1], {"k": 1}],
    "m": {"a": 1, "b": {"c": 2.5, "d": [4, 5]}, "x-y": "z", "": 0},
}
ENVIRONMENT = cel.NewEnv(variables=dict.fromkeys(SCOPE, cel.Type.DYN))
FAILED = "failed"

Text = st.SearchStrategy[str]


def google(source: str) -> Any:
    """Return Google's value of an expression, or `FAILED`."""
    try:
        value = ENVIRONMENT.compile(source, disable_check=True).eval(data=SCOPE)
    except RuntimeError:
        return FAILED
    return FAILED if value.type() == cel.Type.ERROR else plain(value.plain_value())


def ours(source: str) -> Any:
    """Return our value of an expression, or `FAILED`."""
    try:
        return plain(compile_expression(source, names=frozenset(SCOPE))(SCOPE))
    except ExpressionError:
        return FAILED


def plain(value: Any) -> Any:
    """Return a value in a form in which equal means equal: with its type, NaN included."""
    if isinstance(value, bytes | bytearray):
        return ("bytes", bytes(value))
    if isinstance(value, dict):
        return ("map", sorted((str(type(key)), key, plain(value[key])) for key in value))
    if isinstance(value, list):
        return ("list", [plain(element) for element in value])
    if isinstance(value, float) and math.isnan(value):
        return ("double", "nan")
    return (type(value).__name__, value)


def quoted(text: str) -> str:
    """Return a CEL literal of a text."""
    body = "".join(
        char if char.isalnum() and char.isascii() else f"\\U{ord(char):08x}" for char in text
    )
    return f'"{body}"'


def joined(template: str, *parts: Text) -> Text:
    """Return texts made by filling a template's `{}`."""
    return st.tuples(*parts).map(lambda made: template.format(*made))


def one(*texts: str) -> Text:
    return st.sampled_from(texts)


class Grammar:
    """Expressions of each type, up to a depth."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        below = Grammar(depth - 1) if depth else None
        self.ints = self._layer(self._int_leaves(), below, self._ints)
        self.doubles = self._layer(self._double_leaves(), below, self._doubles)
        self.texts = self._layer(self._text_leaves(), below, self._texts)
        self.lists = self._layer(one("l", "mixed", "names", "[]", "m.b.d"), below, self._lists)
        self.maps = self._layer(one("m", "m.b", "{}", '{"q": 1}'), below, self._maps)
        self.times = self._layer(self._time_leaves(), below, self._times)
        self.bools = self._layer(one("t", "f", "true", "false"), below, self._bools)
        self.any = st.one_of(
            self.ints, self.doubles, self.texts, self.lists, self.maps, self.bools, one("n", "null")
        )

    @staticmethod
    def _layer(leaves: Text, below: Grammar | None, grow: Callable[[Grammar], Text]) -> Text:
        failing = one("m.missing", "l[9]", "m.a.b", "big + 1", "i / 0", "mixed[3]", "mixed[4]")
        if below is None:
            return leaves
        usual = [leaves, *[grow(below)] * 6]
        return st.one_of(*usual, failing.map(lambda text: f"dyn({text})"))

    @staticmethod
    def _int_leaves() -> Text:
        numbers = st.integers(-5, 5) | st.sampled_from([2**63 - 1, -(2**63), 2**31])
        return one("i", "j", "big", "m.a", "l[1]") | numbers.map(lambda n: f"({n})")

    @staticmethod
    def _double_leaves() -> Text:
        numbers = st.sampled_from(["0.0", "1.5", "(-2.25)", "1e300", "(0.0 / 0.0)", "(1.0 / 0.0)"])
        return one("d", "e", "m.b.c") | numbers

    @staticmethod
    def _text_leaves() -> Text:
        drawn = st.text(st.characters(codec="utf-8"), max_size=4).map(quoted)
        return one("s", 'm["x-y"]', '""', "names[2]") | drawn

    @staticmethod
    def _time_leaves() -> Text:
        moments = one("2024-02-29T12:30:45.5Z", "1969-12-31T23:59:59+05:30", "2038-01-19T03:14:07Z")
        return moments.map(lambda text: f'timestamp("{text}")')

    @staticmethod
    def _ints(g: Grammar) -> Text:
        part = one("getHours", "getMonth", "getDate", "getDayOfWeek", "getDayOfYear", "getSeconds")
        zone = one("", '"+05:30"', '"Europe/Paris"', '"America/New_York"')
        return st.one_of(
            joined("({} {} {})", g.ints, one("+", "-", "*", "/", "%"), g.ints),
            joined("-({})", g.ints),
            joined("size({})", st.one_of(g.texts, g.lists, g.maps)),
            joined("int({})", st.one_of(g.doubles, g.ints, g.times)),
            joined("({} ? {} : {})", g.bools, g.ints, g.ints),
            joined("{}[{}]", one("l", "m.b.d", "[1, 2]"), g.ints),
            joined("{}.{}({})", g.times, part, zone),
            joined("({} - {}).getMinutes()", g.times, g.times),
        )

    @staticmethod
    def _doubles(g: Grammar) -> Text:
        return st.one_of(
            joined("({} {} {})", g.doubles, one("+", "-", "*", "/"), g.doubles),
            joined("-({})", g.doubles),
            joined("double({})", one("i", "j", "m.a", "l[1]")),
            joined("({} ? {} : {})", g.bools, g.doubles, g.doubles),
        )

    @staticmethod
    def _texts(g: Grammar) -> Text:
        return st.one_of(
            joined("({} + {})", g.texts, g.texts),
            joined("string({})", st.one_of(g.ints, g.bools, g.texts)),
            joined("string(bytes({}))", g.texts),
            joined("({} ? {} : {})", g.bools, g.texts, g.texts),
        )

    @staticmethod
    def _lists(g: Grammar) -> Text:
        return st.one_of(
            joined("[{}, {}]", g.any, g.any),
            joined("({} + {})", g.lists, g.lists),
            joined("{}.map(x, {})", g.lists, one("x", "[x]", "x == 1", "size(x)")),
            joined("l.map(x, x {} {})", one("+", "*", "/", "%"), g.ints),
            joined("{}.map(x, {}, x)", g.lists, g.bools),
            joined("{}.filter(x, {})", g.lists, one("x == 1", "x != n", "x < 3", "x in l")),
            joined("{}.map(x, {}.map(y, [x, y]))", g.lists, g.lists),
            joined("({} ? {} : {})", g.bools, g.lists, g.lists),
        )

    @staticmethod
    def _maps(g: Grammar) -> Text:
        return st.one_of(
            joined('{{"a": {}, "b": {}}}', g.any, g.any),
            joined("{{{}: {}}}", st.one_of(g.texts, g.ints), g.any),
            joined("({} ? {} : {})", g.bools, g.maps, g.maps),
        )

    @staticmethod
    def _times(g: Grammar) -> Text:
        span = one("1h", "90m", "-1.5s", "36h15m2.25s").map(lambda text: f'duration("{text}")')
        return st.one_of(
            joined("({} {} {})", g.times, one("+", "-"), span),
            joined("({} ? {} : {})", g.bools, g.times, g.times),
        )

    @staticmethod
    def _bools(g: Grammar) -> Text:
        order = one("<", "<=", ">", ">=", "==", "!=")
        call = one("contains", "startsWith", "endsWith")
        macro = one("all", "exists", "exists_one")
        test = one("x == 1", "x < 2", "size(x) > 0", "x in l", "x == 1 || x == t", "!(x == n)")
        small = st.one_of(g.ints, g.doubles)
        return st.one_of(
            joined("({} {} {})", g.bools, one("&&", "||"), g.bools),
            joined("({} {} {} {} {})", g.bools, one("&&"), g.bools, one("||"), g.bools),
            joined("!({})", g.bools),
            joined("({} {} {})", g.ints, order, g.ints),
            joined("({} {} {})", g.doubles, order, g.doubles),
            joined("(dyn({}) {} dyn({}))", small, one("<", "==", "!="), one("2", "2.5", "0.0")),
            joined("({} {} {})", g.texts, order, g.texts),
            joined("({} {} {})", g.times, order, g.times),
            joined("(dyn({}) {} dyn({}))", g.any, one("==", "!="), g.any),
            joined("(dyn({}) in dyn({}))", g.any, st.one_of(g.lists, g.maps)),
            joined("{}.{}({})", g.texts, call, g.texts),
            joined("{}.matches({})", g.texts, one('"^[a-z]*$"', '"l+"', "r'\\pL'", '"^$"')),
            joined("{}.{}(x, {})", g.lists, macro, test),
            joined("l.{}(x, 6 / (x - {}) > 2)", macro, g.ints),
            joined("(dyn({}[{}]) == dyn({}))", g.lists, g.ints, g.any),
            joined("{}.{}(k, k == {})", g.maps, macro, g.texts),
            joined("has({}.{})", g.maps, one("a", "b", "zz")),
            joined("(type(dyn({})) == type(dyn({})))", g.any, g.any),
            joined("({} ? {} : {})", g.bools, g.bools, g.bools),
        )


DEEP = Grammar(3)


@settings(
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.one_of(DEEP.bools, DEEP.bools, DEEP.any, DEEP.times))
def test_expressions_equal_googles(source: str) -> None:
    """A generated expression has the same value in both runtimes, or fails in both."""
    assert ours(source) == google(source)


@pytest.mark.parametrize(
    "source",
    [
        "m.b.c > 2.0 && names[0] != 'on'",
        "m.missing == 1 || t",
        "mixed.exists(x, x < 2)",
        "mixed.all(x, x < 2)",
        "i / 0 == 1 ? 1 : 2",
        "-9223372036854775808 % -1",
        "{1: 'a'}[dyn(1.0)]",
        "r'\\d' + '\\x41\\101' + '''a'b'''",
        "b'\\xff\\377' == bytes('a')",
        "18446744073709551615u",
        "int(9223372036854775807.0)",
        "duration('1h').getMilliseconds()",
        "[5].exists(i, .i == 7)",
        "m.`x-y`",
    ],
)
def test_chosen_expressions_equal_googles(source: str) -> None:
    """The corners that a generator rarely meets agree too."""
    assert ours(source) == google(source)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("i + 0.5", 7.5),
        ("dyn(1) + 1u", 2),
        ("i * d", 17.5),
        ("string(1e6)", "1000000"),
        ("string(duration('1.5s'))", "1.5s"),
        ("dyn(9223372036854775807) < 9223372036854775808.0", True),
        ("timestamp('2024-01-01T00:00:00.000000001Z') == timestamp('2024-01-01T00:00:00Z')", True),
    ],
)
def test_deviations_are_real(source: str, value: Any) -> None:
    """Each deviation that the package's docstring names is one: Google's runtime differs."""
    assert ours(source) == plain(value)
    assert google(source) != plain(value)
