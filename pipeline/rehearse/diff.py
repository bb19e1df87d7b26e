"""Two outcomes of the same messages → what the new rules would have done differently.

In: an `Outcome` of the old and of the new rulebook. Out: a `Comparison`: of each kind how many are
the same, changed, gone and new, and examples of those that are not the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from pipeline.rehearse.effects import Effect
from pipeline.rehearse.outcome import Outcome
from pipeline.rehearse.step_changes import leaves

EXAMPLES = 5
"""Of each kind, unless told otherwise."""


class Changed(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that differs. `message` is the id of the message that it came of, empty for what
    is compared at the end; `what` names it. `before` or `after` left out: there is none. `fields`:
    what differs inside, as path → [before, after].
    """

    message: str
    what: str
    before: Any = None
    after: Any = None
    fields: dict[str, list[Any]] = {}


class Kind(msgspec.Struct, frozen=True):
    """One kind of what comes of messages: how many there are on both sides, and examples."""

    kind: str
    same: int
    changed: int
    gone: int
    new: int
    examples: list[Changed]

    @property
    def differs(self) -> bool:
        """Whether the new rules do anything else here."""
        return bool(self.changed or self.gone or self.new)


class Comparison(msgspec.Struct, frozen=True):
    """All kinds, in the order in which people look at them."""

    kinds: list[Kind]

    @property
    def differs(self) -> bool:
        """Whether the new rules do anything else."""
        return any(kind.differs for kind in self.kinds)


_NONE: Any = object()
"""There is nothing on this side: not the same as null."""


class _Pair(NamedTuple):
    message: str
    what: str
    before: Any
    after: Any


def compare(old: Outcome, new: Outcome, *, examples: int = EXAMPLES) -> Comparison:
    """Return what differs; of each kind the first `examples` in the order of the messages.

    Downlinks, deliveries and dead letters of one message are paired by device and destination (a
    dead letter also by its chain), in their order.
    """
    before, after = old.effects, new.effects
    return Comparison(
        [
            _kind("downlinks", _paired(before.downlinks, after.downlinks), examples),
            _kind("deliveries", _paired(before.deliveries, after.deliveries), examples),
            _kind("attributes", _named(old.attributes, new.attributes), examples),
            _kind("alarms", _named(old.alarms, new.alarms), examples),
            _kind("answers", _of_messages(old.answers, new.answers), examples),
            _kind("dead letters", _paired(before.dead_letters, after.dead_letters), examples),
        ]
    )


def _kind(name: str, pairs: Iterable[_Pair], examples: int) -> Kind:
    same = changed = gone = new = 0
    shown: list[Changed] = []
    for pair in pairs:
        if pair.before is _NONE:
            new += 1
        elif pair.after is _NONE:
            gone += 1
        elif next(leaves(pair.before, pair.after), None) is None:
            same += 1
            continue
        else:
            changed += 1
        if len(shown) < examples:
            shown.append(_shown(pair))
    return Kind(name, same, changed, gone, new, shown)


def _shown(pair: _Pair) -> Changed:
    if pair.before is _NONE:
        return Changed(pair.message, pair.what, after=pair.after)
    if pair.after is _NONE:
        return Changed(pair.message, pair.what, before=pair.before)
    fields = {path or "value": [was, now] for path, was, now in leaves(pair.before, pair.after)}
    return Changed(pair.message, pair.what, pair.before, pair.after, fields)


def _paired(old: Sequence[Effect], new: Sequence[Effect]) -> Iterator[_Pair]:
    left: dict[tuple[str, ...], list[Effect]] = {}
    for effect in new:
        left.setdefault(_place(effect), []).append(effect)
    for waiting in left.values():
        waiting.reverse()
    for effect in old:
        others = left.get(_place(effect))
        other = others.pop().shown if others else _NONE
        yield _Pair(effect.trace, _what(effect), effect.shown, other)
    rest = {id(effect) for waiting in left.values() for effect in waiting}
    for effect in new:
        if id(effect) in rest:
            yield _Pair(effect.trace, _what(effect), _NONE, effect.shown)


def _place(effect: Effect) -> tuple[str, ...]:
    shown = effect.shown
    detail = shown.get("detail", {}) if isinstance(shown, dict) else {}
    chain = detail.get("chain", "") if isinstance(detail, dict) else ""
    return (effect.trace, effect.device, effect.to, str(chain))


def _what(effect: Effect) -> str:
    return f"{effect.device} → {effect.to}"


def _named(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[_Pair]:
    for name in [*old, *(name for name in new if name not in old)]:
        yield _Pair("", name, old.get(name, _NONE), new.get(name, _NONE))


def _of_messages(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[_Pair]:
    for message in [*old, *(message for message in new if message not in old)]:
        yield _Pair(message, "answer", old.get(message, _NONE), new.get(message, _NONE))
