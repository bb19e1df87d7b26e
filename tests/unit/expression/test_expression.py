from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import ExpressionError, MessageError
from pipeline.expression import ExpressionFault, Limits, Roots, compile_expression

Evaluate = Callable[..., Any]
Failing = Callable[..., ExpressionError]
Faulty = Callable[..., ExpressionFault]

MESSAGE = {
    "telemetry": {f"sensor_{number}": number for number in range(49)} | {"temperature": 31.5},
    "attributes": {"shared": {"fan": "off", "target": 20}, "client": {}},
}


def test_the_designs_expression_works(evaluate: Evaluate) -> None:
    """The expression that speed is measured by gives the right answers."""
    source = 'telemetry.temperature > 30 && attributes.shared.fan != "on"'
    assert evaluate(source, **MESSAGE) is True
    assert evaluate(source, telemetry={"temperature": 30}, attributes={}) is False


def test_an_expression_knows_its_source_and_roots() -> None:
    """`names` are the roots read from the scope: no macro variables, types or fields."""
    found = compile_expression("a.b > c && d.exists(x, x == e && .f == int(1)) ? type(g) : int")
    assert found.names == {"a", "c", "d", "e", "f", "g"}
    assert repr(compile_expression("1 + 1")) == "Expression('1 + 1')"
    assert compile_expression("a.b[0]").is_path
    assert not compile_expression("a.b[0] + 1").is_path


def test_unknown_roots_are_faults_with_a_hint(fault: Faulty) -> None:
    """With `names` given, another root is refused, with the likeliest one or all of them."""
    names = frozenset({"telemetry", "attributes"})
    found = fault("telemetry.a > 1 && atributes.b == 2", names=names)
    assert found.message == "unknown name `atributes`"
    assert found.offset == 19
    assert found.suggestion == "did you mean `attributes`?"
    assert fault("q", names=names).suggestion == "known: attributes, telemetry"
    assert "x" in fault("[1].map(x, y)", names=frozenset()).suggestion
    assert compile_expression("telemetry.q", names=names).names == {"telemetry"}


@pytest.mark.parametrize(
    ("source", "offset", "words"),
    [
        ('1 + "a"', 2, "int + string"),
        ('"a" * 2', 4, "string * int"),
        ("a + true", 2, "dyn + bool"),
        ("{} + a", 3, "map + dyn"),
        ("1.5 % a", 4, "double % dyn"),
        ("[1] < a", 4, "list < dyn"),
        ('1 == "a"', 2, "int == string"),
        ('type(a) == "int"', 8, "type == string"),
        ("1 < 2 < 3", 6, "bool < int"),
        ("-'a'", 0, "-string"),
        ("-1u", 0, "-uint"),
        ("1 in 'abc'", 2, "not into string"),
        ("'a'.b", 4, "string has no field"),
        ("1[0]", 1, "neither a list nor a map"),
        ("[1]['a']", 3, "cannot be the index"),
        ("{1.5: 2}", 1, "cannot be a key"),
        ("{null: 2}", 1, "cannot be a key"),
        ('{"a": 1, "a": 2}', 9, "stands twice"),
        ("duration('1s') - timestamp(0)", 15, "duration - timestamp"),
    ],
)
def test_types_that_never_fit_are_faults(
    source: str, offset: int, words: str, fault: Faulty
) -> None:
    """What fails on every message is found before the first."""
    found = fault(source)
    assert words in found.message
    assert found.offset == offset


def test_faults_of_types_say_what_to_write(fault: Faulty) -> None:
    """Joining a number to a text, and quoting a type, are the slips to expect."""
    assert "string(…)" in fault('"a" + 1').suggestion
    assert "without quotes" in fault('type(a) == "int"').suggestion


@pytest.mark.parametrize(
    "source", ['a + "x"', "1 == null", "a == {}", "[1, 'a'][0] == 'a'", "1 < a"]
)
def test_what_may_fit_compiles(source: str) -> None:
    """No expression is refused that some message makes right."""
    assert compile_expression(source)


@pytest.mark.parametrize(
    ("source", "message", "offset"),
    [
        ("a.b.c", "no such key: c; known: d, e", 4),
        ('a["b"].c', "no such key: c; known: d, e", 7),
        ("a.bb", "no such key: bb; known: b (did you mean `b`?)", 2),
        ('a["x"]', "no such key: x; known: b", 1),
        ("a.b.d.e", "a.b.d is int; it has no key e", 6),
        ("nope.x", "there is no `nope` here; known: a, empty", 0),
        ("empty.x", "no such key: x; the map is empty", 6),
        ("[a][0].x", "no such key: x", 7),
        ("a.b.e[2]", "index 2 is outside of the list; it has 2 elements", 5),
        ("a.b.e.f", "a.b.e is list; it has no key f", 6),
        ("has(a.x.y)", "no such key: x; known: b", 6),
        ("has(a.b.d.e)", "int is not a map; it has no fields", 10),
        ("a.b.e.map(i, i.z)", "the value has no key z", 15),
        ("1 + (2 * a)", "cannot compute int * map", 7),
        ('a.b.d > 0 && a.b.d + "x" == "x"', "cannot compute int + string", 19),
    ],
)
def test_a_failure_says_what_and_where(
    source: str, message: str, offset: int, failure: Failing
) -> None:
    """The error names the missing key and its neighbours, or the types, with its offset."""
    found = failure(source, a={"b": {"d": 1, "e": [1, 2]}}, empty={})
    assert found.message == message
    assert found.detail == {"expression": source, "offset": offset}
    assert isinstance(found, MessageError)
    assert found.code == "expression"


def test_long_lists_of_known_keys_are_cut(failure: Failing) -> None:
    """An error stays a line, however many keys a message has and however long they are."""
    many = {f"key_{number:03}": 1 for number in range(500)} | {"_" * 5000: 1}
    found = failure("a.b", a=many).message
    assert "key_000, " in found
    assert len(found) < 300


@pytest.mark.timeout(10)
def test_the_error_of_a_very_large_map_is_cheap(failure: Failing) -> None:
    """To say what is known, only some of a map's keys are looked at."""
    many = {f"{'key' * 20}_{number}": 1 for number in range(300_000)}
    assert ", …" in failure("a.keykeykey", a=many).message


def test_has_asks_for_keys_only(evaluate: Evaluate) -> None:
    """`has` is true for a key with null, false without the key."""
    assert evaluate("has(a.b) && !has(a.c) && has(a.n)", a={"b": 1, "n": None}) is True


def test_a_test_must_give_a_bool() -> None:
    """`test` takes true and false only: 1 is no yes, and null no no."""
    assert compile_expression("a").test({"a": True}) is True
    assert compile_expression("a").test({"a": False}) is False
    for value in (1, 0, None, "true", []):
        with pytest.raises(ExpressionError, match="must give a bool"):
            compile_expression("a").test({"a": value})


def test_values_pass_through_as_they_are(evaluate: Evaluate) -> None:
    """Nothing of a scope is copied or changed by reading it."""
    inner = {"deep": [1, {"x": None}]}
    assert evaluate("a.inner", a={"inner": inner}) is inner


def test_each_evaluation_makes_its_own_lists(evaluate: Evaluate) -> None:
    """What a caller does to a result does not come back in the next one."""
    compiled = compile_expression('[1, {"a": [2]}]')
    compiled({})[1]["a"].append(3)
    assert compiled({}) == [1, {"a": [2]}]


# Limits


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "source",
    [
        "l.map(a, l.map(b, l.map(c, 1)))",
        "l.all(a, l.all(b, l.all(c, true)))",
        "l.exists(a, l.exists(b, l.exists(c, false)) || true == false)",
        "l.filter(a, l.exists_one(b, l.exists_one(c, true)))",
        "l.map(a, l.map(b, l == m))",
        "l.map(a, l.map(b, 0 in m))",
        "l.exists(x, s.contains(s) == false || x == -1)",
        "l.map(x, s.matches('nothing'))",
    ],
)
def test_steps_are_limited(source: str, failure: Failing) -> None:
    """Nested macros and searches end at the limit of steps, soon and as an error."""
    numbers = [*range(1, 1000)]
    found = failure(source, l=numbers, m=[*numbers], s="ab" * 100_000)
    assert found.detail["limit"] == "steps_max"


@pytest.mark.parametrize(
    "source",
    [
        "[s].map(a, a + a).map(a, a + a).map(a, a + a).map(a, a + a)",
        "l.map(x, s + s)",
        "[1].map(x, [x, x])" + ".map(x, [x, x])" * 60,
        "[1]" + ".map(x, x + x)" * 4,
        "l" + " + l" * 60,
        "[b, b, b, b, b].map(x, bytes(s))",
        "[" + "s, " * 60 + "s]",
        '{"a": s' + "".join(f', "k{number}": s' for number in range(60)) + "}",
    ],
)
def test_what_is_made_is_limited(source: str, evaluate: Evaluate) -> None:
    """Texts, bytes and lists that grow out of a small expression end at the limit of size."""
    if "x + x" in source:
        source = source.replace("[1]", "[l, l]")
    scope = {"s": "x" * 100_000, "l": [[1]] * 100_000, "b": b""}
    limits = Limits(size_max=1_000_000)
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source, limits=limits)(scope)
    assert caught.value.detail["limit"] in ("size_max", "steps_max")


def test_no_operator_absorbs_a_limit() -> None:
    """`||` goes on past errors, but not past the end of the budget."""
    limits = Limits(steps_max=10)
    compiled = compile_expression("l.all(x, x > 0) || true", limits=limits)
    assert compiled({"l": [1]}) is True
    with pytest.raises(ExpressionError) as caught:
        compiled({"l": [1] * 100})
    assert caught.value.detail["limit"] == "steps_max"


def test_messages_nested_very_deep_compare() -> None:
    """Equality does not recurse, so a deeply nested message is no danger to Python's stack."""
    one: Any = 1
    two: Any = 1.0
    for _ in range(50_000):
        one, two = [one], [two]
    assert compile_expression("a == b").test({"a": one, "b": two})


def test_a_result_nested_too_deep_fails(failure: Failing) -> None:
    """A result that is looked through has a limit of depth."""
    deep: Any = 1
    for _ in range(50_000):
        deep = [deep]
    assert failure("[a]", a=deep).detail["limit"] == "nesting_max"


def test_absorbed_errors_leave_no_garbage() -> None:
    """An error that `||` absorbs makes no reference cycle for the collector to find."""
    compiled = compile_expression("a.missing == 1 || a.b == 2")
    scope = {"a": {"b": 2}}
    compiled(scope)
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            assert compiled(scope) is True
        assert gc.collect() == 0
    finally:
        gc.enable()


SHAPES: Roots = {
    "device": {"name": "string", "place": {"floor": "number"}},
    "tags": "list",
    "telemetry": "map",
}


@pytest.mark.parametrize(
    ("source", "gives"),
    [
        ("device.name", "string"),
        ('device["name"]', "string"),
        ("device.place.floor + 1", "number"),
        ("device.place", "map"),
        ("telemetry.anything", "dyn"),
        ("tags[0]", "dyn"),
        ("has(device.name) && tags.exists(t, t == 'x')", "bool"),
        ("telemetry.a ? 1 : 'x'", "dyn"),
    ],
)
def test_types_that_are_known(source: str, gives: str) -> None:
    """What is known of the scope's names says what an expression gives, and it gives that."""
    made = compile_expression(source, names=SHAPES)
    scope = {
        "device": {"name": "n", "place": {"floor": 2}},
        "tags": ["x"],
        "telemetry": {"anything": 1, "a": True},
    }

    assert made.type == gives
    assert made(scope) == compile_expression(source)(scope)


@pytest.mark.parametrize(
    ("source", "message", "suggestion"),
    [
        ("device.nam", "`device` has no field `nam`", "did you mean `name`?"),
        ("has(device.nam)", "`device` has no field `nam`", "did you mean `name`?"),
        ('device["nam"]', "`device` has no field `nam`", "did you mean `name`?"),
        ("device.place.x", "`device.place` has no field `x`", "there are `floor`"),
        ("device.name.x", "string has no field `x`", ""),
        ("device.name > 1", "string > int cannot work", ""),
        ("tags + 1", "list + int cannot work", ""),
    ],
)
def test_faults_of_known_types(fault: Faulty, source: str, message: str, suggestion: str) -> None:
    """Fields that are not there and types that never fit are found before any message is seen."""
    found = fault(source, names=SHAPES)

    assert (found.message, found.suggestion) == (message, suggestion)
