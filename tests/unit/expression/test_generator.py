"""The code that is generated reaches nothing but its scope."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from pipeline.errors import ExpressionError
from pipeline.expression import ExpressionFault, compile_expression, expression
from pipeline.expression.fault import LIMITS
from pipeline.expression.generator import Generator
from pipeline.expression.parser import parse

EVERYTHING = (
    "(a.b > 1 && has(a.c) || !(a[0] in [1, 2u, 'x'])) ? {'k': -a.d + 1.5, a.e: b'x'} : "
    "[a.f.map(x, x > 0, x % 2), a.g.all(y, y == timestamp(0)), a.h.exists_one(z, type(z) == int),"
    " 'x'.matches(a.i), size(a), string(a.j + duration('1s')), a.k.filter(w, w.getHours() < 3)]"
)


def _module(source: str) -> tuple[ast.Module, dict[str, Any]]:
    generator = Generator(expression._MAKERS, None, LIMITS)
    module = generator.module(parse(source, LIMITS))
    return module, generator.globals


def test_generated_code_has_no_attribute_import_or_foreign_name() -> None:
    """Every name in generated code is one of ours; no attribute of any object is read."""
    module, known = _module(EVERYTHING)
    ours = {*known, "scope", "budget", "error", "ERRORS", "note"}
    for node in ast.walk(module):
        assert not isinstance(node, ast.Attribute | ast.Import | ast.ImportFrom | ast.Lambda)
        if isinstance(node, ast.Name):
            assert node.id in ours or node.id[0] in "tvkf"
            assert node.id in ours or node.id[1:].isdigit()
    assert known["__builtins__"] == {}


@pytest.mark.parametrize(
    "source",
    [
        "__import__('os')",
        "open('/etc/passwd')",
        "eval('1')",
        "exec('1')",
        "getattr(a, 'b')",
        "a.__class__()",
        "a.format('x')",
        "a.mro()",
        "'{0.__class__}'.format(a)",
        "a.b;import os",
        "lambda: 1",
        "[x for x in a]",
        "(yield a)",
        "f'{a}'",
        "a if a else a",
        "a := 1",
        "@a",
        "a\\\n+ 1",
    ],
)
def test_python_is_not_cel(source: str) -> None:
    """Python's own syntax and functions do not compile."""
    with pytest.raises(ExpressionFault):
        compile_expression(source)


@pytest.mark.parametrize(
    "source",
    [
        "a.__class__",
        "a['__class__']",
        "s.__class__.__mro__",
        "n.real",
        "l.append",
        "s.upper",
        "t1",
        "scope",
        "budget",
        "__builtins__",
        "ERRORS",
        "note",
        "k1",
        "error",
        "str",
        "dict",
        "float",
    ],
)
def test_python_names_are_only_keys(source: str) -> None:
    """A name or field is looked up as a key of the scope; Python's attributes are not there."""
    scope = {"a": {"x": 1}, "s": "text", "n": 1, "l": [1]}
    with pytest.raises(ExpressionError, match=r"no such key|there is no|has no key"):
        compile_expression(source)(scope)


def test_names_that_look_like_ours_do_not_clash() -> None:
    """A scope may use the names of generated variables; a macro's variable may have any name."""
    scope = {"t1": 1, "v2": [5], "k3": {"scope": 2}, "scope": 3, "budget": 4, "error": 6}
    source = "v2.map(scope, scope + t1 + k3.scope + budget + error + .scope)"
    assert compile_expression(source)(scope) == [21]
    assert compile_expression("v2.exists(__builtins__, __builtins__ == 5)").test(scope)
    assert compile_expression("(error.x == 1 || budget > 3) && scope == 3").test(scope)


def test_compiling_warns_of_nothing() -> None:
    """Python warns of literals with keys they cannot have; those never get that far."""
    for literal in ("'abc'", "[1]", "b'x'", "1", "null", "true", "1.5"):
        for access in ('["x"]', ".x", "[0]", "[-1]"):
            with pytest.raises(ExpressionError):
                compile_expression(f"dyn({literal}){access} == dyn([2]).y")({})
