from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.rulebook.environment import fill_in
from pipeline.rulebook.reader import Document, read_document


def filled(
    text: str, folder: Path, env: dict[str, str] | None = None, *, expressions: bool = False
) -> tuple[Document, list[str]]:
    document, faults = read_document("f.yaml", text.encode())
    assert faults == []
    problems = fill_in(document, folder, env or {}, expressions=expressions)
    return document, [str(document.fault(problem)) for problem in problems]


def test_variables_are_filled_in_anywhere_in_a_value(tmp_path: Path) -> None:
    """Whole values, parts of values and values in lists are filled in; keys are not."""
    text = 'a: ${env:ONE}\nb: ["x${env:ONE}y${env:TWO}"]\n"${env:ONE}": 1\nc: 5\n'
    document, faults = filled(text, tmp_path, {"ONE": "1", "TWO": "2"})

    assert faults == []
    assert document.value == {"a": "1", "b": ["x1y2"], "${env:ONE}": 1, "c": 5}


def test_a_default_stands_in_for_unset_and_empty(tmp_path: Path) -> None:
    """As in a shell, `:-` is for variables that are unset or empty."""
    text = "a: ${env:ONE:-x}\nb: ${env:TWO:-http://h:1/y}\nc: ${env:THREE:-z}\nd: ${env:NO:-}\n"
    document, faults = filled(text, tmp_path, {"ONE": "", "THREE": "3"})

    assert faults == []
    assert document.value == {"a": "x", "b": "http://h:1/y", "c": "3", "d": ""}


def test_files_are_read_beside_the_rules_or_by_absolute_path(tmp_path: Path) -> None:
    """A file's text comes without its last line end; a missing one may have a default."""
    (tmp_path / "key").write_text("s3cret\n")
    text = f"a: ${{file:key}}\nb: ${{file:{tmp_path}/key}}\nc: ${{file:none:-x}}\n"
    document, faults = filled(text, tmp_path)

    assert faults == []
    assert document.value == {"a": "s3cret", "b": "s3cret", "c": "x"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a:\n  b: ${env:SECRET_KEY}\n",
            (
                "f.yaml:2:6: the environment variable SECRET_KEY is not set"
                " (set SECRET_KEY, or give a default: ${env:SECRET_KEY:-…})"
            ),
        ),
        ('a: "x ${env:NIL}"', "f.yaml:1:7: the environment variable NIL is empty (set NIL)"),
        ("a: ${env:GIVN}", "f.yaml:1:4: the environment variable GIVN is not set (did you mean"),
        ("a: ${env:A-B}", "f.yaml:1:4: `A-B` is no name of an environment variable (write"),
        ("a: ${env:}", "f.yaml:1:4: `` is no name of an environment variable (write ${env:NAME})"),
        ("a: ${env:GIVEN", "f.yaml:1:4: `${env:` is not closed, or holds a brace (end it with"),
        ("a: ${file:}", "f.yaml:1:4: `${file:…}` names no file (write ${file:PATH})"),
        ("a: ${file:nope}", "f.yaml:1:4: there is no file nope (it is looked for at /"),
        ("a: ${file:folder}", "f.yaml:1:4: the file folder cannot be read: Is a directory"),
        ("a: ${file:big}", "f.yaml:1:4: the file big has more than 65,536 bytes"),
        ("a: ${file:latin}", "f.yaml:1:4: the file latin is not UTF-8 text"),
        ('a: "${file:x\\0y}"', "f.yaml:1:5: the file x\0y cannot be read: not a path"),
    ],
)
def test_what_cannot_be_filled_in_is_named(tmp_path: Path, text: str, expected: str) -> None:
    """A fault says which variable or file, where, and what to do."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "big").write_bytes(b"x" * 65_537)
    (tmp_path / "latin").write_bytes(b"\xe9")
    _, faults = filled(text, tmp_path, {"GIVEN": "1", "NIL": ""})

    assert [fault[: len(expected)] for fault in faults] == [expected]


def test_all_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    """One value may lack two variables; each is a fault at its own place."""
    _, faults = filled("a: ${env:QQQ} ${env:ZZZ}", tmp_path)

    assert [fault.split(" is not set")[0] for fault in faults] == [
        "f.yaml:1:4: the environment variable QQQ",
        "f.yaml:1:15: the environment variable ZZZ",
    ]


def test_expressions_are_left_alone(tmp_path: Path) -> None:
    """Any other `${ … }` stays, and `$${env:…}` is the text itself."""
    text = 'a: "${telemetry.x} $${env:ONE} ${environment}"\n'
    document, faults = filled(text, tmp_path, {"ONE": "1"})

    assert faults == []
    assert document.value == {"a": "${telemetry.x} ${env:ONE} ${environment}"}


def test_a_chain_keeps_escapes_and_reads_no_expression_from_outside(tmp_path: Path) -> None:
    """Where strings hold expressions, a variable's text is text and not an expression."""
    text = 'a: "${env:ONE} $${env:ONE} ${device.name}"\n'
    document, _ = filled(text, tmp_path, {"ONE": "${attributes}"}, expressions=True)

    assert document.value == {"a": "$${attributes} $${env:ONE} ${device.name}"}


def test_what_was_filled_in_is_secret_and_a_default_is_not(tmp_path: Path) -> None:
    """Values of variables are shown as they were written; defaults stand in the file anyway."""
    text = "a: ${env:ONE}\nb: ${env:TWO:-public-default}\n"
    document, _ = filled(text, tmp_path, {"ONE": "hunter22"})

    assert document.redact("hunter22 public-default") == "${env:ONE} public-default"
    assert "hunter22" not in repr(document)
