from __future__ import annotations

import pytest

from pipeline.rulebook.reader import read_document


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:\n\tb: 1\n", "f.yaml:2:1: a tab; YAML indents with spaces (use two spaces)"),
        ("a: b: c\n", "f.yaml:1:5: a second `: ` here makes no sense to YAML (put a text that"),
        ("a: [1, 2\nb: 3\n", "f.yaml:1:4: the `[` that opens here is not closed (add `]` or `,`)"),
        ("a: [\n", "f.yaml:2:1: a value is missing here (close the `[` or `{` above, or write"),
        ("a: {b: 1\n", "f.yaml:1:4: the `{` that opens here is not closed (add `}` or `,`)"),
        ("a: {b: ${env:X}}\n", "f.yaml:1:9: a `{` in the middle of a value, within `{ }` or `[ ]`"),
        ("a: [x, ${y}]\n", "f.yaml:1:9: a `{` in the middle of a value, within `{ }` or `[ ]`"),
        ("a: 1\nb: 'x\n", "f.yaml:2:4: the quote that opens here is never closed"),
        ("a: @x\n", "f.yaml:1:4: a text cannot start with `@` (put the text in quotes)"),
        ("a: %x\n", "f.yaml:1:4: a text cannot start with `%` (put the text in quotes)"),
        ("- a\nb: 1\n", "f.yaml:2:1: this line's indentation fits nothing above it (line it up"),
        ("  a: 1\n b: 2\n", "f.yaml:2:2: this line's indentation fits nothing above it"),
        ('a: "\\q"\n', "f.yaml:1:6: `\\q` is no escape (use '…' or double the \\)"),
        ("key: - a\n", "f.yaml:1:6: a list cannot start on its key's line (put `- …` on the next"),
        ("a: b\nc\n", "f.yaml:2:1: this line has no `key: value`"),
        ("a: *\n", "f.yaml:1:4: `*` and `&` start an alias or an anchor (put a text that starts"),
        ("a: 1\nb: x\x07y\n", "f.yaml:2:5: a control character that YAML does not allow (remove"),
        ("a: |2x\n  b\n", "f.yaml:1:6: not YAML: expected chomping or indentation indicators"),
    ],
)
def test_broken_yaml_is_told_in_plain_words(text: str, expected: str) -> None:
    """Each usual slip has its place, what is wrong and what to do."""
    document, faults = read_document("f.yaml", text.encode())

    assert document is None
    assert [str(fault)[: len(expected)] for fault in faults] == [expected]
