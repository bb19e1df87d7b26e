from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.expression import ExpressionFault

Evaluate = Callable[..., Any]
Faulty = Callable[..., ExpressionFault]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("0", 0),
        ("007", 7),
        ("0x1F", 31),
        ("-0x1f", -31),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("- 9223372036854775808", -(2**63)),
        ("7u", 7),
        ("0xFFU", 255),
        ("18446744073709551615u", 2**64 - 1),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("2.5E-1", 0.25),
        ("-1.5", -1.5),
        ("true", True),
        ("false", False),
        ("null", None),
    ],
)
def test_numbers_bools_and_null_have_their_value(
    source: str, value: Any, evaluate: Evaluate
) -> None:
    """Every form of number, bool and null gives its value in its Python type."""
    found = evaluate(source)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "source",
    ["9223372036854775808", "-9223372036854775809", "18446744073709551616u", "1" * 5000],
)
def test_a_number_past_64_bits_is_a_fault(source: str, fault: Faulty) -> None:
    """A literal that its type cannot hold is refused, however long it is."""
    found = fault(source)
    assert "64 bits" in found.message
    assert found.offset == 0


@pytest.mark.parametrize("source", ["1a", "0X1F", "0xg", "1_000", "1ux"])
def test_a_number_that_runs_into_letters_is_a_fault(source: str, fault: Faulty) -> None:
    """A number does not silently end where letters begin."""
    assert "is no number" in fault(source).message


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (r'"a\"b"', 'a"b'),
        (r"'a\'b'", "a'b"),
        (r'"\a\b\f\n\r\t\v\\\?\`"', "\a\b\f\n\r\t\v\\?`"),
        (r'"\x41\X42\u00e9\U0001F600\101"', "ABé😀A"),
        (r'r"\n"', "\\n"),
        (r"R'\d+'", "\\d+"),
        ('"""a\n"b" \\t"""', 'a\n"b" \t'),
        ("'''it's'''", "it's"),
        (r"r'''\x'''", "\\x"),
        ('""', ""),
        ('"é"', "é"),
    ],
)
def test_strings_have_all_of_cels_forms(source: str, value: str, evaluate: Evaluate) -> None:
    """Quotes, triple quotes, raw strings and every escape give the characters that CEL says."""
    assert evaluate(source) == value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('b"abc"', b"abc"),
        (r'b"\xff\377\n"', b"\xff\xff\n"),
        ('b"é"', b"\xc3\xa9"),
        (r'br"\x"', b"\\x"),
        ("B'''a\nb'''", b"a\nb"),
    ],
)
def test_bytes_hold_octets_and_utf8(source: str, value: bytes, evaluate: Evaluate) -> None:
    """In bytes, hex and octal escapes are octets, and other characters are UTF-8."""
    assert evaluate(source) == value


@pytest.mark.parametrize(
    ("source", "offset", "words"),
    [
        (r'"ab\q"', 3, "no escape"),
        (r'"\x4"', 1, "no escape"),
        (r'"\ud800"', 1, "no Unicode character"),
        (r'"\U00110000"', 1, "no Unicode character"),
        (r'b"\u00e9"', 2, "cannot stand in bytes"),
        ('1 + "abc', 4, 'no closing "'),
        ('"a\nb"', 0, 'no closing "'),
        ('"""a', 0, 'no closing """'),
    ],
)
def test_a_broken_string_is_a_fault_at_its_place(
    source: str, offset: int, words: str, fault: Faulty
) -> None:
    """A wrong escape is shown where it stands, an open string where it begins."""
    found = fault(source)
    assert words in found.message
    assert found.offset == offset
