"""The limits of scripts."""

from __future__ import annotations

import pytest

from pipeline.script import ScriptLimits


def test_no_limit_is_nothing() -> None:
    """A limit of nothing, which would refuse everything, is refused by its name."""
    with pytest.raises(ValueError, match="call_ms is 0"):
        ScriptLimits(call_ms=0)
