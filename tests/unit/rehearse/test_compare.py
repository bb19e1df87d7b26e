"""What counts as equal in a test of rules."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.rehearse.compare import DIFFERENCES_MAX, TEXT_MAX, differences, shown


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        (21, 21.0),
        (0.3, 0.1 + 0.2),
        ({"a": None}, {}),
        ({"a": [1, {"b": "x"}]}, {"a": [1.0, {"b": "x", "c": None}]}),
        (None, None),
    ],
)
def test_equal(expected: Any, got: Any) -> None:
    """Numbers are equal as in JSON, floats nearly, null is the same as missing."""
    assert differences(expected, got, exact=True) == []


@pytest.mark.parametrize(
    ("expected", "got", "said"),
    [
        (1, True, "expected 1, got true"),
        (False, 0, "expected false, got 0"),
        (1, "1", 'expected 1, got "1"'),
        (0.3, 0.3001, "expected 0.3, got 0.3001"),
        ({"a": 1}, {}, "a: expected 1, got nothing"),
        ({"a": {"b c": 1}}, {"a": {"b c": 2}}, "a['b c']: expected 1, got 2"),
        ([1, 2], [1], "[1]: expected 2, got nothing"),
        ([1], [1, 2], "[1]: expected nothing, got 2"),
        ({"a": [1]}, {"a": {"0": 1}}, 'a: expected [1], got {"0":1}'),
        ({"a": None}, {"a": 1}, "a: expected nothing, got 1"),
    ],
)
def test_different(expected: Any, got: Any, said: str) -> None:
    """A difference says where it is, what was expected, and what came."""
    assert [str(each) for each in differences(expected, got)] == [said]


def test_a_map_is_a_part_unless_it_is_exact() -> None:
    """What the test does not name is looked at only where it says `exact`."""
    assert differences({"a": 1}, {"a": 1, "b": 2}) == []
    assert [str(each) for each in differences({"a": 1}, {"a": 1, "b": 2}, exact=True)] == [
        "b: expected nothing, got 2"
    ]


def test_many_differences_are_cut_off() -> None:
    """A value that is all wrong does not fill the screen."""
    found = differences(list(range(100)), [])
    assert len(found) == DIFFERENCES_MAX + 1
    assert found[-1].message == "… and more"


def test_long_and_strange_values_can_be_shown() -> None:
    """A value is shown as JSON, shortened; what JSON has no word for is shown all the same."""
    assert len(shown("x" * 1_000)) == TEXT_MAX + 1
    assert shown({"a": b"\xff"}) == '{"a":"b\'\\\\xff\'"}'
    assert shown({"a": "\ud800"}) == "{'a': '\\ud800'}"
