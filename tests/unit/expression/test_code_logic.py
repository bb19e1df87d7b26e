from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from pipeline.errors import ExpressionError
from pipeline.expression import ExpressionFault

Evaluate = Callable[..., Any]
Failing = Callable[..., ExpressionError]
Faulty = Callable[..., ExpressionFault]

SCOPE: dict[str, Any] = {"t": True, "f": False, "n": 1, "l": [1, 2, 3], "m": {"a": 1, "b": 2}}
OPERANDS = {"t": True, "f": False, "t.missing": None, "n": None, "1 / 0 == 0": None}


@pytest.mark.parametrize(("left", "right"), list(product(OPERANDS, OPERANDS)))
@pytest.mark.parametrize("sign", ["&&", "||"])
def test_an_error_counts_only_where_nothing_decides(
    left: str, right: str, sign: str, evaluate: Evaluate
) -> None:
    """False decides `&&` and true decides `||` from either side; else an error is the result."""
    decisive = sign == "||"
    values = (OPERANDS[left], OPERANDS[right])
    source = f"({left}) {sign} ({right})"
    if decisive in values:
        assert evaluate(source, **SCOPE) is decisive
    elif None in values:
        with pytest.raises(ExpressionError):
            evaluate(source, **SCOPE)
    else:
        assert evaluate(source, **SCOPE) is (not decisive)


@pytest.mark.parametrize("order", ["e && t && f", "t && e && f", "f && e && e", "e && e && f"])
def test_a_row_is_decided_from_any_place(order: str, evaluate: Evaluate) -> None:
    """In a row of three or more, one deciding operand is enough, wherever it stands."""
    assert evaluate(order.replace("e", "t.x"), **SCOPE) is False


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("(m.x == 1 && t) || t", True),
        ("(m.x == 1 || f) && f", False),
        ("!(m.x == 1 || t)", False),
        ("[m.x == 1 || t, t && f]", [True, False]),
        ("(t ? m.x == 1 : f) || t", True),
        ("f || (n == 1 ? t : m.x)", True),
    ],
)
def test_absorbed_errors_stay_inside(source: str, value: Any, evaluate: Evaluate) -> None:
    """Rows nest in each other, in conditions and in lists, and absorb only their own errors."""
    assert evaluate(source, **SCOPE) == value


def test_the_first_error_of_a_row_is_told(failure: Failing) -> None:
    """The error that comes out has the message and the place of the operand that failed."""
    found = failure("m.first == 1 || f || m.second == 2", **SCOPE)
    assert "first" in found.message
    assert found.detail["offset"] == 2


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("t ? 1 : m.x", 1),
        ("f ? m.x : 2", 2),
        ("t ? l.map(x, x) : m.x", [1, 2, 3]),
        ("f ? l.exists(x, m.x == 1) : l.all(x, x > 0)", True),
        ('n > 0 ? "many" : "none"', "many"),
    ],
)
def test_a_condition_evaluates_one_side(source: str, value: Any, evaluate: Evaluate) -> None:
    """The side that is not taken may fail without harm."""
    assert evaluate(source, **SCOPE) == value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("l.all(x, x > 0)", True),
        ("l.all(x, x > 1)", False),
        ("[].all(x, x > 1)", True),
        ("l.all(x, 6 / (x - 1) > 5)", False),
        ("l.exists(x, x == 3)", True),
        ("l.exists(x, x == 4)", False),
        ("[].exists(x, true)", False),
        ("l.exists(x, 6 / (x - 1) == 3)", True),
        ("l.exists_one(x, x > 2)", True),
        ("l.exists_one(x, x > 1)", False),
        ("l.map(x, x * 2)", [2, 4, 6]),
        ("l.map(x, x > 1, x * 2)", [4, 6]),
        ("l.filter(x, x != 2)", [1, 3]),
        ("m.map(k, k)", ["a", "b"]),
        ("m.filter(k, m[k] > 1)", ["b"]),
        ("m.all(k, m[k] > 0)", True),
        ("l.map(x, l.map(y, x * y))", [[1, 2, 3], [2, 4, 6], [3, 6, 9]]),
        ("l.map(x, [10].map(x, x)[0] + x)", [11, 12, 13]),
        ("l.map(x, .x)", [9, 9, 9]),
        ("l.map(n, n)[0] + n", 2),
        ("l.map(int, int + 1)", [2, 3, 4]),
        ("l.filter(x, l.exists(y, y == x + 1)).size()", 2),
        ("l.map(x, t || m.q, x)", [1, 2, 3]),
    ],
)
def test_macros_go_over_elements_and_keys(source: str, value: Any, evaluate: Evaluate) -> None:
    """Each macro gives what the definition says; its variable hides others only inside of it."""
    assert evaluate(source, **SCOPE, x=9) == value


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("l.all(x, 6 / (x - 1) > 0)", "division by zero"),
        ("l.exists(x, 6 / (x - 1) < 0)", "division by zero"),
        ("l.exists_one(x, 6 / (x - 1) == 3)", "division by zero"),
        ("l.map(x, m.q)", "no such key: q"),
        ("l.filter(x, n)", "int is not a bool"),
        ("l.all(x, n)", "int is not a bool"),
        ("n.map(x, x)", "neither a list nor a map"),
        ("l.map(x, x.y)", "no key y"),
    ],
)
def test_errors_in_macros_come_out(source: str, words: str, failure: Failing) -> None:
    """Where no element decides, an error of one is the error of the macro."""
    assert words in failure(source, **SCOPE).message


@pytest.mark.parametrize(
    ("source", "offset"),
    [
        ("t && 1", 5),
        ('"a" || t', 0),
        ("!1", 1),
        ("1 ? 2 : 3", 0),
        ("l.all(x, 1)", 9),
        ("1.map(x, x)", 2),
    ],
)
def test_what_is_never_a_bool_or_a_list_is_a_fault(source: str, offset: int, fault: Faulty) -> None:
    """A constant of another type where a bool or list must be is found when compiling."""
    assert fault(source).offset == offset
