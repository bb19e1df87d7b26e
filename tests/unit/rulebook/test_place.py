from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from pipeline.rulebook.place import align


def scalar(text: str) -> tuple[str, str, str | None]:
    """The one scalar of a YAML text: as written, its value and style."""
    for event in YAML(typ="safe", pure=True).parse(text):
        if type(event).__name__ == "ScalarEvent" and event.value != "k":
            return text[event.start_mark.index : event.end_mark.index], event.value, event.style
    raise AssertionError(text)


@pytest.mark.parametrize(
    "text",
    [
        "k: one two BAD\n",
        "k: 'one BAD'\n",
        "k: 'it''s ''BAD'''\n",
        'k: "one BAD"\n',
        'k: "\\t\\u00e9 \\x41 \\" BAD"\n',
        'k: "one \\\n  two BAD"\n',
        "k: one\n  two\n  BAD\n",
        "k: 'one\n\n  two\n\n\n  BAD'\n",
        "k: |\n  one\n  two BAD\n",
        "k: |\n  one\n\n    two\n  BAD\n",
        "k: >\n  one\n  two\n  BAD\n",
        "k: >-\n  one\n  BAD\n",
        "k: |2\n    one\n  BAD\n",
    ],
)
def test_every_style_leads_to_the_same_word(text: str) -> None:
    """The offset of a word in the value gives the index of the word in the text."""
    written, value, style = scalar(text)

    index = align(written, value, value.index("BAD"), style)

    assert written[index : index + 3] == "BAD"


@settings(deadline=None)
@given(
    written=st.text(alphabet="a '\"\\\nx", max_size=20),
    value=st.text(alphabet="a '\"\\\nx", max_size=20),
    offset=st.integers(-3, 30),
    style=st.sampled_from([None, "'", '"', "|", ">"]),
)
def test_stays_inside_the_text(written: Any, value: str, offset: int, style: str | None) -> None:
    """Whatever it is given, the index is in the text or at its end."""
    assert 0 <= align(written, value, offset, style) <= len(written)
