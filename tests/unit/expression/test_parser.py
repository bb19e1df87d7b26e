from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.expression import ExpressionFault, Limits, compile_expression

Evaluate = Callable[..., Any]
Faulty = Callable[..., ExpressionFault]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 3 - 2", 5),
        ("2 * 7 % 4", 2),
        ("1 + 1 == 2 && 3 > 2", True),
        ("true || false && false", True),
        ("false ? 1 : true ? 2 : 3", 2),
        ("!true || true", True),
        ("--5", 5),
        ("!!false", False),
        ("-[1, 2][1]", -2),
        ("[1, 2,]", [1, 2]),
        ("[,]", []),
        ('{"a": 1,}', {"a": 1}),
        ("{}", {}),
        ("1 // one\n + 1", 2),
        ("\t1\r\n+\f1", 2),
        ("1 in [1] == true", True),
    ],
)
def test_operators_bind_as_in_the_definition(source: str, value: Any, evaluate: Evaluate) -> None:
    """Precedence, grouping, trailing commas, white space and comments follow the grammar."""
    assert evaluate(source) == value


@pytest.mark.parametrize(
    ("source", "offset", "words"),
    [
        ("", 0, "missing"),
        ("  ", 2, "missing"),
        ("1 +", 3, "ends too early"),
        ("(1", 2, "ends too early"),
        ("1 2", 2, "complete before it"),
        ("a.", 2, "name of a field"),
        ("a.1", 1, "complete before it"),
        ("f(a,)", 4, "expected a value"),
        ("[1 2]", 3, "expected `]`"),
        ('{"a" 1}', 5, "expected `:`"),
        ("true ? 1", 8, "expected `:`"),
        ("!-1", 1, "do not mix"),
        ("for", 0, "reserved word"),
        ("a = 1", 2, "unexpected character '='"),
        ("a.in", 2, "name of a field"),
        ("a.?b", 2, "optional access"),
        ("a[?0]", 2, "optional access"),
        ("Foo{a: 1}", 3, "messages such as Foo{…} are not supported"),
        ("a.b.Foo{}", 7, "messages such as a.b.Foo{…} are not supported"),
    ],
)
def test_a_syntax_fault_says_what_and_where(
    source: str, offset: int, words: str, fault: Faulty
) -> None:
    """Each syntax fault names what was expected and the offset of the place."""
    found = fault(source)
    assert words in found.message
    assert found.offset == offset


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("a = 1", "`==`"),
        ("a and b", "`&&`"),
        ("a or b", "`||`"),
        ("a & b", "`&&`"),
        ("a == “x”", "straight quotes"),
        ("has(a['b'])", "in map"),
        ("[1].map(1, 2)", "list.map(x, …)"),
    ],
)
def test_a_common_slip_gets_a_hint(source: str, hint: str, fault: Faulty) -> None:
    """Who writes another language's operator is told CEL's."""
    assert hint in fault(source).suggestion


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("has(a)", "asks for one field"),
        ("has(a.b, c)", "asks for one field"),
        ("has()", "asks for one field"),
        ("[1].all(x)", "list.all(x, test)"),
        ("[1].map(x)", "list.map(x, value)"),
        ("[1].filter(x.y, true)", "first argument"),
        ("[1].exists(.x, true)", "first argument"),
        ("all([1], true)", "needs a list"),
    ],
)
def test_a_misused_macro_is_a_fault_that_shows_its_use(
    source: str, words: str, fault: Faulty
) -> None:
    """A macro with wrong arguments says how it is written."""
    assert words in fault(source).message


def test_reserved_words_and_odd_names_may_be_fields(evaluate: Evaluate) -> None:
    """A field may have the name of a reserved word, or any name in backquotes or brackets."""
    assert evaluate("a.for + a.`x-y` + a['in']", a={"for": 1, "x-y": 2, "in": 3}) == 6


def test_a_source_over_the_limit_is_a_fault(fault: Faulty) -> None:
    """The length of a source is limited, and the limit can be set."""
    assert "at most 8192" in fault("1" + " " * 8192).message
    assert "at most 3" in fault("1 + 1", limits=Limits(source_chars_max=3)).message


@pytest.mark.parametrize(
    "source",
    [
        "(" * 65 + "1" + ")" * 65,
        "[" * 65 + "]" * 65,
        "1" + " + 1" * 65,
        "a" + ".b" * 65,
        "-" * 65 + "a",
        "!" * 4000 + "a",
        "(1 || 2 && 3 < 4 + 5 * " * 200,
        "[" * 4000,
        "a ? b : " * 1000,
    ],
)
def test_deep_nesting_is_a_fault_and_no_crash(source: str, fault: Faulty) -> None:
    """However an expression nests, past the limit it is refused."""
    assert "nested" in fault(source).message


@pytest.mark.parametrize(
    "source",
    [
        "(" * 60 + "true" + ")" * 60,
        " && ".join(["true"] * 900),
        " || ".join(["false"] * 900) + " || true",
        "[" * 60 + "]" * 60 + " != null",
        "0" + " + 0" * 60 + " == 0",
        "false ? false : " * 60 + "true",
        "!" * 60 + "true",
        "(false || (true && " * 24 + "true" + "))" * 24,
        "[true].all(x, " * 28 + "x" + ")" * 28,
        "(true && (1/0 == 0 || " * 24 + "true" + "))" * 24,
        "[[true].exists(x, x)].all(y, " * 20 + "y" + ")" * 20,
    ],
)
def test_nesting_below_the_limit_compiles_and_runs(source: str) -> None:
    """What the grammar must allow works, though Python itself nests blocks only 20 deep."""
    assert compile_expression(source).test({})
