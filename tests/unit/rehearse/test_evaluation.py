"""Why an expression gave what it gave, in one line."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.expression import compile_expression
from pipeline.expression.seen import ABSENT
from pipeline.rehearse.evaluation import VALUE_MAX, evaluation_of, short

SCOPE: dict[str, Any] = {"telemetry": {"temperature": 31.5, "text": "x" * 200}, "changed": ["a"]}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("telemetry.temperature > 30", "telemetry.temperature (31.5) > 30"),
        ("telemetry.other   > 1\n|| true", "telemetry.other (absent) > 1 || true"),
        ("telemetry.temperature", "telemetry.temperature"),
        ('changed.exists(k, k == "a")', 'changed (["a"]).exists(k, k == "a")'),
    ],
)
def test_text(source: str, text: str) -> None:
    """Each value stands behind its place, on one line; a place alone is its own result."""
    assert evaluation_of(compile_expression(source), SCOPE, True).text == text


def test_values_are_whole_and_texts_are_short() -> None:
    """Machines get the whole value, a text of it is shortened."""
    told = evaluation_of(compile_expression('telemetry.text == ""'), SCOPE, False)

    assert told.values == {"telemetry.text": "x" * 200}
    assert len(told.text) < VALUE_MAX + 40
    assert told.text.endswith('…) == ""')


def test_short() -> None:
    """Null and what is not there are told apart."""
    assert (short(None), short(ABSENT), short({"a": 1})) == ("null", "absent", '{"a":1}')
