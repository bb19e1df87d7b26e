"""Graphs → one SVG, one below the other: boxes with name, kind and condition, arrows with outlets.

Text is measured by an estimate; a box is a little wider than it has to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from pipeline.rehearse.graph import Graph, GraphEdge, GraphNode
from pipeline.rehearse.graph_layout import Layout, Point, layout

TEXT_MAX = 44
"""Characters of a line in a box; the whole stands in its title, which browsers show."""
LABEL_MAX = 48
_MARGIN, _TITLE = 24.0, 34.0
_NAME, _SMALL = 8.2, 6.3  # width of a character: 13 px bold, 11 px
_LINE = 16.0
_END = 12.0
_COLOURS = {
    "begin": ("#e8eef7", "#5b7fb5"),
    "decision": ("#fdf3d8", "#c79a2a"),
    "action": ("#eef6ee", "#5f9e63"),
    "integration": ("#e8eef7", "#5b7fb5"),
    "chain": ("#eef6ee", "#5f9e63"),
    "sink": ("#f3ecf7", "#8b66a8"),
    "end": ("#8a8a8a", "#8a8a8a"),
}
_STYLE = """
text { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #222; }
.title { font-size: 17px; font-weight: 600; }
.about, .kind { font-size: 11px; fill: #666; }
.name { font-size: 13px; font-weight: 600; }
.note { font-size: 11px; font-family: ui-monospace, Menlo, Consolas, monospace; }
.label { font-size: 11px; fill: #555; }
.way { fill: none; stroke: #777; stroke-width: 1.3; }
.dotted { stroke-dasharray: 5 4; stroke: #b0584f; }
"""

_TIP = (
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8"'
    ' markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="#777"/></marker></defs>'
)


def svg(graphs: Sequence[Graph]) -> str:
    """Return the picture's text."""
    parts: list[str] = []
    width, top = 0.0, _MARGIN
    for graph in graphs:
        body, size = _graph(graph)
        parts.append(f'<g transform="translate({_MARGIN:g} {top:g})">')
        parts += [*body, "</g>"]
        width = max(width, size[0])
        top += size[1] + 2 * _MARGIN
    width, height = width + 2 * _MARGIN, top
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}"'
        f' viewBox="0 0 {width:.0f} {height:.0f}">'
    )
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    style = f"<style>{_STYLE}</style>"
    return "\n".join([head, style, _TIP, background, *parts, "</svg>", ""])


def _graph(graph: Graph) -> tuple[list[str], Point]:
    sizes: dict[str, Point] = {node.id: _size(node) for node in graph.nodes}
    arrows: list[tuple[str, str]] = []
    for number, edge in enumerate(graph.edges):
        label = f"label {number}"
        if edge.label:
            # A label is a box of its own on the arrow's way, so that nothing lies on it.
            sizes[label] = (len(_short(edge.label, LABEL_MAX)) * _SMALL + 8, _LINE)
            arrows += [(edge.source, label), (label, edge.target)]
        else:
            arrows.append((edge.source, edge.target))
    found = layout(sizes, arrows)
    heading = max(len(graph.name) * 9.6, len(graph.about) * _SMALL)
    body = [
        f'<text class="title" y="14">{escape(graph.name)}</text>',
        f'<text class="about" y="30">{escape(graph.about)}</text>',
        f'<g transform="translate(0 {_TITLE + _LINE:g})">',
        *_ways(graph, found),
        *(_box(node, found.centres[node.id], sizes[node.id]) for node in graph.nodes),
        *(
            _label(edge, found.centres[f"label {number}"])
            for number, edge in enumerate(graph.edges)
            if edge.label
        ),
        "</g>",
    ]
    return body, (max(found.width, heading), found.height + _TITLE + _LINE)


def _size(node: GraphNode) -> Point:
    if node.role == "end":
        return (_END, _END)
    widths = [
        len(_short(node.name, TEXT_MAX)) * _NAME,
        len(node.kind) * _SMALL,
        len(_short(node.note, TEXT_MAX)) * 6.8,
    ]
    lines = 1 + bool(node.kind) + bool(node.note)
    return (max(widths) + 24, lines * _LINE + 14)


def _box(node: GraphNode, centre: Point, size: Point) -> str:
    fill, stroke = _COLOURS[node.role]
    x, y = centre
    if node.role == "end":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_END / 2:g}" fill="{fill}"/>'
    width, height = size
    left, top = x - width / 2, y - height / 2
    radius = height / 2 if node.role == "begin" else 5
    whole = " · ".join(part for part in (node.name, node.kind, node.note) if part)
    rows = [("name", _short(node.name, TEXT_MAX))]
    rows += [(kind, text) for kind, text in (("kind", node.kind),) if text]
    rows += [("note", _short(node.note, TEXT_MAX))] if node.note else []
    texts = "".join(
        f'<text class="{kind}" x="{x:.1f}" y="{top + 19 + number * _LINE:.1f}"'
        f' text-anchor="middle">{escape(text)}</text>'
        for number, (kind, text) in enumerate(rows)
    )
    return (
        f"<g><title>{escape(whole)}</title>"
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"'
        f' rx="{radius:g}" fill="{fill}" stroke="{stroke}"/>{texts}</g>'
    )


def _label(edge: GraphEdge, centre: Point) -> str:
    x, y = centre
    shown = _short(edge.label, LABEL_MAX)
    width = len(shown) * _SMALL + 6
    return (
        f"<g><title>{escape(edge.label)}</title>"
        f'<rect x="{x - width / 2:.1f}" y="{y - 8:.1f}" width="{width:.1f}" height="16"'
        f' fill="#fff"/><text class="label" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">'
        f"{escape(shown)}</text></g>"
    )


def _ways(graph: Graph, found: Layout) -> Iterator[str]:
    ways = iter(found.ways)
    for edge in graph.edges:
        classes = "way dotted" if edge.dotted else "way"
        tip = ' marker-end="url(#tip)"'
        if edge.label:
            first, second = next(ways), next(ways)
            yield f'<path class="{classes}" d="{_path(first)}"/>'
            yield f'<path class="{classes}" d="{_path(second)}"{tip}/>'
        else:
            yield f'<path class="{classes}" d="{_path(next(ways))}"{tip}/>'


def _path(way: Sequence[Point]) -> str:
    """Return a smooth line that leaves and enters each point straight up or down."""
    if not way:
        return ""
    (x, y), *rest = way
    path = f"M{x:.1f} {y:.1f}"
    for to_x, to_y in rest:
        half = (to_y - y) / 2
        path += f"C{x:.1f} {y + half:.1f} {to_x:.1f} {to_y - half:.1f} {to_x:.1f} {to_y:.1f}"
        x, y = to_x, to_y
    return path


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
