"""Reference tables from files: CSV and YAML in, entries and faults out."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.rulebook.tables import ENTRIES_MAX, read_table


def entries(text: str | bytes, file: str = "tables/t.csv") -> dict[str, Any]:
    found, faults = read_table(file, text.encode() if isinstance(text, str) else text)
    assert faults == []
    return found


def faults_of(text: str | bytes, file: str = "tables/t.csv") -> list[str]:
    _, faults = read_table(file, text.encode() if isinstance(text, str) else text)
    return [f"{fault.line}: {fault.message}" for fault in faults]


def test_csv() -> None:
    """The first column is the key; numbers and truth values are such, all else is text."""
    text = (
        "device,floor,level,open,note,code\r\n"
        'a b, 1 ,-2.50,true,"x, ""y""",007\r\n'
        "\r\n"
        "0042,,1e3,false,True,1.\n"
    )

    assert entries(text) == {
        "a b": {"floor": 1, "level": -2.5, "open": True, "note": 'x, "y"', "code": "007"},
        "0042": {"level": 1000.0, "open": False, "note": "True", "code": "1."},
    }


def test_csv_with_a_byte_order_mark() -> None:
    """A file as spreadsheets save it is read."""
    assert entries(b"\xef\xbb\xbfk,v\na,1\n") == {"a": {"v": 1}}


def test_numbers_that_json_cannot_keep_are_text() -> None:
    """A number of more digits than 64 bits hold stays as it is written."""
    text = "1" * 19
    assert entries(f"k,v\na,{text}\n") == {"a": {"v": text}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: the first line must name the columns"),
        ("k\na\n", "1: the first line must name the columns"),
        ("k,\na,b\n", "1: the first line must name the columns"),
        ("k,v,v\na,1,2\n", "1: needs at most 256 columns of different names"),
        ("k,v\n", "1: has no entries"),
        ("k,v\na,1\na,2\n", "3: the key `a` stands in an earlier line"),
        ("k,v\n ,1\n", "2: the key is empty"),
        ("k,v\na,1,2\n", "2: has 3 cells where 2 columns are named"),
        ("k,v\na\n", "2: has 1 cells where 2 columns are named"),
        ('k,v\na,"b" c\n', "2: cannot be read as CSV"),
        (b"k,v\na,1\nb,\xff\n", "3: not UTF-8"),
    ],
)
def test_faults_of_csv(text: str | bytes, said: str) -> None:
    """What cannot be read is said with its line."""
    (fault,) = faults_of(text)

    assert fault.startswith(said)


def test_too_many_entries() -> None:
    """A table has an end."""
    lines = "".join(f"k{number},1\n" for number in range(ENTRIES_MAX + 1))

    assert f"{ENTRIES_MAX + 2}: more than 50,000 entries" in faults_of("k,v\n" + lines)


def test_yaml() -> None:
    """Entries may be anything."""
    text = "a: {floor: 1}\nb: [1, 2]\n'3': x\n"

    assert entries(text, "tables/t.yaml") == {"a": {"floor": 1}, "b": [1, 2], "3": "x"}


@pytest.mark.parametrize("text", ["", "[1]", "a: b: c"])
def test_faults_of_yaml(text: str) -> None:
    """What is no mapping is said."""
    assert faults_of(text, "tables/t.yaml")
