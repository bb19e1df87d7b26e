"""The node that writes texts: template."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.route.bench import Made, problems_of
from tests.unit.route.talk import Talk, metadata, reasons


def text_of(text: str, more: str = "", **telemetry: Any) -> Made:
    """What the node makes of one message."""
    return Talk(f"template: {{into: metadata.text, text: {text}{more}}}").at(1, telemetry)


def test_lines_and_values() -> None:
    """Values stand as JSON has them; lines stay lines."""
    made = text_of(
        '"${device.name}: ${telemetry.a} ${telemetry.b}\\n${telemetry.list}\\n\\nend\\n"',
        a=1.5, b=True, list=[1, "x"],
    )  # fmt: skip

    assert metadata(made)[0]["text"] == 'dev: 1.5 true\n[1,"x"]\n\nend\n'


def test_line_without_a_value_fails() -> None:
    """By default a line that cannot be told is the node's failure."""
    made = text_of('"a ${telemetry.none}"', x=1)

    assert reasons(made) == ["expression"]


def test_line_without_a_value_is_left_out() -> None:
    """With `missing: leave_out` the other lines stand."""
    made = text_of('"a\\nb ${telemetry.none}\\nc ${telemetry.x}"', ", missing: leave_out", x=1)

    assert metadata(made)[0]["text"] == "a\nc 1"


def test_too_long() -> None:
    """A text has an end."""
    made = text_of('"${telemetry.x}${telemetry.x}"', x="y" * 40_000)

    assert reasons(made) == ["template"]


@pytest.mark.parametrize(
    ("text", "said", "offset"),
    [
        ('"a\\nb ${telemetry.}"', "telemetry", 6),
        ('""', "must be text", None),
        ("[1]", "must be text", None),
        ('"' + "\\n" * 1_000 + '"', "at most 1000 lines", None),
    ],
)
def test_faults_of_a_text(text: str, said: str, offset: int | None) -> None:
    """What cannot be compiled is said, at its place in the whole text."""
    chain = f"""
chain: main
on: {{messages: uplink}}
nodes:
  - name: a
    template: {{into: metadata.text, text: {text}}}
  - {{name: b, send: {{to: archive}}}}
"""

    problems = [problem for problem in problems_of(chain) if not problem.warns]

    (problem,) = problems
    assert problem.path == ("nodes", 0, "template", "text")
    if offset is not None:
        assert problem.offset is not None
        assert problem.offset >= offset
    else:
        assert said in problem.message
