"""A rulebook → graphs: one of how integrations, chains and sinks hang together, one of each chain.

A graph is a value: nodes with what they do, edges with the outlets that they are. Drawings of it
are `graph_mermaid` and `graph_svg`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from pipeline.errors import UsageError
from pipeline.expression import Expression
from pipeline.rehearse.outlets import links_of
from pipeline.route.chain import ChainConfig, On, target_of
from pipeline.route.node import FAILURE, Link, Node
from pipeline.rulebook.book import Integration, Rulebook
from pipeline.rulebook.catalogue import suggest

Role = Literal["begin", "decision", "action", "end", "integration", "chain", "sink"]
OVERVIEW = "overview"
_DOWNLINKS = ("send_downlink", "call_device")


class GraphNode(msgspec.Struct, frozen=True):
    """`kind` is a rule node's verb; `note` what it says of itself: a condition, a sink."""

    id: str
    name: str
    role: Role
    kind: str = ""
    note: str = ""


class GraphEdge(msgspec.Struct, frozen=True):
    """`label` is the outlet, or the condition under which it is taken; empty where there is but
    one. `dotted`: what fails, or comes back, goes there.
    """

    source: str
    target: str
    label: str = ""
    dotted: bool = False


class Graph(msgspec.Struct, frozen=True):
    """Nodes in the order in which they were written. Ids are unique within the graph."""

    name: str
    about: str
    nodes: list[GraphNode]
    edges: list[GraphEdge]


def graphs_of(book: Rulebook, chains: Sequence[str] = ()) -> list[Graph]:
    """Return the overview and all chains; or the chains that are named, in their order.

    UsageError: there is no such chain.
    """
    if not chains:
        every = sorted(book.chains)
        return [_overview(book), *(_chain(book.chains[name].config) for name in every)]
    for name in chains:
        if name not in book.chains:
            hint = suggest(name, book.chains) or f"there are {', '.join(book.chains) or 'none'}"
            raise UsageError(f"{book.folder} has no chain `{name}`: {hint}", code="no_chain")
    return [_chain(book.chains[name].config) for name in chains]


def _chain(config: ChainConfig) -> Graph:
    nodes = [GraphNode("begin", _entry(config.on), "begin")]
    edges = [GraphEdge("begin", "n0")]
    places = {node.name: f"n{number}" for number, node in enumerate(config.nodes)}
    for number, node in enumerate(config.nodes):
        mine = f"n{number}"
        outlets = {link.outlet for link in links_of(node)} - {FAILURE}
        role: Role = "decision" if len(outlets) > 1 and not node.acts else "action"
        nodes.append(GraphNode(mine, node.name, role, node.verb, _note(node)))
        for label, target, dotted in _ways(config, number, node):
            if target is not None:
                edges.append(GraphEdge(mine, places[target], label, dotted))
            elif label:
                end = f"{mine}-end"
                if nodes[-1].id != end:
                    nodes.append(GraphNode(end, "", "end"))
                edges.append(GraphEdge(mine, end, label, dotted))
    return Graph(config.chain, config.about, nodes, _joined(edges))


def _ways(config: ChainConfig, number: int, node: Node) -> Iterator[tuple[str, str | None, bool]]:
    """Yield label, target (None: the way ends) and whether it is for what fails."""
    links = links_of(node)
    only = sum(link.outlet != FAILURE for link in links) == 1
    for link in links:
        target = target_of(len(config.nodes), number, link.outlet, link.target)
        if isinstance(target, int):
            target = config.nodes[target].name if target >= 0 else ""
        label = "" if only and link.outlet != FAILURE else _label(node, link)
        yield label, target or None, link.outlet == FAILURE


def _label(node: Node, link: Link) -> str:
    """Return the condition of a case, the word of an outlet that is named, or the outlet."""
    if len(link.path) == 1:
        return link.outlet
    value: Any = node
    for step in link.path[:-1]:
        value = (
            getattr(value, step)
            if isinstance(step, str) and hasattr(value, step)
            else (value[step])
        )
    condition = getattr(value, "when", None)
    return condition.source if isinstance(condition, Expression) else str(link.path[-1])


def _joined(edges: Sequence[GraphEdge]) -> list[GraphEdge]:
    """Make one edge of several outlets that lead to the same node."""
    joined: dict[tuple[str, str, bool], list[str]] = {}
    for edge in edges:
        labels = joined.setdefault((edge.source, edge.target, edge.dotted), [])
        if edge.label:
            labels.append(edge.label)
    return [
        GraphEdge(source, target, ", ".join(labels), dotted)
        for (source, target, dotted), labels in joined.items()
    ]


def _entry(on: On | None) -> str:
    if on is None:
        return "run by other chains"
    said = ", ".join(on.messages)
    if on.device_type:
        said += f" of {', '.join(on.device_type)}"
    return f"{said} by {', '.join(on.integration)}" if on.integration else said


def _note(node: Node) -> str:
    value = getattr(node, node.verb, None)
    if isinstance(value, Expression):
        return " ".join(value.source.split())
    if isinstance(value, str):
        return value
    to = getattr(value, "to", None)
    return f"to {to}" if isinstance(to, str) else ""


def _overview(book: Rulebook) -> Graph:
    nodes = [
        GraphNode(
            f"integration {each.name}",
            each.name,
            "integration",
            each.dialect.name,
            each.converter or "",
        )
        for each in book.integrations.values()
    ]
    edges: list[GraphEdge] = []
    answered: dict[str, Integration] = {}
    for name, entry in sorted(book.chains.items()):
        config: ChainConfig = entry.config
        nodes.append(GraphNode(f"chain {name}", name, "chain", "chain", _entry(config.on)))
        sources = [each for each in book.integrations.values() if _may_bring(each, config.on)]
        edges += [GraphEdge(f"integration {each.name}", f"chain {name}") for each in sources]
        edges += [GraphEdge(f"chain {name}", f"chain {call}", "runs") for call in config.calls()]
        for node in config.nodes:
            to = getattr(getattr(node, node.verb, None), "to", None)
            if isinstance(to, str) and to in book.sinks:
                edges.append(GraphEdge(f"chain {name}", f"sink {to}"))
            if node.verb in _DOWNLINKS:
                for each in sources:
                    edges.append(GraphEdge(f"chain {name}", f"downlinks {each.name}", dotted=True))
                    answered[each.name] = each
    nodes += [
        GraphNode(f"sink {name}", name, "sink", entry.transport)
        for name, entry in sorted(book.sinks.items())
    ]
    # Downlinks go back to integrations; drawn once more, so that the picture has one direction.
    nodes += [
        GraphNode(f"downlinks {name}", name, "integration", "downlinks")
        for name in sorted(answered)
    ]
    return Graph(OVERVIEW, f"the rules of {book.tenant}", nodes, list(dict.fromkeys(edges)))


def _may_bring(integration: Integration, on: On | None) -> bool:
    """Return whether messages of an integration may enter; its devices' types may be unknown."""
    if on is None:
        return False
    if on.integration:
        return integration.name in on.integration
    known = integration.device_type
    return not on.device_type or not known or known in on.device_type
