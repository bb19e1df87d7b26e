"""Tables: results that leave a script's process without their names, and how they come in again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.script.tables import part_of

ECHO = "function decodeUplink(i) { return {data: i.variables.data} }"


def calls(*data: Any) -> list[dict[str, Any]]:
    return [{"bytes": "", "fPort": 1, "recvTime": 1, "variables": {"data": each}} for each in data]


def table_of(frame: bytes) -> Any:
    return json.loads(frame)[0].get("tables")


def decoding(expression: str) -> str:
    return f"function decodeUplink(i) {{ var n = i.fPort; return {{data: {expression}}} }}"


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"bytes": "", "fPort": n, "recvTime": 1, "variables": {}} for n in range(count)]


def test_results_that_are_alike_leave_as_a_table(javascript_run: Any) -> None:
    """Numbers, booleans and texts under the same names go out with the names once."""
    script = decoding("{t: n / 10, on: n > 2, mode: n > 1 ? 'hot' : 'cold'}")
    outcomes = javascript_run(script, *numbered(4))
    assert [each["value"]["data"] for each in outcomes] == [
        {"t": n / 10, "on": n > 2, "mode": "hot" if n > 1 else "cold"} for n in range(4)
    ]
    (table,) = table_of(javascript_run.parts[0])
    assert table == {"names": ["t", "on", "mode"], "values": [0.1, False, "cold", 0.2, False, "hot",
                                                              0.3, True, "hot"]}  # fmt: skip
    assert all(each["value"]["warnings"] == [] for each in outcomes)


@pytest.mark.parametrize(
    "expression",
    [
        "n == 5 ? {a: NaN, b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: Infinity, b: -Infinity} : {a: n, b: 1}",
        "n == 5 ? {a: undefined, b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: null, b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: -0, b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: '5', b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: true, b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: function () {}, b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: 5n, b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: Symbol('s'), b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: [5], b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: {valueOf() { return 5 }}, b: 1} : {a: n, b: 1}",
        "n == 5 ? {a: new Number(5), b: 1} : {a: n, b: 1}",
        "n == 5 ? {b: 1, a: n} : {a: n, b: 1}",
        "n == 5 ? {a: n} : {a: n, b: 1}",
        "n == 5 ? {a: n, b: 1, c: 2} : {a: n, b: 1}",
        "n == 5 ? {} : {a: n, b: 1}",
        "n % 2 ? {a: n, b: 1} : {c: 'x', d: true}",
        "n % 3 ? {a: n, b: 1} : {a: [n]}",
        "{a: 'x'.repeat(n * 20), b: 1}",
        "{a: 'q\"\\\\\\u0007\\ud800' + n, b: 'ü€😀'}",
        "{'a b': n, '1': 2, 'if': 3, ü: 4, '': 5, 'x\"y': 6}",
        "{['__proto__']: n, b: 1}",
        "{['a\\ud800']: n, b: 1}",
        "n == 5 ? new Date(0) : {a: n}",
        "n == 5 ? new Uint8Array([1, 2]) : {0: n, 1: 2}",
        "n == 5 ? new Map([[1, 2]]) : {a: n}",
        "n == 5 ? [1, 2] : {0: n, 1: 2}",
        "n == 5 ? Object.assign(Object.create({a: 1}), {b: 5}) : {a: n}",
        "n == 5 ? Object.create({a: 1}, {b: {value: 1, enumerable: true}}) : {a: n}",
        "n == 5 ? {a: n, toJSON() { return {z: 1} }} : {a: n, b: 1}",
        "{a: n, toJSON: 1}",
        "n == 5 ? Object.defineProperty({a: n}, 'toJSON', {value: () => 1}) : {a: n}",
        "n == 5 ? {get a() { throw new Error('no') }} : {a: n}",
        "(function () { var k = 0; return {get a() { return ++k }} })()",
        "n == 5 ? new (class { constructor() { this.a = 1 } get b() { return 2 } })() : {a: n}",
        "n == 5 ? (function () { throw new Error('no') })() : {a: n}",
        "{a: 1e21 * n, b: 1e-7 * n, c: 0.1 + 0.2, d: 123456789012345680000, e: -n / 3}",
        "n == 5 ? {a: 1.7e308, b: 1.7e308} : {a: n, b: 1}",
    ],
)
def test_tables_change_no_result(javascript_run: Any, expression: str) -> None:
    """Whatever a script returns, its outcomes are those that it has where no tables are made."""
    given = numbered(9)
    plain = javascript_run(decoding(expression), *given, console=True)
    assert b'"tables"' not in b"".join(javascript_run.parts)
    mixed = javascript_run(decoding(expression), *given)
    assert mixed == plain
    assert [json.dumps(each) for each in mixed] == [json.dumps(each) for each in plain]


NAMES = st.sampled_from(["a", "b", "c d", "1", "constructor", "ü", "\\", '"'])
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(-1e15, 1e15),
    st.text(max_size=70),
    st.lists(st.integers(0, 3), max_size=2),
)
# From a few objects, so that most of them are alike.
DATA = st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=3).flatmap(
    lambda few: st.lists(st.sampled_from(few), min_size=1, max_size=12)
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=DATA)
def test_any_data_come_through(javascript_run: Any, data: list[dict[str, Any]]) -> None:
    """Data of any names and values come out as they went in, in their order, alike or not."""
    plain = javascript_run(ECHO, *calls(*data), console=True)
    mixed = javascript_run(ECHO, *calls(*data))
    assert mixed == plain
    assert [each["value"]["data"] for each in mixed] == data


def test_warnings_and_errors_stay_with_their_calls(javascript_run: Any) -> None:
    """Results with warnings, or that failed, keep their places among the rows of tables."""
    script = (
        "function decodeUplink(i) { var n = i.fPort; if (n % 3 == 1) throw new Error('e' + n);"
        " return {data: {n: n}, warnings: n % 3 ? ['w' + n] : []} }"
    )
    outcomes = javascript_run(script, *numbered(12))
    for n, outcome in enumerate(outcomes):
        if n % 3 == 1:
            assert outcome["error"]["message"] == f"Error: e{n}"
        else:
            warnings = [f"w{n}"] if n % 3 else []
            assert outcome["value"] == {"data": {"n": n}, "warnings": warnings}


def test_a_stopped_call_leaves_the_rows_before_it(javascript_run: Any) -> None:
    """Rows made before a call that was stopped for time are kept, and those after it follow."""
    script = decoding("n == 6 ? (function () { while (true); })() : {n: n}")
    outcomes = javascript_run(script, *numbered(10))
    assert outcomes[6]["error"]["code"] == "script_time"
    assert [each["value"]["data"]["n"] for n, each in enumerate(outcomes) if n != 6] == [
        0, 1, 2, 3, 4, 5, 7, 8, 9
    ]  # fmt: skip


def test_many_shapes(javascript_run: Any) -> None:
    """A script whose results have ever other names keeps a few shapes, and all results."""
    script = decoding("n % 7 ? {['k' + (n >> 2)]: n} : {always: n}")
    outcomes = javascript_run(script, *numbered(100))
    assert [each["value"]["data"] for each in outcomes] == [
        {f"k{n >> 2}": n} if n % 7 else {"always": n} for n in range(100)
    ]
    assert len(table_of(javascript_run.parts[0])) <= 8


def test_older_contracts_have_tables(javascript_run: Any) -> None:
    """A Decoder's and a Decode's data become rows as well."""
    for script in (
        "function Decoder(b, port) { return {p: port} }",
        "function Decode(port) { return {p: port} }",
    ):
        outcomes = javascript_run(script, *numbered(5))
        assert [each["value"]["data"] for each in outcomes] == [{"p": n} for n in range(5)]
        assert table_of(javascript_run.parts[0])


TABLE = {"names": ["a", "b"], "values": [1, 2, 3, 4]}


def test_reads_runs() -> None:
    """Rows and other items come in the order of the runs; what is left comes last, in its order."""
    error = {"error": {"code": "script_threw"}}
    head = {"tables": [TABLE, {"names": ["c"], "values": ["x"]}], "runs": [0, 1, -1, 1, 1, 1, 0, 1]}
    part = part_of([head, {"value": 7}, error], 9)
    rows = [each["data"] if isinstance(each, dict) else each for each in part.values]
    assert rows == [{"a": 1, "b": 2}, 7, {"c": "x"}, {"a": 3, "b": 4}, None]
    assert part.others == [(4, error)]
    assert part.left_out == 5


def test_rows_are_no_two_names_for_one() -> None:
    """Each row is an object of its own, with warnings of its own."""
    first, second = part_of([{"tables": [TABLE], "runs": [0, 2]}], 2).values
    assert first == {"data": {"a": 1, "b": 2}, "warnings": []}
    assert first["warnings"] is not second["warnings"]


@pytest.mark.parametrize(
    "answer",
    [
        None, {}, [], [1], [{"value": 1}] * 10, [{"tables": 1}], [{"tables": []}],
        [{"tables": [], "runs": []}], [{"tables": [TABLE], "runs": [0, 5]}],
        [{"tables": [TABLE], "runs": [0, 1]}], [{"tables": [TABLE], "runs": [0]}],
        [{"tables": [TABLE], "runs": [1, 2]}], [{"tables": [TABLE], "runs": [-1, 1, 0, 1]}],
        [{"tables": [TABLE], "runs": [-2, 2]}], [{"tables": [TABLE], "runs": ["0", "2"]}],
        [{"tables": [TABLE], "runs": [0, 3, 0, -1]}], [{"tables": [TABLE], "runs": [0, True]}],
        [{"tables": [{"names": [], "values": []}], "runs": []}],
        [{"tables": [{"names": ["a", "b"], "values": [1]}], "runs": [0, 1]}],
        [{"tables": [{"names": [1], "values": [1]}], "runs": [0, 1]}],
        [{"tables": [{"names": "ab", "values": [1, 2]}], "runs": [0, 1]}],
        [{"tables": [{"names": ["a"], "values": {}}], "runs": []}],
        [{"tables": [{"names": ["a"], "values": list(range(10))}], "runs": [0, 10]}],
        [{"tables": [TABLE, TABLE], "runs": [0, 4]}],
        [{"tables": [7], "runs": [0, 4]}],
    ],
)  # fmt: skip
def test_nonsense_is_told(answer: Any) -> None:
    """What a process that is not to be trusted could say is refused, never half believed."""
    with pytest.raises(ValueError, match=r"."):
        part_of(answer, 9)
