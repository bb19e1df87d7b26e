"""Boxes and arrows between them → where each box stands, and the way of each arrow: in layers, from
top to bottom, as Sugiyama, Tagawa and Toda drew them (1981).

Own code, since what there is in Python is either no longer looked after, needs a compiled library,
or has a licence that does not fit. Deterministic: the same graph always looks the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

LAYER_GAP = 30.0
BOX_GAP = 26.0
_SWEEPS = 12
_ALIGNMENTS = 16
_STRAIGHT = 6.0  # how much more than boxes the bends of long arrows want to stand in a line

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """Centres of boxes; the points of each arrow in order of the arrows given, from its begin to
    its end; the size of all.
    """

    centres: Mapping[str, Point]
    ways: Sequence[Sequence[Point]]
    width: float
    height: float


@dataclass(slots=True)
class _Drawing:
    """Boxes (bends of long arrows among them, of no size) with their layers and neighbours."""

    sizes: dict[str, Point]
    layers: list[list[str]] = field(default_factory=list)
    above: dict[str, list[str]] = field(default_factory=dict)
    below: dict[str, list[str]] = field(default_factory=dict)
    x: dict[str, float] = field(default_factory=dict)


def layout(sizes: Mapping[str, Point], arrows: Sequence[tuple[str, str]]) -> Layout:
    """Return where to draw boxes of these sizes (width, height). Of arrows in a circle one points
    upwards; one from a box to itself has no way.
    """
    turned = _turned(list(sizes), arrows)
    drawing = _Drawing(dict(sizes))
    chains = _layered(drawing, arrows, turned)
    _order(drawing)
    _align(drawing)
    tops = _tops(drawing)
    centres = {
        box: (drawing.x[box], top + max(drawing.sizes[each][1] for each in layer) / 2)
        for layer, top in zip(drawing.layers, tops, strict=True)
        for box in layer
    }
    ways = [
        _way(chain, centres, drawing.sizes, upwards=number in turned)
        for number, chain in enumerate(chains)
    ]
    width = max((centres[box][0] + size[0] / 2 for box, size in sizes.items()), default=0.0)
    bends = max((x for way in ways for x, _ in way), default=0.0)
    height = tops[-1] + max(drawing.sizes[box][1] for box in drawing.layers[-1]) if tops else 0.0
    return Layout({box: centres[box] for box in sizes}, ways, max(width, bends), height)


def _turned(boxes: Sequence[str], arrows: Sequence[tuple[str, str]]) -> set[int]:
    """Return the arrows that have to be turned round so that there is no circle."""
    leaving: dict[str, list[int]] = {box: [] for box in boxes}
    for number, (source, _) in enumerate(arrows):
        leaving[source].append(number)
    turned: set[int] = set()
    done: set[str] = set()
    for root in boxes:
        path, todo = {root}, [(root, iter(leaving[root]))]
        while todo and root not in done:
            box, rest = todo[-1]
            following = next(rest, None)
            if following is None:
                todo.pop()
                path.discard(box)
                done.add(box)
                continue
            number, target = following, arrows[following][1]
            if target in path:
                turned.add(number)
            elif target not in done:
                path.add(target)
                todo.append((target, iter(leaving[target])))
    return turned


def _layered(
    drawing: _Drawing, arrows: Sequence[tuple[str, str]], turned: set[int]
) -> list[list[str]]:
    """Give each box its layer; return each arrow as the boxes and bends on its way down."""
    down = [
        (target, source) if number in turned else (source, target)
        for number, (source, target) in enumerate(arrows)
    ]
    rank = _ranks(list(drawing.sizes), [pair for pair in down if pair[0] != pair[1]])
    drawing.layers = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for box, layer in rank.items():
        drawing.layers[layer].append(box)
    chains = []
    for number, (upper, lower) in enumerate(down):
        chain = [upper]
        for layer in range(rank[upper] + 1, rank[lower]):
            bend = f"\0{number}/{layer}"
            drawing.sizes[bend] = (0.0, 0.0)
            drawing.layers[layer].append(bend)
            chain.append(bend)
        chain.append(lower)
        chains.append(chain)
        if upper != lower:
            for one, other in pairwise(chain):
                drawing.below.setdefault(one, []).append(other)
                drawing.above.setdefault(other, []).append(one)
    return chains


def _ranks(boxes: Sequence[str], down: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return each box's layer: below all that lead to it."""
    waiting = dict.fromkeys(boxes, 0)
    below: dict[str, list[str]] = {box: [] for box in boxes}
    for upper, lower in down:
        below[upper].append(lower)
        waiting[lower] += 1
    rank = dict.fromkeys(boxes, 0)
    ready = [box for box in boxes if not waiting[box]]
    for box in ready:  # it grows meanwhile
        for lower in below[box]:
            rank[lower] = max(rank[lower], rank[box] + 1)
            waiting[lower] -= 1
            if not waiting[lower]:
                ready.append(lower)
    return rank


def _order(drawing: _Drawing) -> None:
    """Order each layer so that few arrows cross: by the middle of the neighbours, down and up."""
    best, fewest = [list(layer) for layer in drawing.layers], _crossings(drawing)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        downwards = sweep % 2 == 0
        layers = drawing.layers if downwards else drawing.layers[::-1]
        neighbours = drawing.above if downwards else drawing.below
        for fixed, moving in pairwise(layers):
            place = {box: number for number, box in enumerate(fixed)}
            here = {box: number for number, box in enumerate(moving)}

            def middle(
                box: str, place: dict[str, int] = place, here: dict[str, int] = here
            ) -> tuple[float, int]:
                beside = [place[each] for each in neighbours.get(box, ()) if each in place]  # noqa: B023 - called at once
                mean = sum(beside) / len(beside) if beside else float(here[box])
                return mean, here[box]

            moving.sort(key=middle)
        crossings = _crossings(drawing)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in drawing.layers], crossings
    drawing.layers = best


def _crossings(drawing: _Drawing) -> int:
    count = 0
    for upper, lower in pairwise(drawing.layers):
        place = {box: number for number, box in enumerate(lower)}
        ends = [
            place[target]
            for box in upper
            for target in sorted(drawing.below.get(box, ()), key=place.__getitem__)
        ]
        count += sum(one > other for number, one in enumerate(ends) for other in ends[number + 1 :])
    return count


def _align(drawing: _Drawing) -> None:
    """Give each box its x: near the middle of its neighbours, in its layer's order, apart."""
    x = drawing.x
    for layer in drawing.layers:
        at = 0.0
        for box in layer:
            width = drawing.sizes[box][0]
            x[box] = at + width / 2
            at += width + BOX_GAP
    for number in range(_ALIGNMENTS):
        downwards = number % 2 == 0
        for layer in drawing.layers if downwards else drawing.layers[::-1]:
            _place(drawing, layer, drawing.above if downwards else drawing.below)
    left = min((x[box] - size[0] / 2 for box, size in drawing.sizes.items()), default=0.0)
    for box in x:
        x[box] -= left


def _place(drawing: _Drawing, layer: Sequence[str], towards: Mapping[str, Sequence[str]]) -> None:
    """Move a layer's boxes as near to where they want to be as their order and sizes allow: the
    least squares of that (pool adjacent violators).
    """
    x, sizes = drawing.x, drawing.sizes
    offset = 0.0
    blocks: list[list[float]] = []  # sum of weighted wishes, weight, boxes
    offsets = []
    for number, box in enumerate(layer):
        if number:
            offset += (sizes[layer[number - 1]][0] + sizes[box][0]) / 2 + BOX_GAP
        offsets.append(offset)
        beside = towards.get(box, ())
        wish = sum(x[each] for each in beside) / len(beside) if beside else x[box]
        is_bend = sizes[box][0] == 0 and any(sizes[each][0] == 0 for each in beside)
        weight = _STRAIGHT if is_bend else 1.0 if beside else 0.1
        blocks.append([(wish - offset) * weight, weight, 1])
        while len(blocks) > 1 and (blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]):
            total, more, count = blocks.pop()
            blocks[-1] = [blocks[-1][0] + total, blocks[-1][1] + more, blocks[-1][2] + count]
    boxes = iter(zip(layer, offsets, strict=True))
    for total, weight, count in blocks:
        for _ in range(int(count)):
            box, shift = next(boxes)
            x[box] = total / weight + shift


def _tops(drawing: _Drawing) -> list[float]:
    tops, top = [], 0.0
    for layer in drawing.layers:
        tops.append(top)
        top += max(drawing.sizes[box][1] for box in layer) + LAYER_GAP
    return tops


def _way(
    chain: Sequence[str],
    centres: Mapping[str, Point],
    sizes: Mapping[str, Point],
    *,
    upwards: bool,
) -> list[Point]:
    if chain[0] == chain[-1]:
        return []
    (first_x, first_y), (last_x, last_y) = centres[chain[0]], centres[chain[-1]]
    way = [
        (first_x, first_y + sizes[chain[0]][1] / 2),
        *(centres[bend] for bend in chain[1:-1]),
        (last_x, last_y - sizes[chain[-1]][1] / 2),
    ]
    return way[::-1] if upwards else way
