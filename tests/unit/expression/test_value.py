from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.errors import ExpressionError
from pipeline.expression import ExpressionFault, Limits, compile_value

SCOPE: dict[str, Any] = {
    "a": {"n": 1, "d": 2.5, "s": "text", "t": True, "x": None, "l": [1, {"k": "v"}]},
    "now": datetime(2024, 5, 31, 12, 0, 0, 500_000, UTC),
    "past": timedelta(seconds=3.5),
    "raw": b"\x00\xff",
}


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("${a.n}", 1),
        ("${ a.d * 2 }", 5.0),
        ("${a.s}", "text"),
        ("${a.t}", True),
        ("${a.x}", None),
        ("${a.l}", [1, {"k": "v"}]),
        ("${ {'q': {'}': a.n}} }", {"q": {"}": 1}}),
        ("${'}' + \"}\"}", "}}"),
        ("${a.n // }\n}", 1),
        ("${now}", "2024-05-31T12:00:00.5Z"),
        ("${past}", "3.5s"),
        ("${raw}", "AP8="),
        ("${[now, {'p': past}]}", ["2024-05-31T12:00:00.5Z", {"p": "3.5s"}]),
        ("${0.0 / 0.0}", "NaN"),
        ("${[1.0 / 0.0, -1.0 / 0.0]}", ["Infinity", "-Infinity"]),
        ("${{1: true, false: 2}}", {"1": True, "false": 2}),
        ("${7u}", 7),
        ("${type(a)}", "map"),
    ],
)
def test_a_lone_template_keeps_its_type_as_json(value: str, result: Any) -> None:
    """A string that is one template becomes what the expression gives, as JSON."""
    compiled = compile_value(value)
    found = compiled(SCOPE)
    assert found == result
    assert type(found) is type(result)
    assert not compiled.constant


@pytest.mark.parametrize(
    ("value", "result"),
    [
        ("n=${a.n}", "n=1"),
        ("${a.n}${a.s}", "1text"),
        (" ${a.n}", " 1"),
        ("${a.d} ${a.t} ${a.x}", "2.5 true null"),
        ("at ${now} for ${past}", "at 2024-05-31T12:00:00.5Z for 3.5s"),
        ("list ${a.l}", 'list [1,{"k":"v"}]'),
        ("${a.n} $${a.n} ${a.n}", "1 ${a.n} 1"),
        ("cost: $5 {x} ${a.n}", "cost: $5 {x} 1"),
        ("${b'ok'}!", "ok!"),
    ],
)
def test_templates_inside_of_a_text_become_text(value: str, result: str) -> None:
    """Text around a template makes a string; null is `null`, lists and maps are JSON."""
    assert compile_value(value)(SCOPE) == result


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (5, 5),
        (None, None),
        ("plain $ {text}", "plain $ {text}"),
        ("$${a}", "${a}"),
        ({"a": ["$${x}", {"b": 1}]}, {"a": ["${x}", {"b": 1}]}),
        ({"$${k}": (1, 2)}, {"${k}": [1, 2]}),
    ],
)
def test_constants_cost_nothing(value: Any, result: Any) -> None:
    """A value without templates is the same object at each call; escapes are read."""
    compiled = compile_value(value)
    assert compiled.constant
    assert compiled(SCOPE) == result
    assert compiled(SCOPE) is compiled({})
    assert compiled.names == frozenset()


def test_nested_values_are_computed_in_place() -> None:
    """Templates are found at any depth, in values and in keys; the rest stays as it is."""
    value = {
        "fixed": {"a": [1, 2]},
        "moving": [0, {"deep": ["${a.n}", "x"]}],
        "${a.s}_${a.n}": "${a.d}",
        3: "$${no}",
    }
    compiled = compile_value(value)
    assert compiled(SCOPE) == {
        "fixed": {"a": [1, 2]},
        "moving": [0, {"deep": [1, "x"]}],
        "text_1": 2.5,
        3: "${no}",
    }
    assert compiled.names == {"a"}
    assert list(compiled(SCOPE)) == ["fixed", "moving", "text_1", 3]


def test_results_do_not_share_what_is_computed() -> None:
    """A result may be changed without changing the next one, apart from constant parts."""
    compiled = compile_value({"l": ["${a.n}"], "m": {"k": "${a.s}"}})
    first = compiled(SCOPE)
    first["l"].append(1)
    first["m"]["k"] = 0
    assert compiled(SCOPE) == {"l": [1], "m": {"k": "text"}}


@pytest.mark.parametrize(
    ("value", "path", "offset", "words"),
    [
        ("${a.n +}", (), 7, "ends too early"),
        ({"x": ["ok", "a ${b}"]}, ("x", 1), 4, "unknown name `b`"),
        ({"x": {"y": "${a"}}, ("x", "y"), 0, "no closing }"),
        ("text ${'a} x", (), 7, "no closing '"),
        ("x ${a.s.size(1)}", (), 8, "cannot be called so"),
        ("${}", (), 2, "missing"),
        ("${ {}", (), 0, "no closing }"),
        ({"${a +}": 1}, ("${a +}",), 5, "ends too early"),
        ({"k": "${env:TOKEN}"}, ("k",), 0, "secret"),
        ("${file:/run/x}", (), 0, "secret"),
    ],
)
def test_a_fault_has_its_path_and_offset(
    value: Any, path: tuple[Any, ...], offset: int, words: str
) -> None:
    """A fault leads to the string in the value and to the place in the string."""
    with pytest.raises(ExpressionFault) as caught:
        compile_value(value, names=frozenset({"a"}))
    assert words in caught.value.message
    assert caught.value.path == path
    assert caught.value.offset == offset


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": "${a.missing}"}, "no such key: missing"),
        ("x ${a.missing}", "no such key: missing"),
        ("x ${raw}", "not UTF-8"),
        ({"${a.n}": 1, "${string(a.n)}": 2}, "same key '1'"),
        ("${odd}", "no JSON"),
        ("x ${odd}", "string() does not take"),
        ("x ${[odd]}", "no JSON"),
    ],
)
def test_a_failure_of_a_template_is_the_messages_fault(value: Any, words: str) -> None:
    """What a template cannot compute, or JSON cannot hold, is an ExpressionError."""
    with pytest.raises(ExpressionError) as caught:
        compile_value(value)({**SCOPE, "odd": {1, 2}})
    assert words in caught.value.message


def test_a_text_cannot_grow_past_the_limit() -> None:
    """The sum of a text's templates is limited like any value that an expression makes."""
    compiled = compile_value("${a}${a}", limits=Limits(size_max=10))
    assert compiled({"a": "12345"}) == "1234512345"
    with pytest.raises(ExpressionError) as caught:
        compiled({"a": "123456"})
    assert caught.value.detail["limit"] == "size_max"


def test_a_value_nested_too_deep_is_a_fault() -> None:
    """The depth of a value is limited, so that no YAML can exhaust the stack."""
    deep: Any = "${a}"
    for _ in range(300):
        deep = [deep]
    with pytest.raises(ExpressionFault, match="nested too deep"):
        compile_value(deep)


def test_a_path_gives_the_message_itself() -> None:
    """A template that only names a part of the message copies nothing, however large it is."""
    large = [*range(10_000)]
    assert compile_value("${a.b}")({"a": {"b": large}}) is large
