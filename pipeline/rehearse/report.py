"""Results of tests → what a terminal, a build server (JUnit XML) or a program (JSON) is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from pipeline.rehearse.result import Difference, Result, path_text

Style = Literal["passed", "failed", "detail", "sum"]

# What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Line(NamedTuple):
    """One line for a terminal; `style` is for its colour."""

    text: str
    style: Style


def lines(results: Sequence[Result], *, verbose: bool = False) -> list[Line]:
    """Return what a terminal is shown: the failed ones with what differs, and the sum; with
    `verbose` also the passed ones.
    """
    made: list[Line] = []
    for result in results:
        if result.ok:
            if verbose:
                made.append(Line(f"✓ {result.name}", "passed"))
            continue
        made.append(Line(f"✗ {result.name}", "failed"))
        made.append(Line(f"  {result.file}:{result.line}", "detail"))
        made += [Line(f"    {printable(text)}", "detail") for text in _told(result)]
    failed = sum(not result.ok for result in results)
    made.append(Line(summary(results), "failed" if failed else "sum"))
    return made


def summary(results: Sequence[Result]) -> str:
    """Return the sum in one line: `12 examples, 7 chain tests: 1 failed`."""
    if not results:
        return "no examples and no chain tests"
    examples = sum(result.kind == "example" for result in results)
    tests = len(results) - examples
    failed = sum(not result.ok for result in results)
    counted = [
        _count(number, what)
        for number, what in ((examples, "example"), (tests, "chain test"))
        if number
    ]
    return f"{', '.join(counted)}: {f'{failed} failed' if failed else 'all passed'}"


def junit(results: Sequence[Result], properties: Mapping[str, Mapping[str, object]] = {}) -> str:
    """Return JUnit XML: a suite a file, a case a test, with its place. `properties` are of
    suites, by name; a suite that has no test is there for them.
    """
    suites: dict[str, list[Result]] = {}
    for result in results:
        suites.setdefault(result.file, []).append(result)
    parts = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites {_counts(results)}>"]
    for name in properties:
        suites.setdefault(name, [])
    for file, members in suites.items():
        parts.append(f"  <testsuite name={_attribute(file)} {_counts(members)}>")
        parts += _properties(properties.get(file, {}))
        parts += [_case(result) for result in members]
        parts.append("  </testsuite>")
    return "\n".join([*parts, "</testsuites>", ""])


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return plain values, an object a test."""
    return [
        {
            "kind": result.kind,
            "name": result.name,
            "file": result.file,
            "line": result.line,
            "ok": result.ok,
            "duration_s": round(result.duration_s, 6),
            "differences": [_as_json(difference) for difference in result.differences],
        }
        for result in results
    ]


def _as_json(difference: Difference) -> dict[str, Any]:
    said: dict[str, Any] = {"path": path_text(difference.path), "line": difference.line}
    if difference.message:
        return {**said, "message": difference.message}
    return {**said, "expected": difference.expected, "got": difference.got}


def _told(result: Result) -> list[str]:
    told = [f"input {result.given}"] if result.given else []
    for difference in result.differences:
        where = path_text(difference.path)
        place = f" (line {difference.line})" if difference.line else ""
        if difference.message:
            told.append(f"{where}: {difference.message}{place}" if where else difference.message)
            continue
        told.append(f"{where or 'the result'}{place}")
        told.append(f"  expected {difference.expected}")
        told.append(f"  got      {difference.got}")
    return told


def _properties(values: Mapping[str, object]) -> list[str]:
    if not values:
        return []
    inner = [
        f"      <property name={_attribute(name)} value={_attribute(str(value))}/>"
        for name, value in values.items()
    ]
    return ["    <properties>", *inner, "    </properties>"]


def _case(result: Result) -> str:
    head = (
        f"    <testcase classname={_attribute(result.file)} name={_attribute(result.name)}"
        f' file={_attribute(result.file)} line="{result.line}" time="{result.duration_s:.6f}"'
    )
    if result.ok:
        return f"{head}/>"
    first = _attribute(str(result.differences[0]))
    text = "\n".join([f"{result.file}:{result.line}", *_told(result)])
    inner = f'      <failure type="difference" message={first}>{_text(text)}</failure>'
    return f"{head}>\n{inner}\n    </testcase>"


def _counts(results: Sequence[Result]) -> str:
    failed = sum(not result.ok for result in results)
    seconds = sum(result.duration_s for result in results)
    return f'tests="{len(results)}" failures="{failed}" errors="0" time="{seconds:.6f}"'


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _attribute(text: str) -> str:
    return quoteattr(_clean(text), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _text(text: str) -> str:
    return escape(_clean(text), {"\r": "&#13;"})


def printable(text: str) -> str:
    """Spell out what would steer a terminal: texts of scripts and devices come here."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _clean(text: str) -> str:
    """Spell out what XML cannot hold."""
    return _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
