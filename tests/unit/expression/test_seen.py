"""The places that an expression names, with what stands there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.expression import compile_expression
from pipeline.expression.seen import ABSENT, seen

SCOPE: dict[str, Any] = {
    "telemetry": {"temperature": 31.5, "flags": [1, 2], "a b": {"c": None}},
    "attributes": {"shared": {}},
    "now": datetime(2026, 1, 1, tzinfo=UTC),
    "key": {"x": 1},
}


@pytest.mark.parametrize(
    ("source", "places"),
    [
        ("telemetry.temperature > 30", [("telemetry.temperature", 31.5)]),
        ("attributes.shared.target == 1", [("attributes.shared.target", ABSENT)]),
        ("has(attributes.shared.target)", [("attributes.shared.target", ABSENT)]),
        ('telemetry["a b"].c == null', [('telemetry["a b"].c', None)]),
        ("telemetry.flags[1] in [1]", [("telemetry.flags[1]", 2)]),
        ("telemetry.flags.exists(key, key > 1)", [("telemetry.flags", [1, 2])]),
        ("telemetry.flags.size() > 1", [("telemetry.flags", [1, 2])]),
        ('now.getFullYear() == 2026 && "now" == ""', [("now", "2026-01-01T00:00:00Z")]),
        ("nothing.at.all", [("nothing.at.all", ABSENT)]),
        ("size(telemetry.flags) + 1", [("telemetry.flags", [1, 2])]),
        ("1 + 1 == 2", []),
    ],
)
def test_places(source: str, places: list[tuple[str, Any]]) -> None:
    """Each path is found whole, with its value as JSON; functions, texts and macros' variables
    are none.
    """
    found = seen(compile_expression(source), SCOPE)

    assert [(each.path, each.value) for each in found] == places
    assert all(source[each.start : each.end] == each.path for each in found)
