"""Who waits for an answer, as a header says it."""

from __future__ import annotations

import pytest

from pipeline.model.reply import ReplyTo, read_reply_to


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"instance": 1}', "\udc80"])
def test_nobody_that_could_be_answered(text: str | None) -> None:
    """A header that names nobody, or is no JSON of ours, means that nobody waits."""
    assert read_reply_to(text) is None


def test_who_waits() -> None:
    """A header as the door writes it names who waits."""
    text = '{"instance":"a","request":"r","deadline_ms":5,"partition":2}'
    assert read_reply_to(text) == ReplyTo("a", "r", 5, 2)
