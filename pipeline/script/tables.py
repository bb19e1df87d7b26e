"""Tables in a child's answers: outcomes that are alike come in without their names, and go out as
the outcomes that they stand for.

Of an answer, the first item may be `{"tables": [{"names": [...], "values": [...]}, ...], "runs":
[which, count, which, count, ...]}`. A table's values are those of its rows, one row after the
other; a row is the `data` of an outcome without warnings. The runs say in which order rows and the
other items come: `which` is a table's place, -1 is the items; items that are left come last.
`table.js` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice, repeat
from typing import Any

Outcome = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """The next outcomes of a request: the value of each, which is None where there is none, and
    those that have more to say: an error, or what was said on the console, by their places.
    `left_out` is how many characters of names the tables saved, about.
    """

    values: list[Any]
    others: list[tuple[int, Outcome]] = field(default_factory=list)
    left_out: int = 0


def part_of(answer: Any, count_max: int) -> Part:
    """Return what an answer says, which may be anything. ValueError: it is not of the form that is
    described above and in `frames`, or has no outcome, or more than `count_max`.
    """
    if not isinstance(answer, list) or not answer or set(map(type, answer)) != {dict}:
        raise ValueError("an answer is a list of objects")
    if "tables" not in answer[0]:
        if len(answer) > count_max:
            raise ValueError("there are more outcomes than calls")
        part = Part([])
        _add(part, answer)
        return part
    head = answer[0]
    tables, runs = head["tables"], head.get("runs")
    if not isinstance(tables, list) or not _is_list_of(int, runs) or len(runs) % 2:
        raise ValueError("the tables have another form")
    rows = [_row_count(table) for table in tables]
    total = sum(rows) + len(answer) - 1
    if not 0 < total <= count_max:
        raise ValueError("there are no outcomes, or more than calls")
    left_out = sum(
        count * sum(map(len, table["names"])) for count, table in zip(rows, tables, strict=True)
    )
    if rows == [total] and runs == [0, total]:
        return Part(_rows(tables[0]), left_out=left_out)
    return _in_order(list(map(_rows, tables)), answer[1:], runs, left_out)


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and set(map(type, value)) <= {kind}


def _row_count(table: Any) -> int:
    if not isinstance(table, dict):
        raise ValueError("a table is an object")  # noqa: TRY004 - of the child, not of a caller
    names, values = table.get("names"), table.get("values")
    if not _is_list_of(str, names) or not isinstance(values, list):
        raise ValueError("a table has names and values")
    if not names or len(values) % len(names):
        raise ValueError("a table has a value for each of its names in each row")
    return len(values) // len(names)


def _rows(table: dict[str, Any]) -> list[Any]:
    names = table["names"]
    rows = zip(*[iter(table["values"])] * len(names), strict=True)
    return [{"data": data, "warnings": []} for data in map(dict, map(zip, repeat(names), rows))]


def _in_order(
    tables: list[list[Any]], items: list[Outcome], runs: list[int], left_out: int
) -> Part:
    """Take from each table, or from the items, as the runs say."""
    part = Part([], left_out=left_out)
    sources = list(map(iter, tables))
    rest = iter(items)
    for which, count in zip(runs[::2], runs[1::2], strict=True):
        before = len(part.values)
        if which == -1:
            _add(part, islice(rest, max(0, count)))
        elif 0 <= which < len(sources):
            part.values.extend(islice(sources[which], max(0, count)))
        if len(part.values) != before + count:
            raise ValueError("a run of what is not there")
    _add(part, rest)
    if len(part.values) != sum(map(len, tables)) + len(items):
        raise ValueError("rows that no run names")
    return part


def _add(part: Part, items: Iterable[Outcome]) -> None:
    for item in items:
        if "error" in item or "console" in item:
            part.others.append((len(part.values), item))
        part.values.append(item.get("value"))
