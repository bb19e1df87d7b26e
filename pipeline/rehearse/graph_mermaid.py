"""Graphs → one Mermaid flowchart, a subgraph each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pipeline.rehearse.graph import Graph, GraphEdge, GraphNode

TEXT_MAX = 80
"""Characters of a label."""
_PLAIN = re.compile(r"[^A-Za-z0-9 _.,:/+-]")
_SHAPES = {
    "begin": ("([", "])"),
    "decision": ("{{", "}}"),
    "action": ("[", "]"),
    "end": ("((", "))"),
    "integration": ("[/", "/]"),
    "chain": ("[[", "]]"),
    "sink": ("[(", ")]"),
}


def mermaid(graphs: Sequence[Graph]) -> str:
    """Return the flowchart's text."""
    lines = ["flowchart TD"]
    for number, graph in enumerate(graphs):
        lines += [f"  {line}" for line in _subgraph(number, graph)]
    return "\n".join([*lines, ""])


def _subgraph(number: int, graph: Graph) -> Iterator[str]:
    ids = {node.id: f"g{number}_{place}" for place, node in enumerate(graph.nodes)}
    yield f'subgraph g{number} ["{_text(graph.name)}"]'
    for node in graph.nodes:
        before, after = _SHAPES[node.role]
        yield f'  {ids[node.id]}{before}"{_label(node)}"{after}'
    for edge in graph.edges:
        yield f"  {ids[edge.source]} {_arrow(edge)} {ids[edge.target]}"
    yield "end"


def _label(node: GraphNode) -> str:
    parts = [part for part in (node.name, node.kind, node.note) if part]
    return "<br/>".join(_text(part) for part in parts) or " "


def _arrow(edge: GraphEdge) -> str:
    label = f'|"{_text(edge.label)}"|' if edge.label else ""
    return f"{'-.->' if edge.dotted else '-->'}{label}"


def _text(text: str) -> str:
    """Return a text with whatever Mermaid might read as its own as entity codes."""
    short = text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"
    return _PLAIN.sub(lambda found: f"#{ord(found[0])};", short)
