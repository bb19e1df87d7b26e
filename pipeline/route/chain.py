"""A chain as users write it, and compiled for running: names resolved to positions once.

In: `ChainConfig` of each of a tenant's chains. Out: `Rules`, which says which chains take a
message; built once a version of the rulebook.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from pydantic import Field, SerializeAsAny

from pipeline.part import Part
from pipeline.ports import Script
from pipeline.route.fields import Names
from pipeline.route.message import ATTRIBUTES_UPDATED
from pipeline.route.node import FAILURE, STOP, THEN, Node

NODES_MAX = 500
_READABLE_TAG_MAX = 20
_CACHED_MATCHES_MAX = 4_096
_END = -1


class On(Part):
    """Which messages enter a chain. One value or a list; what is left out does not matter."""

    messages: Names = Field(min_length=1, description="Types of messages.")
    device_type: Names = Field(default=(), description="Types of devices.")
    integration: Names = Field(default=(), description="Integrations that messages come by.")

    def takes(self, message_type: str, integration: str, device_type: str) -> bool:
        """Return whether a message enters."""
        return (
            message_type in self.messages
            and (not self.device_type or device_type in self.device_type)
            and (not self.integration or integration in self.integration)
        )


class ChainConfig(Part):
    """`chains/<name>.yaml`. Without `on` only other chains run it."""

    chain: str = Field(min_length=1, max_length=64, description="The chain's name.")
    about: str = Field(default="", description="What it is for, in a line.")
    on: On | None = None
    nodes: tuple[SerializeAsAny[Node], ...] = Field(min_length=1, max_length=NODES_MAX)

    def calls(self) -> frozenset[str]:
        """Return the chains that this one runs."""
        return frozenset(name for node in self.nodes for name in node.calls())

    def hands_back(self) -> frozenset[str]:
        """Return the names by which this chain hands messages back to one that runs it."""
        return frozenset(name for node in self.nodes for name in node.hands_back())

    def scripts(self) -> tuple[tuple[tuple[str | int, ...], Script], ...]:
        """Return the scripts of its nodes, each with the path to it in the chain's document."""
        return tuple(
            (("nodes", number, *path), script)
            for number, node in enumerate(self.nodes)
            for path, script in node.scripts()
        )


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """An outlet of a node in its place; `target` is the next node's position, -1 the end."""

    tenant: str
    chain: str
    node: str
    outlet: str
    target: int


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A node in its place. `failure` None: who runs the chain is to know."""

    chain: str
    name: str
    node: Node
    apply: Callable[[Any], Any]
    edges: Mapping[str, Edge]
    failure: Edge | None
    part: str  # of the device's state


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """A chain ready to run. `tag` is what it adds to the ids of what it causes."""

    name: str
    tag: str
    on: On | None
    steps: tuple[Step, ...]
    positions: Mapping[str, int]
    reads: frozenset[str]


Watch = Callable[[str, Node], Node]
"""Given a chain's name and a node, returns the node to run in its place: one that also tells what
it does. Only rehearsals watch; a worker runs the nodes as they are, so that it costs nothing.
"""


def compile_chain(config: ChainConfig, tenant: str = "", watch: Watch | None = None) -> Chain:
    """Return the chain of a config that `parse_chain` found no fault in."""
    nodes = config.nodes
    if watch is not None:
        nodes = tuple(watch(config.chain, node) for node in nodes)
    positions = {node.name: position for position, node in enumerate(config.nodes)}
    return Chain(
        name=config.chain,
        tag=_tag(config.chain),
        on=config.on,
        steps=tuple(
            _step(config, position, node, positions, tenant) for position, node in enumerate(nodes)
        ),
        positions=positions,
        reads=frozenset().union(*(node.reads() for node in config.nodes)),
    )


def target_of(config_nodes: int, position: int, outlet: str, target: str | None) -> str | int:
    """Return where an outlet leads: a name, or the position of the next node, -1 at the end."""
    if target == STOP or (target is None and outlet != THEN):
        return _END
    if target is None:
        return position + 1 if position + 1 < config_nodes else _END
    return target


def _step(
    config: ChainConfig, position: int, node: Node, positions: Mapping[str, int], tenant: str
) -> Step:
    edges = {}
    for outlet, target, _ in node.links():
        leads_to = target_of(len(config.nodes), position, outlet, target)
        index = leads_to if isinstance(leads_to, int) else positions[leads_to]
        edges[outlet] = Edge(tenant, config.chain, node.name, outlet, index)
    return Step(
        chain=config.chain,
        name=node.name,
        node=node,
        apply=node.apply,
        edges=edges,
        failure=edges.get(FAILURE),
        part=f"node/{config.chain}/{node.name}",
    )


def _tag(name: str) -> str:
    """Return a chain's name, shortened where ids would have no room for it."""
    if len(name) <= _READABLE_TAG_MAX:
        return name
    return f"{name[:11]}~{blake2b(name.encode(), digest_size=4).hexdigest()}"


class Rules:
    """A tenant's chains, and which of them take a message, at a cost that does not grow with
    those that do not.
    """

    def __init__(
        self,
        tenant: str,
        version: str,
        configs: Iterable[ChainConfig],
        watch: Watch | None = None,
    ) -> None:
        self.tenant = tenant
        self.version = version
        configs = tuple(configs)
        compiled = (compile_chain(config, tenant, watch) for config in configs)
        self.chains = {chain.name: chain for chain in sorted(compiled, key=lambda c: c.name)}
        self._calls = {
            name: frozenset(call for step in chain.steps for call in step.node.calls())
            for name, chain in self.chains.items()
        }
        self.scripted = any(config.scripts() for config in configs)
        self._matches: dict[tuple[str, str, str], tuple[Chain, ...]] = {}
        self._needs: dict[tuple[str, str], bool] = {}

    def matching(self, message_type: str, integration: str, device_type: str) -> tuple[Chain, ...]:
        """Return the chains that a message enters, in order of name."""
        asked = (message_type, integration, device_type)
        found = self._matches.get(asked)
        if found is None:
            found = tuple(
                chain
                for chain in self.chains.values()
                if chain.on is not None and chain.on.takes(*asked)
            )
            _remember(self._matches, asked, found)
        return found

    def needs_last(self, integration: str, device_type: str) -> bool:
        """Return whether a chain that takes this device's changes of attributes speaks of its
        telemetry, so that its last values have to be kept.
        """
        asked = (integration, device_type)
        found = self._needs.get(asked)
        if found is None:
            found = any(
                "telemetry" in self._reads(chain.name, set())
                for chain in self.matching(ATTRIBUTES_UPDATED, integration, device_type)
            )
            _remember(self._needs, asked, found)
        return found

    def _reads(self, name: str, seen: set[str]) -> frozenset[str]:
        chain = self.chains.get(name)
        if chain is None or name in seen:
            return frozenset()
        seen.add(name)
        return chain.reads.union(*(self._reads(call, seen) for call in sorted(self._calls[name])))


def _remember(cache: dict[Any, Any], key: Any, value: Any) -> None:
    """Keep an answer; device types come from devices, so that the cache must have an end."""
    if len(cache) >= _CACHED_MATCHES_MAX:
        cache.clear()
    cache[key] = value
