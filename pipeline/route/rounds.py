"""Takes the turns of a batch, those that need a script's result in rounds: see `scripts.py`.

In: a batch's turns in their order. Out: all of them taken, those of one device in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.model.record import Record
from pipeline.ports import DueTimer, ScriptCall
from pipeline.route.scripts import Deferred
from pipeline.route.turn import Work

Doing = tuple[Callable[[Any], None], Record | DueTimer, list[Any] | None]
"""A turn: what takes it, its item, and the results of its scripts, where it was begun before."""


def take_all(work: Work, doings: Sequence[Doing]) -> None:
    """Take all turns. RetryableError: the script engine does not start; nothing may be kept."""
    while doings:
        doings = _round(work, doings)


def _round(work: Work, doings: Sequence[Doing]) -> list[Doing]:
    """Return the turns that are still to be taken, in their order: those that needed a script's
    result, which they have now, and what came later of these devices.
    """
    scripts, later = work.scripts, []
    held: set[str] = set()
    wanted: list[tuple[list[Any], ScriptCall]] = []
    scripts.alone = len(doings) == 1
    for doing in doings:
        do, item, results = doing
        if held and item.key in held:
            later.append(doing)
            continue
        if results is not None:
            scripts.again(results)
        try:
            do(item)
        except Deferred as deferred:
            work.take_back()
            held.add(item.key)
            wanted.append((scripts.results(), deferred.call))
            later.append((do, item, scripts.results()))
    if wanted:
        made = scripts.run([call for _, call in wanted])
        for (known, _), result in zip(wanted, made, strict=True):
            known.append(result)
    return later
