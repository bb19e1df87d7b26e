"""Which nodes and outlets of chains tests reached, and which they did not.

In: the nodes of all chains, watched while tests run. Out: a `ChainCoverage` a chain. An outlet is
each way that a message may leave a node by, `otherwise` included where nobody takes it; `failure`
counts where the chain says where it leads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from pipeline.errors import MessageError
from pipeline.rehearse.outlets import links_of
from pipeline.rehearse.report import Line
from pipeline.rehearse.watched import Apply, watched
from pipeline.route.node import FAILURE, Node, Outcome
from pipeline.route.visit import Visit
from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.folder import read_folder
from pipeline.rulebook.reader import read_document


@dataclass(frozen=True, slots=True)
class Unreached:
    """A node that no test reached (`outlet` empty), or an outlet of one that was."""

    node: str
    outlet: str
    line: int


@dataclass(frozen=True, slots=True)
class ChainCoverage:
    """Of one chain: how many nodes and outlets it has, and which of them were not reached.
    `file` is the chain's, relative to the rules folder. Outlets of an unreached node count as
    unreached, and are not listed.
    """

    chain: str
    file: str
    nodes: int
    nodes_reached: int
    outlets: int
    outlets_reached: int
    unreached: tuple[Unreached, ...] = ()

    @property
    def percent(self) -> float:
        """Return how much was reached, nodes and outlets alike."""
        return percent((self,))


class Coverage:
    """Counts what is reached; `watch` is for `Route`."""

    def __init__(self) -> None:
        self._reached: set[tuple[str, str, str]] = set()

    def watch(self, chain: str, node: Node) -> Node:
        """Return a copy of a node that counts where its messages go."""
        return watched(node, lambda apply, _by: self._counted(chain, node, apply))

    def of(self, book: Rulebook, only: Collection[str] = ()) -> list[ChainCoverage]:
        """Return the coverage of all chains, or of those named by `only`, in order of name."""
        folder = read_folder(book.folder)
        return [
            self._of(entry.name, entry.config.nodes, entry.file, folder.contents[entry.file])
            for entry in sorted(book.chains.values(), key=lambda entry: entry.name)
            if not only or entry.name in only
        ]

    def _of(self, chain: str, nodes: Sequence[Node], file: str, text: bytes) -> ChainCoverage:
        document, _ = read_document(file, text)
        nodes_reached = outlets = outlets_reached = 0
        unreached = []
        for number, node in enumerate(nodes):
            line = document.place(("nodes", number))[0] if document is not None else 0
            reached = (chain, node.name, "") in self._reached
            nodes_reached += reached
            if not reached:
                unreached.append(Unreached(node.name, "", line))
            for outlet in dict.fromkeys(link.outlet for link in links_of(node)):
                outlets += 1
                if (chain, node.name, outlet) in self._reached:
                    outlets_reached += 1
                elif reached:
                    unreached.append(Unreached(node.name, outlet, line))
        return ChainCoverage(
            chain, file, len(nodes), nodes_reached, outlets, outlets_reached, tuple(unreached)
        )

    def _counted(self, chain: str, node: Node, apply: Apply) -> Apply:
        reached, name = self._reached, node.name

        def counted(visit: Visit) -> Outcome:
            reached.add((chain, name, ""))
            try:
                outcome = apply(visit)
            except MessageError:
                reached.add((chain, name, FAILURE))
                raise
            if isinstance(outcome, str):
                reached.add((chain, name, outcome))
            else:
                reached.update((chain, name, outlet) for outlet, _ in outcome)
            return outcome

        return counted


def percent(found: Iterable[ChainCoverage]) -> float:
    """Return how much of these was reached, 100 where there is nothing to reach. Rounded down to
    a tenth, so that 100 is all.
    """
    found = tuple(found)
    there = sum(each.nodes + each.outlets for each in found)
    reached = sum(each.nodes_reached + each.outlets_reached for each in found)
    return 100.0 if not there else reached * 1_000 // there / 10


def summary(found: Sequence[ChainCoverage]) -> str:
    """Return all in one line: `coverage 91.3 %: 40 of 42 nodes, 60 of 68 outlets`."""
    nodes, outlets = sum(each.nodes for each in found), sum(each.outlets for each in found)
    reached = sum(each.nodes_reached for each in found)
    taken = sum(each.outlets_reached for each in found)
    return (
        f"coverage {percent(found):g} %: {reached} of {nodes} nodes, {taken} of {outlets} outlets"
    )


def lines(found: Sequence[ChainCoverage]) -> list[Line]:
    """Return each chain's share, and what of it no test reached, with its place."""
    made = []
    for each in found:
        made.append(Line(f"{each.percent:5.1f} %  {each.chain}", "sum"))
        for missed in each.unreached:
            outlet = f" → {missed.outlet}" if missed.outlet else "  (never reached)"
            made.append(Line(f"         {each.file}:{missed.line} {missed.node}{outlet}", "detail"))
    return made


def as_json(found: Sequence[ChainCoverage]) -> dict[str, object]:
    """Return all as one plain value; `kind` tells it from the results of tests."""
    return {
        "kind": "coverage",
        "percent": percent(found),
        "chains": [
            {
                "chain": each.chain,
                "file": each.file,
                "percent": each.percent,
                "nodes": each.nodes,
                "nodes_reached": each.nodes_reached,
                "outlets": each.outlets,
                "outlets_reached": each.outlets_reached,
                "unreached": [
                    {"node": missed.node, "outlet": missed.outlet, "line": missed.line}
                    for missed in each.unreached
                ],
            }
            for each in found
        ],
    }
