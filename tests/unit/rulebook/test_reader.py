from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.main import CParser

from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.reader import Limits, read_document

HERE = Path(__file__).parents[3]


def value(text: str) -> Any:
    document, faults = read_document("f.yaml", text.encode())
    assert faults == []
    return document.value


def fault(text: str | bytes, **limits: int) -> str:
    raw = text if isinstance(text, bytes) else text.encode()
    document, faults = read_document("f.yaml", raw, limits=Limits(**limits))
    assert document is None
    assert len(faults) == 1
    return str(faults[0])


def test_plain_words_are_text_but_for_true_false_and_null() -> None:
    """YAML 1.2: `NO`, `On`, `Off`, `yes` and dates are strings."""
    read = value("[NO, On, Off, yes, 2024-01-01, 12:30:00, true, FALSE, null, ~, 'true']")

    assert read == [
        *("NO", "On", "Off", "yes", "2024-01-01", "12:30:00"),
        *(True, False, None, None, "true"),
    ]


def test_line_breaks_are_those_of_yaml_1_2() -> None:
    """What YAML 1.1 took for the end of a line begins no other key."""
    for character in "\x85\u2028\u2029":
        assert "f.yaml:1" in fault(f"a: x{character}b: y")
    assert value("a: x\u2028y") == {"a": "x\u2028y"}


def test_both_parsers_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in C and ruamel's own give the same values, at the same places, of all our files; and
    what is wrong is said in the words of the one that knows YAML 1.2.
    """
    assert CParser is not None, "ruamel.yaml.clib is not installed"
    files = sorted(HERE.glob("rules/**/*.yaml")) + sorted(HERE.glob("pipeline/**/*.yaml"))
    assert len(files) > 30
    texts = [file.read_text("utf-8") for file in files]
    texts += ["a: [1, 2", "a:\n\tb: 1", "a: 'x", "- a\nb: 1"]
    read = [_all_of(text) for text in texts]

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.rulebook.reader.YAML", lambda **_: YAML(typ="safe", pure=True))
        assert [_all_of(text) for text in texts] == read


def _all_of(text: str) -> Any:
    document, faults = read_document("f.yaml", text.encode())
    if document is None:
        return [str(each) for each in faults]
    places = {path: document.place(path) for path in document.values}
    ends = [(each.start_mark.index, each.end_mark.index) for each in document.values.values()]
    return document.value, document.keys, places, ends


def test_numbers_are_those_of_the_core_schema() -> None:
    """Decimal, octal, hexadecimal and floats are numbers; underscores make text."""
    read = value("[7, -12, 0x1F, 0o17, 017, 1.5, .5, 1e3, -2.5E-1, 1_000, 0b11]")

    assert read == [7, -12, 31, 15, 17, 1.5, 0.5, 1000.0, -0.25, "1_000", "0b11"]
    assert [type(number) for number in read[5:9]] == [float] * 4


def test_whole_document_shapes() -> None:
    """Mappings, lists, block text and an empty file come out as JSON values."""
    text = "a: {b: [1, {c: d}]}\ne: |\n  two\n  lines\nf: >-\n  one\n  line\n1: key\nnull: k\ng:\n"

    assert value(text) == {
        "a": {"b": [1, {"c": "d"}]},
        "e": "two\nlines\n",
        "f": "one line",
        "1": "key",
        "null": "k",
        "g": None,
    }
    assert value("# nothing\n") is None
    assert value("") is None


def test_str_tag_makes_text() -> None:
    """`!!str 12` is the text 12."""
    assert value("a: !!str 12") == {"a": "12"}


def test_aliases_are_expanded() -> None:
    """An alias gives its anchor's value, and both have places."""
    document, _ = read_document("f.yaml", b"a: &x {b: 1}\nc: *x\n")

    assert document.value == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.place(("c",)) == (2, 1)
    assert document.place(("c", "b")) == (1, 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb:\n  c: 2\n  c: 3\n", "f.yaml:4:3: the key `c` stands twice (first on line 3)"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2:1: a second document; one file holds one document"),
        ("a: *b\n", "f.yaml:1:4: the alias `*b` has no anchor `&b` before it"),
        ("a: &a\n  b: *a\n", "f.yaml:2:6: the alias `*a` holds itself"),
        ("a: !!python/name:os.system x\n", "f.yaml:1:4: the tag tag:yaml.org,2002:python/name"),
        ("a: !secret x\n", "f.yaml:1:4: the tag !secret has no meaning here (leave it out)"),
        ("b: &b {c: 1}\na:\n  <<: *b\n", "f.yaml:3:3: `<<` (merge) is not part of YAML 1.2"),
        ("a: 99999999999999999999\n", "f.yaml:1:4: this number is out of range (text needs"),
        ("a: 1e999\n", "f.yaml:1:4: this number is out of range (text needs quotes)"),
        ("a: .nan\n", "f.yaml:1:4: `.nan` is no number that JSON can carry"),
        ("a: -.inf\n", "f.yaml:1:4: `-.inf` is no number that JSON can carry"),
        ("? [a, b]\n: 1\n", "f.yaml:1:3: a key must be text"),
        ("%YAML 1.3\n---\na: 1\n", "f.yaml: not YAML:"),
    ],
)
def test_refuses_with_place_and_words(text: str, expected: str) -> None:
    """What YAML allows and rules do not is refused where it stands."""
    assert fault(text).startswith(expected)


def test_not_utf8_has_a_place() -> None:
    """A file in another encoding is refused at its first wrong byte."""
    assert fault(b"a: 1\nb: caf\xe9\n") == "f.yaml:2:7: not UTF-8 (save the file as UTF-8)"


def test_byte_order_mark_and_windows_lines_are_fine() -> None:
    """Editors on Windows write a mark and CRLF; places and values are the same."""
    document, faults = read_document("f.yaml", b"\xef\xbb\xbfa: 1\r\nb: x\r\n")

    assert faults == []
    assert document.value == {"a": 1, "b": "x"}
    assert document.place(("b",)) == (2, 1)


def test_size_depth_and_aliases_are_limited() -> None:
    """Each limit says what is too much."""
    assert fault("a: 12345\n", file_bytes_max=5) == "f.yaml: the file has 9 bytes; 5 are allowed"
    assert fault("[[[1]]]", depth_max=2) == "f.yaml:1:3: nested more than 2 levels deep"
    aliases = "a: &a 1\nb: [*a, *a, *a]\n"
    assert fault(aliases, aliases_max=2) == "f.yaml:2:13: more than 2 aliases (`*name`)"


def test_depth_through_aliases_is_limited() -> None:
    """Aliases cannot build what nesting may not."""
    text = "a: &a [1]\nb: &b [*a]\nc: &c [*b]\nd: [*c]\n"

    assert fault(text, depth_max=3).endswith("nested more than 3 levels deep")


def test_alias_bomb_ends_at_the_limit_of_values() -> None:
    """A billion laughs are refused after the values that are allowed, and at once."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    start = time.process_time()

    assert "more than 100,000 values, aliases expanded" in fault("\n".join(lines))
    assert time.process_time() - start < 5


def test_a_hundred_thousand_brackets_end_at_the_limit_of_depth() -> None:
    """Depth 100,000 is refused without recursion."""
    assert fault("[" * 100_000) == "f.yaml:1:65: nested more than 64 levels deep"


PLACES = """\
# a comment
dialect: ttn_v2
list:
  - name: one
    deep: {x: 1, y: "two"}
  - name: two
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ((), (2, 1)),
        (("dialect",), (2, 1)),
        (("list",), (3, 1)),
        (("list", 0), (4, 5)),
        (("list", 0, "name"), (4, 5)),
        (("list", 0, "deep", "y"), (5, 18)),
        (("list", 1), (6, 5)),
        (("list", 1, "name", "no", "such"), (6, 5)),
        (("list", 7), (3, 1)),
    ],
)
def test_a_path_leads_to_its_key_or_the_nearest_above(
    path: tuple[str | int, ...], place: tuple[int, int]
) -> None:
    """Keys have their own places; what is not there has its parent's."""
    document, _ = read_document("f.yaml", PLACES.encode())

    assert document.place(path) == place


def test_an_offset_leads_into_the_value() -> None:
    """An offset of 0 is the value's first character, behind its quote."""
    document, _ = read_document("f.yaml", PLACES.encode())

    assert document.place(("dialect",), 0) == (2, 10)
    assert document.place(("dialect",), 3) == (2, 13)
    assert document.place(("list", 0, "deep", "y"), 1) == (5, 23)
    assert document.place(("list", 0, "deep"), 4) == (5, 5)


def test_an_offset_in_block_text_leads_to_its_line() -> None:
    """An expression over several lines has its fault on the right one."""
    document, _ = read_document("f.yaml", b"a:\n  when: >\n    one &&\n    two BAD\n")

    assert document.place(("a", "when"), "one && two BAD".index("BAD")) == (4, 9)


def test_line_is_the_values_line() -> None:
    """A block value's line is where it starts, not its key's."""
    document, _ = read_document("f.yaml", PLACES.encode())

    assert document.line(("list",)) == 4


def test_a_fault_has_the_problems_place_and_words() -> None:
    """A problem becomes a fault of the file."""
    document, _ = read_document("f.yaml", PLACES.encode())
    made = document.fault(Problem(("list", 1, "name"), "is wrong", "try harder"))

    assert str(made) == "f.yaml:6:5: is wrong (try harder)"


def test_secrets_are_shown_as_they_were_written() -> None:
    """A resolved secret is replaced wherever a text quotes it; a short one only in backticks."""
    document, _ = read_document("f.yaml", b"a: 1\n")
    document.secrets.update({"hunter22": "${env:PASSWORD}", "on": "${env:O}"})

    assert document.redact("no `hunter22` on `on`") == "no `${env:PASSWORD}` on `${env:O}`"


@settings(deadline=None)
@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@`\\,?<~ \n\t\x00\x85\u2028\ufeff0.", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the reader raise, and a refusal has words and a place in the file."""
    document, faults = read_document("f.yaml", text.encode())

    assert (document is None) == bool(faults)
    for each in faults:
        assert each.message
        assert 0 <= each.line <= text.count("\n") + text.count("\x85") + text.count("\u2028") + 2


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    """No bytes make the reader raise."""
    document, faults = read_document("f.yaml", raw)

    assert (document is None) == bool(faults)
