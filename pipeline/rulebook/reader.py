"""YAML text → a document: plain values, and where each of them stands in the file.

YAML 1.2 with its core schema: only `true` and `false` are booleans, so `NO`, `On` and `Off` stay
strings. Built on ruamel.yaml's events, not on its constructors: values and places come out of one
pass, and aliases, depth and duplicate keys are ours to limit. Values are what JSON has: no dates,
no binary, no tags but `!!str`.

libyaml parses (`ruamel.yaml.clib`; without it ruamel's own parser, in 25 times the time). What it
refuses is parsed once more by ruamel, which knows YAML 1.2 and says better what is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from pipeline.errors import Fault
from pipeline.rulebook.catalogue import Problem
from pipeline.rulebook.place import align
from pipeline.rulebook.syntax import character_fault, syntax_fault

Path = tuple[str | int, ...]

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BREAKS_OF_1_1 = re.compile("[\x85\u2028\u2029\ufeff]")  # libyaml breaks lines there
_STR_TAG = "tag:yaml.org,2002:str"
_SECRET_LENGTH = 4
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1  # what msgspec and orjson carry


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may ask of us. The defaults are far above what people write by hand."""

    file_bytes_max: int = 1_048_576
    depth_max: int = 64
    values_max: int = 100_000  # after aliases are expanded
    aliases_max: int = 1_000


LIMITS = Limits()


class _Refused(Exception):  # noqa: N818 - never leaves this module; it carries a place, not an error
    def __init__(self, mark: Any, message: str, suggestion: str = "") -> None:
        super().__init__(message)
        self.place = (mark.line + 1, mark.column + 1)
        self.message = message
        self.suggestion = suggestion


@dataclass(slots=True)
class _Node:
    """One value as it stands in the text; aliases share the node of their anchor."""

    event: Any
    items: list[tuple[Any, _Node]] | None = None  # of a mapping: key event, value
    children: list[_Node] | None = None  # of a sequence
    whole: bool = False  # False while its own children are read: an alias in there has no end


@dataclass(slots=True)
class Document:
    """One YAML file: its plain `value`, and the places of its keys and values."""

    file: str
    text: str = field(repr=False)
    value: Any = field(default=None, repr=False)
    keys: dict[Path, tuple[int, int]] = field(default_factory=dict, repr=False)
    values: dict[Path, Any] = field(default_factory=dict, repr=False)  # path → event
    replaced: dict[Path, str] = field(default_factory=dict, repr=False)  # by `${env:…}`: as written
    secrets: dict[str, str] = field(default_factory=dict, repr=False)  # resolved → as written

    def place(self, path: Path, offset: int | None = None) -> tuple[int, int]:
        """Return line and column, from 1, of the value at `path`, or of the nearest above it.

        A path that ends in a mapping's key leads to the key, unless an offset into the value is
        asked for.
        """
        while path and path not in self.values:
            path, offset = path[:-1], None
        event = self.values.get(path)
        if event is None:
            return (1, 1)
        if offset is not None and isinstance(getattr(event, "value", None), str):
            return self._inside(path, event, offset)
        if path in self.keys:
            return self.keys[path]
        return (event.start_mark.line + 1, event.start_mark.column + 1)

    def line(self, path: Path) -> int:
        """Return the line of the value at `path`, not of its key."""
        event = self.values.get(path)
        return self.place(path)[0] if event is None else event.start_mark.line + 1

    def _inside(self, path: Path, event: Any, offset: int) -> tuple[int, int]:
        mark = event.start_mark
        if path in self.replaced:
            return (mark.line + 1, mark.column + 1)
        start, end = mark.index, event.end_mark.index
        index = start + align(self.text[start:end], event.value, offset, event.style)
        before = self.text[:index]
        return (before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)

    def fault(self, problem: Problem) -> Fault:
        """Return the problem with its place; what came from secrets is shown as it was written."""
        line, column = self.place(problem.path, problem.offset)
        return Fault(
            self.file, line, column, self.redact(problem.message), self.redact(problem.suggestion)
        )

    def redact(self, text: str) -> str:
        """Return `text` with every resolved secret as it stands in the file."""
        for secret in sorted(self.secrets, key=len, reverse=True):
            written = self.secrets[secret]
            # A short one would garble every word that holds it; it is shown in backticks at most.
            if len(secret) >= _SECRET_LENGTH:
                text = text.replace(secret, written)
            else:
                text = text.replace(f"`{secret}`", f"`{written}`")
        return text


def read_document(
    file: str, raw: bytes, *, limits: Limits = LIMITS
) -> tuple[Document | None, list[Fault]]:
    """Return the document of a YAML file, or None and why it cannot be read."""
    if len(raw) > limits.file_bytes_max:
        message = f"the file has {len(raw):,} bytes; {limits.file_bytes_max:,} are allowed"
        return None, [Fault(file, 0, 0, message)]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        return None, [Fault(file, line, column, "not UTF-8", "save the file as UTF-8")]
    text = text.replace("\r\n", "\n")
    try:
        node = _compose(text, limits)
        document = Document(file, text)
        if node is not None:
            _Builder(document, limits).build(node)
    except _Refused as refused:
        return None, [Fault(file, *refused.place, refused.message, refused.suggestion)]
    except MarkedYAMLError as error:
        return None, [syntax_fault(file, error)]
    except ReaderError as error:
        return None, [character_fault(file, text, error)]
    except Exception as error:  # noqa: BLE001 - the parser asserts; its failure is the file's fault
        return None, [Fault(file, 0, 0, f"not YAML: {error}")]
    return document, []


@lru_cache(maxsize=32)
def read_once(file: str, raw: bytes) -> tuple[Document | None, list[Fault]]:
    """Return what `read_document` does, the same objects for the same file: nobody may change them.

    Of tests, which are checked with the rules and read again to be run: a thousand of them take
    two seconds to parse.
    """
    return read_document(file, raw)


def _compose(text: str, limits: Limits) -> _Node | None:
    if not _BREAKS_OF_1_1.search(text):
        with suppress(MarkedYAMLError, ReaderError):
            return _composed(YAML(typ="safe").parse(text), limits)
    return _composed(YAML(typ="safe", pure=True).parse(text), limits)


def _composed(events: Iterable[Any], limits: Limits) -> _Node | None:
    anchors: dict[str, _Node] = {}
    aliases = 0
    root: _Node | None = None
    stack: list[tuple[_Node, Any]] = []  # open collections, and the key that waits for its value
    for event in events:
        kind = type(event).__name__
        if kind == "DocumentStartEvent":
            if root is not None:
                raise _Refused(event.start_mark, "a second document; one file holds one document")
            continue
        if kind in ("SequenceEndEvent", "MappingEndEvent"):
            stack.pop()[0].whole = True
            continue
        if kind == "AliasEvent":
            aliases += 1
            node = _aliased(event, anchors, aliases, limits)
        elif kind in ("ScalarEvent", "SequenceStartEvent", "MappingStartEvent"):
            node = _opened(event, kind, len(stack), limits)
            if event.anchor is not None:
                anchors[event.anchor] = node
        else:
            continue
        if stack:
            _attach(stack, node, event)
        else:
            root = node
        if not node.whole:
            stack.append((node, None))
    return root


def _opened(event: Any, kind: str, depth: int, limits: Limits) -> _Node:
    if event.tag not in (None, "!", _STR_TAG):
        raise _Refused(event.start_mark, f"the tag {event.tag} has no meaning here", "leave it out")
    if kind == "ScalarEvent":
        return _Node(event, whole=True)
    if depth >= limits.depth_max:
        raise _Refused(event.start_mark, f"nested more than {limits.depth_max} levels deep")
    return _Node(event, items=[]) if kind == "MappingStartEvent" else _Node(event, children=[])


def _aliased(event: Any, anchors: Mapping[str, _Node], count: int, limits: Limits) -> _Node:
    if count > limits.aliases_max:
        raise _Refused(event.start_mark, f"more than {limits.aliases_max:,} aliases (`*name`)")
    node = anchors.get(event.anchor)
    if node is None:
        raise _Refused(
            event.start_mark,
            f"the alias `*{event.anchor}` has no anchor `&{event.anchor}` before it",
            "put a text that starts with * in quotes",
        )
    if not node.whole:
        raise _Refused(event.start_mark, f"the alias `*{event.anchor}` holds itself")
    return node


def _attach(stack: list[tuple[_Node, Any]], node: _Node, event: Any) -> None:
    parent, key = stack[-1]
    if parent.children is not None:
        parent.children.append(node)
    elif key is None:
        if type(node.event).__name__ != "ScalarEvent":
            raise _Refused(
                event.start_mark, "a key must be text", "put `{…}` and `[…]` in quotes as a value"
            )
        # The place is this event's, also where the key is an alias.
        stack[-1] = (parent, (node.event.value, event))
    else:
        assert parent.items is not None
        parent.items.append((key, node))
        stack[-1] = (parent, None)


class _Builder:
    """Makes plain values of nodes; expanded aliases count each time."""

    def __init__(self, document: Document, limits: Limits) -> None:
        self._document = document
        self._limits = limits
        self._count = 0

    def build(self, node: _Node) -> None:
        self._document.value = self._value(node, (), 0)

    def _value(self, node: _Node, path: Path, depth: int) -> Any:
        self._count += 1
        if self._count > self._limits.values_max:
            raise _Refused(
                node.event.start_mark,
                f"more than {self._limits.values_max:,} values, aliases expanded",
            )
        if depth > self._limits.depth_max:  # reachable through aliases only
            raise _Refused(
                node.event.start_mark, f"nested more than {self._limits.depth_max} levels deep"
            )
        self._document.values[path] = node.event
        if node.items is not None:
            return self._mapping(node.items, path, depth)
        if node.children is not None:
            return [
                self._value(child, (*path, index), depth + 1)
                for index, child in enumerate(node.children)
            ]
        return _scalar(node.event)

    def _mapping(self, items: list[tuple[Any, _Node]], path: Path, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for (key, event), child in items:
            mark = event.start_mark
            here = (*path, key)
            if key in made:
                first = self._document.keys[here][0]
                raise _Refused(mark, f"the key `{key}` stands twice", f"first on line {first}")
            if key == "<<" and not getattr(event, "style", "*"):
                raise _Refused(mark, "`<<` (merge) is not part of YAML 1.2", "write the keys out")
            self._document.keys[here] = (mark.line + 1, mark.column + 1)
            made[key] = self._value(child, here, depth + 1)
        return made


def _scalar(event: Any) -> Any:
    text: str = event.value
    if event.style or event.tag is not None:
        return text
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if _INT.fullmatch(text):
        return _int(text, event)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise _Refused(event.start_mark, "this number is out of range", "text needs quotes")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise _Refused(
            event.start_mark, f"`{text}` is no number that JSON can carry", "text needs quotes"
        )
    return text


def _int(text: str, event: Any) -> int:
    if len(text) <= 24:  # digits of 2^64 in base 8, and the prefix
        number = int(text, 0) if text.startswith(("0o", "0x")) else int(text)
        if _INT_MIN <= number <= _INT_MAX:
            return number
    raise _Refused(event.start_mark, "this number is out of range", "text needs quotes")
