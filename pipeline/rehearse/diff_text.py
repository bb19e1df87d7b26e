"""A comparison of two rulebooks → lines for a terminal, each with a style."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from pipeline.rehearse.diff import Changed, Comparison, Kind
from pipeline.rehearse.evaluation import short
from pipeline.rehearse.report import printable

Style = Literal["head", "plain", "gone", "new", "faint", "same"]
FIELDS_SHOWN = 8
"""Of one example."""


class Line(NamedTuple):
    """One line; `style` is for its colour."""

    text: str
    style: Style = "plain"


def lines(comparison: Comparison) -> list[Line]:
    """Return each kind with its counts and examples; texts of devices cannot steer a terminal."""
    made: list[Line] = []
    for kind in comparison.kinds:
        made += _kind(kind)
    end = "they differ" if comparison.differs else "no difference"
    made.append(Line(end, "head" if comparison.differs else "same"))
    return [Line(printable(text), style) for text, style in made]


def _kind(kind: Kind) -> Iterator[Line]:
    total = kind.same + kind.changed + kind.gone + kind.new
    if not kind.differs:
        yield Line(f"{kind.kind}: {total:,}, all the same", "faint")
        return
    counted = [
        f"{number:,} {what}"
        for number, what in (
            (kind.same, "the same"),
            (kind.changed, "changed"),
            (kind.gone, "gone"),
            (kind.new, "new"),
        )
        if number
    ]
    yield Line(f"{kind.kind}: {', '.join(counted)}", "head")
    for example in kind.examples:
        yield from _example(example)
    left = kind.changed + kind.gone + kind.new - len(kind.examples)
    if left:
        yield Line(f"  … and {left:,} more", "faint")


def _example(example: Changed) -> Iterator[Line]:
    message = f"  (message {example.message})" if example.message else ""
    yield Line(f"  {example.what}{message}")
    if not example.fields:
        if example.before is not None:
            yield Line(f"    - {short(example.before)}", "gone")
        else:
            yield Line(f"    + {short(example.after)}", "new")
        return
    for path, (before, after) in list(example.fields.items())[:FIELDS_SHOWN]:
        name = "" if path == "value" else f"{path}: "
        if before is not None:
            yield Line(f"    - {name}{short(before)}", "gone")
        if after is not None:
            yield Line(f"    + {name}{short(after)}", "new")
    if len(example.fields) > FIELDS_SHOWN:
        yield Line(f"    … and {len(example.fields) - FIELDS_SHOWN} more fields", "faint")
