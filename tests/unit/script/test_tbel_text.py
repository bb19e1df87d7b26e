"""Where TBEL makes a text of a number: doubles have a point, whole numbers have none."""

from __future__ import annotations

from typing import Any

import pytest

GIVEN = {"payload": "CgQ=", "metadata": {"n": 6}}  # 10, 4


def decoded(tbel_run: Any, body: str) -> Any:
    value = tbel_run.value(body, GIVEN, contract="thingsboard")
    return value["x"]


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ('"V" + 10 / 10', "V1.0"),
        ('10 / 4 + "V"', "2.5V"),
        ('10 / 5 + 1 + " and " + 1', "3.0 and 1"),
        ('1 + 2 + " and " + 10 / 5 + 1', "3 and 2.01"),
        ('"line_" + ((10 - 4) / 3 + 1)', "line_3.0"),
        ('"a" + 6 * 2 + "b"', "a12b"),
        ('"a" + 2.0 * 3 + "b"', "a6.0b"),
        ('"a" + 2f', "a2.0"),
        ('"a" + 0x2f', "a47"),
        ('"a" + (int) (9 / 3)', "a3"),
        ('"a" + (double) 3', "a3.0"),
        ('"a" + -(9 / 3)', "a-3.0"),
        ('"a" + parseDouble("7")', "a7.0"),
        ('"a" + parseInt("7")', "a7"),
        ('"a" + Math.floor(2.5)', "a2.0"),
        ('"a" + Math.round(2.5)', "a3"),
        ('"a" + toFixed(21.04, 1)', "a21.0"),
        ('"a" + (9 % 3.0)', "a0.0"),
        ('"a" + 1000000.0 * 10', "a1.0E7"),
        ('"a" + 123456789.0', "a1.23456789E8"),
        ('"a" + 1.0 / 8000', "a1.25E-4"),
        ('"a" + 999.5 * 2', "a1999.0"),
        ("String.valueOf(9 / 3)", "3.0"),
        ("String.valueOf(9)", "9"),
        ("(9 / 3).toString()", "3.0"),
        ('metadata.n > 9 / 3 ? "more" : "less"', "more"),
        ('"a" + (metadata.n > 9 / 3)', "atrue"),
        ('"a" + metadata.n', "a6"),
        ('"a" + payload[0]', "a10"),
        ('"a" + payload[0] / 2', "a5"),
    ],
)  # fmt: skip
def test_expressions(tbel_run: Any, expression: str, text: str) -> None:
    """A number in a text is written as Java writes a number of its kind."""
    body = f"var out = {expression};\nreturn {{deviceName: 'd', x: out}};"
    assert decoded(tbel_run, body) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ('var v = 20 / 10; var out = "V" + v;', "V2.0"),
        ('var v = 20 / 10; v = 3; var out = "V" + v;', "V3"),
        ('var v = 20 / 10; v = v * 2; var out = "V" + v;', "V4.0"),
        ('var v = 20; v /= 10; var out = "V" + v;', "V2"),
        ('var v = 2.5; v *= 2; var out = v + " V";', "5.0 V"),
        ('var v = 20 / 10; v++; var out = "V" + v;', "V3"),
        ('var out = ""; out += 20 / 10; out += 1;', "2.01"),
        ('var out = "a"; out = out + 20 / 10;', "a2.0"),
        ('var a = 9 / 3; var b = a; var out = "V" + b;', "V3.0"),
        ("var v = 20 / 10; var out = v.toString();", "2.0"),
        ('function f(v) { return "V" + v; } var v = 4 / 2; var out = f(5);', "V5"),
        ('var v = 9 / 3;\nvar out = "V" + v\n', "V3.0"),
        ('var v = 9 / 3; var out = "V" + v == "V3.0" ? "same" : "other";', "same"),
        ('var m = {v: 4 / 2}; var out = "V" + m.v;', "V2"),
    ],
)  # fmt: skip
def test_variables(tbel_run: Any, body: str, text: str) -> None:
    """A variable that is given doubles alone is one; what is not known is written as it is."""
    assert decoded(tbel_run, f"{body}\nreturn {{deviceName: 'd', x: out}};") == text


def test_numbers_stay_numbers(tbel_run: Any) -> None:
    """A quotient that no text takes in comes out as the number that it is."""
    body = "var v = 20 / 10; var w = v + 1; return {deviceName: 'd', x: [v, w, v + w, -v, 9 / 3]};"
    assert decoded(tbel_run, body) == [2, 3, 5, -2, 3]
