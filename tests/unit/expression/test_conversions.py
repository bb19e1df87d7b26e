from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import ExpressionError

Evaluate = Callable[..., Any]
Failing = Callable[..., ExpressionError]


@pytest.mark.parametrize(
    ("call", "given", "value"),
    [
        ("int", 3.99, 3),
        ("int", -3.99, -3),
        ("int", "-12", -12),
        ("int", " 5 ", 5),
        ("int", 9223372036854774784.0, 9223372036854774784),
        ("uint", 3.99, 3),
        ("uint", "7", 7),
        ("uint", 18446744073709551615, 2**64 - 1),
        ("double", 3, 3.0),
        ("double", "1.5e3", 1500.0),
        ("double", "-inf", float("-inf")),
        ("bool", "true", True),
        ("bool", "True", True),
        ("bool", "0", False),
        ("bool", True, True),
        ("bytes", "é", b"\xc3\xa9"),
        ("bytes", b"\xff", b"\xff"),
        ("string", b"\xc3\xa9", "é"),
        ("string", False, "false"),
        ("string", "as it is", "as it is"),
        ("string", -7, "-7"),
        ("dyn", [1], [1]),
    ],
)
def test_values_convert(call: str, given: Any, value: Any, evaluate: Evaluate) -> None:
    """Each conversion gives the value in its type."""
    found = evaluate(f"{call}(a)", a=given)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (2.0, "2"),
        (0.1, "0.1"),
        (-0.0, "0"),
        (1e6, "1000000"),
        (123456789.125, "123456789.125"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (0.000001, "0.000001"),
        (-0.0000125, "-0.0000125"),
        (1e-7, "1e-7"),
        (1.5e-9, "1.5e-9"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (float("nan"), "nan"),
        (10**30, "1e+30"),
    ],
)
def test_a_double_has_the_text_that_json_gives_it(
    number: float, text: str, evaluate: Evaluate
) -> None:
    """A number's text does not show whether it came as int or double (ECMA-262)."""
    assert evaluate("string(a)", a=number) == text


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("int", "1.5"),
        ("int", "1" * 5000),
        ("int", "9223372036854775808"),
        ("int", "0x10"),
        ("int", ""),
        ("int", 1e19),
        ("int", float("nan")),
        ("int", 9223372036854775808.0),
        ("int", True),
        ("int", None),
        ("uint", -1),
        ("uint", -1.0),
        ("uint", "-1"),
        ("uint", 1e20),
        ("uint", True),
        ("double", "1_0"),
        ("double", ""),
        ("double", "1" * 500),
        ("double", True),
        ("double", 10**400),
        ("bool", "yes"),
        ("bool", 1),
        ("bytes", 1),
        ("bytes", "\ud800"),
        ("string", b"\xff"),
        ("string", None),
        ("string", [1]),
        ("timestamp", 1.5),
        ("duration", 1),
        ("type", {1, 2}),
    ],
)
def test_what_does_not_convert_fails(call: str, given: Any, failure: Failing) -> None:
    """A conversion that loses its meaning is an error and never a guess."""
    found = failure(f"{call}(a)", a=given)
    assert len(found.message) < 200
    assert found.detail["offset"] == 0


def test_a_uint_past_the_ints_is_no_int(failure: Failing) -> None:
    """A uint that an int cannot hold does not wrap."""
    assert "does not fit" in failure("int(18446744073709551615u)").message


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (1, "int"),
        (1.0, "double"),
        (True, "bool"),
        ("", "string"),
        (b"", "bytes"),
        (None, "null_type"),
        ([], "list"),
        ({}, "map"),
    ],
)
def test_type_names_every_kind_of_value(given: Any, name: str, evaluate: Evaluate) -> None:
    """`type(x)` equals the type's name as an expression, and leaves as its text."""
    assert evaluate(f"type(a) == {name}", a=given) is True
    assert evaluate("[type(a)]", a=given) == [name]
    assert evaluate("type(a)", a=given) == name
    assert evaluate("type(type(a)) == type", a=given) is True
