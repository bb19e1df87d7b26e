"""Results for a terminal, a build server and a program."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

import pytest

from pipeline.rehearse.report import as_json, junit, lines, summary
from pipeline.rehearse.result import Difference, Result

PASSED = Result("example", "acme/a: decode uplink: warm", "converters/acme/a.yaml", 4)
FAILED = Result(
    "chain",
    'cool: <warm> & "hot"',
    "chains/cool_test.yaml",
    7,
    (
        Difference(("then", "downlinks", 0, "bytes"), '"01"', '"00"', line=12),
        Difference(("when", 1, "uplink"), message="says no device\x00\ud800", line=9),
    ),
    0.25,
)


def test_a_terminal_is_shown_what_failed_and_the_sum() -> None:
    """Each difference has its path and line; what passed is counted, and listed when asked for."""
    assert [line.text for line in lines([PASSED, FAILED])] == [
        '✗ cool: <warm> & "hot"',
        "  chains/cool_test.yaml:7",
        "    then.downlinks[0].bytes (line 12)",
        '      expected "01"',
        '      got      "00"',
        "    when[1].uplink: says no device\\x00\\ud800 (line 9)",
        "1 example, 1 chain test: 1 failed",
    ]
    shown = lines([PASSED], verbose=True)
    assert [line.text for line in shown] == [f"✓ {PASSED.name}", "1 example: all passed"]
    assert [line.style for line in shown] == ["passed", "sum"]


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([], "no examples and no chain tests"),
        ([PASSED] * 1_200, "1,200 examples: all passed"),
        ([FAILED, FAILED], "2 chain tests: 2 failed"),
    ],
)
def test_the_sum(results: list[Result], said: str) -> None:
    """It counts what was run, by kind."""
    assert summary(results) == said


def test_junit_is_xml_that_says_the_same() -> None:
    """Names and texts come back as they were, but for what XML cannot hold, which is spelled
    out.
    """
    root = fromstring(junit([PASSED, FAILED, PASSED]).encode())

    assert root.attrib == {"tests": "3", "failures": "1", "errors": "0", "time": "0.250000"}
    suites = {suite.attrib["name"]: suite for suite in root}
    assert suites["converters/acme/a.yaml"].attrib["tests"] == "2"
    (case,) = suites["chains/cool_test.yaml"]
    assert case.attrib["name"] == FAILED.name
    assert (case.attrib["file"], case.attrib["line"]) == ("chains/cool_test.yaml", "7")
    (failure,) = case
    assert failure.attrib["message"] == 'then.downlinks[0].bytes: expected "01", got "00"'
    assert failure.text is not None
    assert "says no device\\u0000\\ud800" in failure.text
    assert list(suites["converters/acme/a.yaml"][0]) == []


def test_json_has_the_differences() -> None:
    """A program gets plain values."""
    passed, failed = as_json([PASSED, FAILED])

    assert passed["ok"]
    assert passed["differences"] == []
    assert failed["duration_s"] == 0.25
    assert failed["differences"][0] == {
        "path": "then.downlinks[0].bytes", "line": 12, "expected": '"01"', "got": '"00"',
    }  # fmt: skip
    assert failed["differences"][1]["message"].startswith("says no device")
