from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

from pipeline.errors import ExpressionError

Evaluate = Callable[..., Any]
Failing = Callable[..., ExpressionError]

BIG = 2**63 - 1


@pytest.mark.parametrize("form", ["{0} {op} {1}", "dyn({0}) {op} dyn({1})", "a {op} b"])
@pytest.mark.parametrize(
    ("left", "op", "right", "value"),
    [
        (1, "+", 2, 3),
        (1, "+", 0.5, 1.5),
        (0.5, "-", 1, -0.5),
        (2, "*", 1.5, 3.0),
        (7, "/", 2, 3),
        (-7, "/", 2, -3),
        (7, "/", 2.0, 3.5),
        (-7, "%", 2, -1),
        (7, "%", -2, 1),
        (2, "==", 2.0, True),
        (2, "!=", 2.5, True),
        (1, "<", 1.5, True),
        (2.0, ">=", 2, True),
        (2.5, "<=", 2, False),
        (3, ">", 2.9, True),
    ],
)
def test_numbers_mix_as_in_json(
    *, left: float, op: str, right: float, value: Any, form: str, evaluate: Evaluate
) -> None:
    """Int and double mix, whether their types are known when compiling or not."""
    found = evaluate(form.format(left, right, op=op), a=left, b=right)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1 + 1u", 2),
        ("1u + 0.5", 1.5),
        ("3u - 1u", 2),
        ("7u / 2u", 3),
        ("1u < 2 && 2u == 2.0", True),
        ("-1 < 1u", True),
    ],
)
def test_uints_mix_too_and_leave_as_plain_ints(source: str, value: Any, evaluate: Evaluate) -> None:
    """A uint takes part in arithmetic like any number; no Python subclass of int gets out."""
    assert evaluate(source) == value
    assert type(evaluate(f"[{source}]")[0]) is type(value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("a + 1", "64 bits"),
        ("a * 2", "64 bits"),
        ("-a - 2", "64 bits"),
        ("-(-a - 1)", "64 bits"),
        ("(-a - 1) / -1", "64 bits"),
        ("(-a - 1) % -1", "64 bits"),
        ("1u - 2u", "64 bits (uint)"),
        ("1 / 0", "division by zero"),
        ("1u / 0u", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("d % 1", "whole numbers"),
    ],
)
def test_arithmetic_that_cannot_be_fails(source: str, words: str, failure: Failing) -> None:
    """Overflow, division by zero and % of doubles are errors, not wrong numbers."""
    assert words in failure(source, a=BIG, d=1.5).message


def test_division_of_doubles_follows_ieee_754(evaluate: Evaluate) -> None:
    """A double divided by zero is infinite or not a number, with the right sign."""
    assert evaluate("1.0 / 0.0") == math.inf
    assert evaluate("a / b", a=-1, b=0.0) == -math.inf
    assert evaluate("a / b", a=1, b=-0.0) == -math.inf
    assert math.isnan(evaluate("0.0 / 0.0"))
    assert evaluate("0.0 / 0.0 == 0.0 / 0.0") is False
    assert evaluate("[a] == [a] || a in [a]", a=math.nan) is False


@pytest.mark.parametrize(
    "source",
    ["t + 1", "1 - t", "t * 2.0", "t < 1", "t >= 0.5", "t < a", "l[t]", "t + 1.0", "-t", "t / 1"],
)
def test_a_bool_is_no_number(source: str, failure: Failing) -> None:
    """True is not 1 in arithmetic, order or indexes, though it is in Python."""
    assert "bool" in failure(source, t=True, a=1, l=[1, 2]).message


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("t == 1", False),
        ("1 == t", False),
        ("t != 1.0", True),
        ("t == a", False),
        ("[t] == [1]", False),
        ('{"k": t} == {"k": 1}', False),
        ("t in [1, 1.0]", False),
        ("1 in [t]", False),
        ("t == true", True),
        ("f == 0", False),
        ("t in {1: 2}", False),
        ("1 in {true: 2}", False),
        ("{true: 2} == {1: 2}", False),
        ("{true: 2} == {t: 2}", True),
        ("1 in {1: 2} && 1.0 in {1: 2}", True),
    ],
)
def test_a_bool_equals_no_number(source: str, value: bool, evaluate: Evaluate) -> None:
    """True and 1 are different values and different keys, at every depth."""
    assert evaluate(source, t=True, f=False, a=1) is value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("a == b", True),
        ("a != b", False),
        ("a == c", False),
        ('a == "x"', False),
        ("n == null", True),
        ("a == null", False),
        ('dyn("1") == 1', False),
        ('dyn(b"a") == "a"', False),
        ("dyn([]) == {}", False),
        ("[1, [2]] == [1.0, [2u]]", True),
        ("[1] == [1, 2]", False),
        ('{"x": 1} == {"y": 1}', False),
        ("type(a) == map && type(n) == null_type", True),
        ("type(1) == type(1.0)", False),
    ],
)
def test_equality_compares_values_of_any_type(source: str, value: bool, evaluate: Evaluate) -> None:
    """Equality looks through lists and maps; values of different types differ without an error."""
    a, c = {"k": [1, {"m": None}]}, {"k": [1, {"m": 0}]}
    assert evaluate(source, a=a, b={"k": [1.0, {"m": None}]}, c=c, n=None) is value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('"a" < "b" && s > "A"', True),
        ('b"a" <= b"b"', True),
        ("false < true", True),
        ('"\\U0001F600" > "\\uffff"', True),
        ('"a" + s + "c"', "abc"),
        ('b"a" + b"b"', b"ab"),
        ("[1] + l", [1, 2]),
        ("l + l", [2, 2]),
    ],
)
def test_texts_bytes_and_lists_have_their_operators(
    source: str, value: Any, evaluate: Evaluate
) -> None:
    """Order is by code point; `+` joins."""
    assert evaluate(source, s="b", l=[2]) == value


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("s < 1", "string < int"),
        ("s > l", "string > list"),
        ("l < l", "list < list"),
        ("n <= n", "null <= null"),
        ("s + 1", "string + int"),
        ("s + l", "string + list"),
        ("m + m", "map + map"),
        ("s * 2", "string * int"),
        ("n - 1.0", "null - double"),
        ("1 in s", "int in string"),
        ("l in m", "list in map"),
        ("s[0]", "neither a list nor a map"),
        ("l[-1]", "index -1 is outside"),
        ("l[1]", "index 1 is outside of the list; it has 1 elements"),
        ("l[n]", "null cannot be the index"),
        ("l[0.5]", "double cannot be the index"),
        ("m[n]", "null cannot be a key"),
        ("m[s]", "no such key: text; known: k"),
        ("{s: 1, s: 2}", "stands twice"),
        ("{n: 1}", "null cannot be a key"),
        ("!s", "string is not a bool"),
        ("s ? 1 : 2", "string is not a bool"),
    ],
)
def test_an_operator_on_wrong_types_fails_by_name(
    source: str, words: str, failure: Failing
) -> None:
    """What an operator cannot take is named with its types."""
    assert words in failure(source, s="text", l=[1], m={"k": 1}, n=None).message


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("2 in l", True),
        ("2.0 in l", True),
        ("9 in l", False),
        ('s in ["on", "off"]', True),
        ('s in ["a", "b", "c", "d", "e", "f", "g", "h", "on"]', True),
        ('l in ["a", "b", "c", "d", "e", "f", "g", "h", "on"]', False),
        ("null in [1, n]", True),
        ("[1] in [[1.0]]", True),
        ("s in m", True),
        ("1 in m", False),
        ("l[0] + l[1u] + l[dyn(1.0)]", 5),
        ("m[s]", 1),
        ('{"a" + s: 1, 2: 3}[2.0]', 3),
    ],
)
def test_lists_and_maps_are_searched_and_indexed(
    source: str, value: Any, evaluate: Evaluate
) -> None:
    """`in` and indexes use CEL's equality; a whole double is an index as JSON would have it."""
    assert evaluate(source, l=[1, 2], s="on", m={"on": 1}, n=None) == value


def test_any_mapping_and_tuple_of_a_scope_is_read(evaluate: Evaluate) -> None:
    """A scope may hold read-only views and tuples; they are maps and lists."""
    scope = {"m": MappingProxyType({"a": {"b": 1}}), "t": (1, 2)}
    assert evaluate("m.a.b + t[1] + size(t) + size(m)", **scope) == 6
    assert evaluate(
        'has(m.a) && "a" in m && 2 in t && t == [1, 2] && m == {"a": {"b": 1}}', **scope
    )
    assert evaluate("t + [3]", **scope) == [1, 2, 3]
    assert evaluate("m", **scope) is scope["m"]


def test_a_number_beyond_every_double_fails_politely(failure: Failing) -> None:
    """An int of a message may be longer than a double reaches; that is an error of the message."""
    assert "too large" in failure("a * 1.5", a=10**400).message
    assert "64 bits" in failure("a + 1", a=10**400).message
