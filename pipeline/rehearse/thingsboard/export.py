"""An exported rule chain's JSON → its nodes and ways, checked.

The format: `{ruleChain: {name, root, …}, metadata: {firstNodeIndex, nodes: [{type, name,
configuration}], connections: [{fromIndex, toIndex, type}], ruleChainConnections}}`
(github.com/thingsboard/thingsboard, RuleChainData.java, RuleChainMetaData.java). A node's type is
the name of a Java class; ways lead between places in the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from pipeline.errors import UsageError

NODES_MAX = 1_000
_Index = Annotated[int, msgspec.Meta(ge=0)]


class _Node(msgspec.Struct):
    type: str
    name: str = ""
    configuration: dict[str, Any] | None = None


class _Connection(msgspec.Struct, rename="camel"):
    from_index: _Index
    to_index: _Index
    type: str = "Success"


class _ChainConnection(msgspec.Struct, rename="camel"):
    from_index: _Index
    type: str = "Success"


class _Metadata(msgspec.Struct, rename="camel"):
    first_node_index: int | None = None
    nodes: list[_Node] = []
    connections: list[_Connection] | None = None
    rule_chain_connections: list[_ChainConnection] | None = None


class _RuleChain(msgspec.Struct):
    name: str
    root: bool = False


class _File(msgspec.Struct, rename="camel"):
    rule_chain: _RuleChain
    metadata: _Metadata


@dataclass(frozen=True, slots=True)
class ExportedNode:
    """A node as it was exported. `kind` is its Java class without the package."""

    kind: str
    name: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Export:
    """A chain as it was exported. `ways`: by node, then by relation, the nodes led to; `elsewhere`:
    nodes with ways straight into other chains, as old versions have them.
    """

    name: str
    root: bool
    first: int
    nodes: tuple[ExportedNode, ...]
    ways: Mapping[int, Mapping[str, tuple[int, ...]]]
    elsewhere: frozenset[int] = frozenset()


def read_export(raw: bytes, file: str) -> Export:
    """Return the chain of a file. UsageError: it is no exported rule chain; says what is wrong."""
    try:
        read = msgspec.json.decode(raw, type=_File, strict=False)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{file} is no exported rule chain of ThingsBoard: {error}."
            " Export one: rule chains → ⋮ → export"
        ) from None
    metadata = read.metadata
    count = len(metadata.nodes)
    if count > NODES_MAX:
        raise UsageError(f"{file} has {count:,} nodes; {NODES_MAX:,} are allowed")
    first = metadata.first_node_index
    if first is None or not 0 <= first < count:
        raise UsageError(f"{file}: the chain `{read.rule_chain.name}` has no first node")
    ways: dict[int, dict[str, list[int]]] = {}
    for each in metadata.connections or ():
        if each.from_index >= count or each.to_index >= count:
            raise UsageError(f"{file}: a connection leads to a node that is not there")
        targets = ways.setdefault(each.from_index, {}).setdefault(each.type, [])
        if each.to_index not in targets:
            targets.append(each.to_index)
    return Export(
        name=read.rule_chain.name,
        root=read.rule_chain.root,
        first=first,
        nodes=tuple(
            ExportedNode(
                node.type.rpartition(".")[2], node.name or node.type, node.configuration or {}
            )
            for node in metadata.nodes
        ),
        ways={
            start: {relation: tuple(ends) for relation, ends in each.items()}
            for start, each in ways.items()
        },
        elsewhere=frozenset(each.from_index for each in metadata.rule_chain_connections or ()),
    )
