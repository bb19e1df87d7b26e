"""Which nodes are which device's: by their ids, or found by browsing with patterns.

In: a Session and what `rulebook.opcua_server` says of nodes. Out: `Found`, each node once, with the
device and field that it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from asyncua import ua

from pipeline.errors import MessageError
from pipeline.integrations.dialect import check_device_name
from pipeline.integrations.document import NAME_LENGTH_MAX
from pipeline.rulebook.connections.opcua_server import (
    Access,
    BrowseConfig,
    Level,
    OpcuaSourceConfig,
    levels_of,
)

from .session import ServerError, Session, asking, in_batches

REFERENCES_MAX = 1_000  # of one node in one answer; the rest is asked for
_CLASSES = int(ua.NodeClass.Object) | int(ua.NodeClass.Variable)
_OBJECTS = ua.NodeId(ua.ObjectIds.ObjectsFolder)
_HIERARCHY = ua.NodeId(ua.ObjectIds.HierarchicalReferences)


class Node(NamedTuple):
    """A variable of the server. `key` is its id as text."""

    id: ua.NodeId
    key: str
    device: str
    field: str
    names: dict[str, str]
    access: Access


@dataclass(slots=True)
class Found:
    """The nodes by key; by device and field those that can be written. `unfit`: how many have no
    proper name; `doubles`: how many are called as another one is.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    written: dict[tuple[str, str], Node] = field(default_factory=dict)
    unfit: int = 0
    doubles: int = 0
    _named: set[tuple[str, str]] = field(default_factory=set)

    def add(self, node: Node) -> None:
        """Take a node, unless it is there already, or its name is another's or cannot be one."""
        if node.key in self.nodes:
            return
        name = (node.device, node.field)
        if not _fits(node):
            self.unfit += 1
        elif name in self._named:
            self.doubles += 1
        else:
            self._named.add(name)
            self.nodes[node.key] = node
            if node.access != "read":
                self.written[name] = node

    def read(self) -> list[Node]:
        """Return the nodes whose values are wanted."""
        return [node for node in self.nodes.values() if node.access != "write"]

    def note(self) -> str:
        """Return what the user should know of them; empty: nothing."""
        said = []
        if self.unfit:
            said.append(f"{self.unfit} nodes are left out: their names cannot be a device's")
        if self.doubles:
            said.append(f"{self.doubles} nodes are left out: another has their device and field")
        return "; ".join(said)


class _Place(NamedTuple):
    """A node on the way down, and how much of the path it has matched."""

    id: ua.NodeId
    position: int
    names: tuple[tuple[str, str], ...]


async def discover(session: Session, config: OpcuaSourceConfig) -> Found:
    """Return all nodes that the config names. ServerError: the server does not answer, has no such
    namespace, or there are more than `nodes_max` or `browsed_max`.
    """
    found = Found()
    for each in config.nodes:
        node_id = session.node_id(each.id)
        found.add(Node(node_id, node_id.to_string(), each.device, each.field, {}, each.access))
    browsed = 0
    for way in config.browse:
        browsed = await _browse(session, config, way, found, browsed)
    return found


async def _browse(
    session: Session, config: OpcuaSourceConfig, way: BrowseConfig, found: Found, browsed: int
) -> int:
    """Walk down level by level, each level's nodes in a few requests."""
    levels = levels_of(way.path)
    below = [_Place(_OBJECTS, 1, ())]
    seen = {below[0]}
    while below:
        following: list[_Place] = []
        for batch in in_batches(below, session.limit("browse")):
            children = await _children(session, [place.id for place in batch])
            browsed += sum(map(len, children))
            if browsed > config.browsed_max:
                raise ServerError(
                    f"more than {config.browsed_max:,} nodes were looked at: narrow the paths, or"
                    " raise `browsed_max`"
                )
            for place, references in zip(batch, children, strict=True):
                for reference in references:
                    following += _step(place, reference, levels, way, found)
        if len(found.nodes) > config.nodes_max:
            raise ServerError(
                f"more than {config.nodes_max:,} nodes match: narrow the paths, or raise"
                " `nodes_max`"
            )
        below = [place for place in dict.fromkeys(following) if place not in seen]
        seen.update(below)
    return browsed


def _step(
    place: _Place,
    reference: ua.ReferenceDescription,
    levels: Sequence[Level],
    way: BrowseConfig,
    found: Found,
) -> Iterator[_Place]:
    """Yield where a child goes on; take it where it ends the path."""
    name = reference.BrowseName.Name or ""
    child = reference.NodeId
    standard = child.NamespaceIndex == 0
    position, names = place.position, place.names
    while True:
        level = levels[position]
        if level.deep:
            if not standard:
                yield _Place(child, position, names)
            position += 1
            continue
        # The server's own nodes (`Server`, …) are meant only where they are called by name.
        if (standard and not level.literal) or not level.pattern.fullmatch(name):
            return
        kept = (*names, (level.name, name)) if level.name else names
        if position + 1 < len(levels):
            yield _Place(child, position + 1, kept)
        elif reference.NodeClass == ua.NodeClass.Variable:
            _take(child, name, dict(kept), way, found)
        return


def _take(
    child: ua.NodeId, name: str, names: dict[str, str], way: BrowseConfig, found: Found
) -> None:
    device, own = way.device_of(names), way.field_of(names, name)
    kept = {key: each for key, each in names.items() if key not in ("device_id", "field")}
    found.add(Node(child, child.to_string(), device, own, kept, way.access))


async def _children(
    session: Session, nodes: Sequence[ua.NodeId]
) -> list[list[ua.ReferenceDescription]]:
    """Return the objects and variables below each node."""
    client = session.client.uaclient
    with asking("the server cannot be browsed"):
        parameters = ua.BrowseParameters()
        parameters.RequestedMaxReferencesPerNode = REFERENCES_MAX
        parameters.NodesToBrowse = [_description(node) for node in nodes]
        results = await client.browse(parameters)
        children = [list(result.References or ()) for result in results]
        more = {at: r.ContinuationPoint for at, r in enumerate(results) if r.ContinuationPoint}
        while more:
            following = ua.BrowseNextParameters()
            following.ContinuationPoints = list(more.values())
            results = await client.browse_next(following)
            still = {}
            for at, result in zip(more, results, strict=True):
                children[at] += result.References or ()
                if result.ContinuationPoint:
                    still[at] = result.ContinuationPoint
            more = still
    return [[each for each in below if _is_local(each)] for below in children]


def _description(node: ua.NodeId) -> ua.BrowseDescription:
    description = ua.BrowseDescription()
    description.NodeId = node
    description.BrowseDirection = ua.BrowseDirection.Forward
    description.ReferenceTypeId = _HIERARCHY
    description.IncludeSubtypes = True
    description.NodeClassMask = _CLASSES
    description.ResultMask = int(ua.BrowseResultMask.All)
    return description


def _is_local(reference: ua.ReferenceDescription) -> bool:
    """Return whether a child is this server's, not another one's."""
    return not getattr(reference.NodeId, "ServerIndex", 0)


def _fits(node: Node) -> bool:
    try:
        check_device_name(node.device)
    except MessageError:
        return False
    return 0 < len(node.field) <= NAME_LENGTH_MAX
