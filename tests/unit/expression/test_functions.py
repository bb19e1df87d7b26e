from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import ExpressionError
from pipeline.expression import ExpressionFault

Evaluate = Callable[..., Any]
Failing = Callable[..., ExpressionError]
Faulty = Callable[..., ExpressionFault]


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("size(s)", 3),
        ("s.size()", 3),
        ("size('é😀')", 2),
        ("size(b'é')", 2),
        ("size([1, 2]) + {'a': 1}.size()", 3),
        ("s.contains('b')", True),
        ("s.contains('')", True),
        ("s.startsWith('ab') && s.endsWith('bc')", True),
        ("s.startsWith('b')", False),
        ("s.matches('b')", True),
        ("s.matches('^b')", False),
        ("matches(s, '^a.c$')", True),
        ("s.matches(p)", True),
        ("'a\\nb'.matches('a.b')", False),
        ("'ÄÖ'.matches('^\\\\pL+$')", True),
        ("type(dyn(s)) == string", True),
    ],
)
def test_texts_have_their_functions(source: str, value: Any, evaluate: Evaluate) -> None:
    """The functions on texts, lists and maps give what the definition says."""
    assert evaluate(source, s="abc", p="[a-c]{3}") == value


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("size(n)", "size() does not take int"),
        ("n.contains('a')", "contains() does not take int, string"),
        ("s.startsWith(n)", "startsWith() does not take string, int"),
        ("s.endsWith(n)", "endsWith() does not take string, int"),
        ("s.matches(n)", "matches() does not take string, int"),
        ("n.matches('a')", "matches() does not take int"),
        ("s.matches('(' + s)", "missing )"),
        ("s.matches('(?=a)' + s)", "no regular expression of RE2"),
        ("s.matches('((a{1,100}){1,100}){1,100}' + s)", "no regular expression of RE2"),
        ("half.matches('a')", "half a Unicode character"),
        ("s.matches(half)", "half a Unicode character"),
    ],
)
def test_a_function_fails_on_what_it_does_not_take(
    source: str, words: str, failure: Failing
) -> None:
    """Wrong types and wrong patterns are errors that name the function."""
    assert words in failure(source, s="abc", n=1, half="\ud800").message


@pytest.mark.parametrize(
    "pattern", ["^(a+)+$", "(a|aa)+$", "(.*)*x", "^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_no_pattern_can_hang(pattern: str, evaluate: Evaluate) -> None:
    """Patterns that take other engines years take milliseconds."""
    assert evaluate("s.matches(p)", s="a" * 5000 + "!", p=pattern) is False


@pytest.mark.parametrize(
    ("source", "offset", "words", "hint"),
    [
        ("sise(a)", 0, "no function sise()", "`size`"),
        ("a.startswith('x')", 2, "no function startswith()", "`startsWith`"),
        ("eval('1')", 0, "no function eval()", ""),
        ("contains(a, 'x')", 0, "cannot be called so", "value.contains(x)"),
        ("a.int()", 2, "cannot be called so", "int(x)"),
        ("size()", 0, "cannot be called so", "size(x)"),
        ("int(1, 2)", 0, "cannot be called so", "int(x)"),
        ("size(1)", 5, "does not take int", "it takes bytes, list, map, string"),
        ("'a'.contains(1)", 13, "does not take int", "string"),
        ("1.contains('a')", 0, "does not take int", "string"),
        ("a.matches('[')", 10, "missing ]", ""),
        ("timestamp('soon')", 10, "no timestamp", ""),
        ("duration('1 day')", 9, "no duration", ""),
        ("a.getHours('Mars')", 11, "no time zone", "Europe/Paris"),
        ("string([1])", 7, "does not take list", ""),
    ],
)
def test_a_wrong_call_is_a_fault(
    source: str, offset: int, words: str, hint: str, fault: Faulty
) -> None:
    """Unknown functions, wrong counts, wrong types and unreadable constants are found early."""
    found = fault(source)
    assert words in found.message
    assert hint in found.suggestion
    assert found.offset == offset
