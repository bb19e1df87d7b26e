"""Which nodes are found by browsing with patterns."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from asyncua import ua

from pipeline.clients.opcua.nodes import Found, discover
from pipeline.clients.opcua.session import ServerError
from pipeline.rulebook.connections.opcua_server import OpcuaSourceConfig

OBJECTS = ua.NodeId(ua.ObjectIds.ObjectsFolder)
PAGE = 2  # children in one answer


class FakeServer:
    """Answers browses out of a tree of names; `sizes` are those of its requests."""

    def __init__(self, tree: dict[str, Any], *, loop: bool = False) -> None:
        self.children: dict[Any, list[ua.ReferenceDescription]] = {}
        self.sizes: list[int] = []
        self._pages: dict[bytes, list[ua.ReferenceDescription]] = {}
        self._points = 0
        self._grow(OBJECTS, tree, "")
        if loop:
            self.children[ua.NodeId("/a", 2)].append(reference("a", ua.NodeId("/a", 2), False))

    def _grow(self, parent: Any, tree: dict[str, Any], path: str) -> None:
        self.children[parent] = []
        for name, below in tree.items():
            space = 0 if name == "Server" else 2
            node = ua.NodeId(f"{path}/{name}", space)
            self.children[parent].append(reference(name, node, not isinstance(below, dict)))
            self._grow(node, below if isinstance(below, dict) else {}, f"{path}/{name}")

    async def browse(self, parameters: Any) -> list[Any]:
        self.sizes.append(len(parameters.NodesToBrowse))
        return [self._page(self.children.get(each.NodeId, [])) for each in parameters.NodesToBrowse]

    async def browse_next(self, parameters: Any) -> list[Any]:
        return [self._page(self._pages.pop(point)) for point in parameters.ContinuationPoints]

    def _page(self, references: list[Any]) -> Any:
        result = ua.BrowseResult()
        result.References = references[:PAGE]
        if len(references) > PAGE:
            self._points += 1
            result.ContinuationPoint = str(self._points).encode()
            self._pages[result.ContinuationPoint] = references[PAGE:]
        return result


def reference(name: str, node: Any, variable: bool) -> Any:
    made = ua.ReferenceDescription()
    made.NodeId = node
    made.BrowseName = ua.QualifiedName(name, 2)
    made.NodeClass = ua.NodeClass.Variable if variable else ua.NodeClass.Object
    return made


def found(server: FakeServer, *paths: dict[str, Any] | str, **given: Any) -> Found:
    config = OpcuaSourceConfig.model_validate({
        "server": "opc.tcp://h",
        "browse": [{"path": each} if isinstance(each, str) else each for each in paths],
        **given,
    })  # fmt: skip
    session: Any = SimpleNamespace(
        client=SimpleNamespace(uaclient=server),
        limit=lambda what: 3,
        node_id=ua.NodeId.from_string,
    )
    return asyncio.run(discover(session, config))


def named(made: Found) -> list[tuple[str, str]]:
    return sorted((node.device, node.field) for node in made.nodes.values())


TREE = {
    "Server": {"state": {}, "Time": 1},
    "Line1": {"p1": {"T": 1, "n": 1}, "p2": {"T": 1, "deep": {"er": {"T": 1}}}},
    "Line2": {"p3": {"T": 1}},
    "Hall": {"p4": {"T": 1}},
    "T": 1,
}


def test_patterns_find_what_they_say() -> None:
    """Names are taken, globs match, variables end a path; the server's own nodes do not match."""
    made = found(FakeServer(TREE), "Objects/{line:Line*}/{device_id}/{field}")
    assert named(made) == [("p1", "T"), ("p1", "n"), ("p2", "T"), ("p3", "T")]
    assert {node.names["line"] for node in made.nodes.values()} == {"Line1", "Line2"}
    everything = found(FakeServer(TREE), "Objects/{device_id}/*")
    assert named(everything) == []
    own = found(FakeServer(TREE), {"path": "Objects/Server/Time", "device": "plc"})
    assert named(own) == [("plc", "Time")]


def test_any_number_of_levels() -> None:
    """`**` goes as deep as there are levels, none included, and a circle ends."""
    made = found(FakeServer(TREE), {"path": "Objects/**/{p:p*}/**/T", "device": "{p}"})
    assert [each for each in named(made) if each[0] == "p2"] == [("p2", "T")]
    assert made.doubles == 1  # p2 has two of that name
    round_ = FakeServer({"a": {"b": {"T": 1}}}, loop=True)
    assert named(found(round_, {"path": "Objects/**/T", "device": "d"})) == [("d", "T")]


def test_long_answers_are_read_to_their_end() -> None:
    """A server that tells its children page by page, and takes few nodes at once, tells all."""
    tree = {"Line1": {f"p{n}": {f"v{m}": 1 for m in range(7)} for n in range(10)}}
    server = FakeServer(tree)
    assert len(found(server, "Objects/*/{device_id}/{field}").nodes) == 70
    assert max(server.sizes) == 3


def test_limits_are_told() -> None:
    """Too many nodes that match, or that are looked at, are a fault that says what to do."""
    tree = {"Line1": {f"p{n}": {"T": 1} for n in range(30)}}
    path = "Objects/*/{device_id}/{field}"
    with pytest.raises(ServerError, match="`nodes_max`"):
        found(FakeServer(tree), path, nodes_max=10)
    with pytest.raises(ServerError, match="`browsed_max`"):
        found(FakeServer(tree), path, browsed_max=10)


def test_what_is_named_by_id_comes_first() -> None:
    """A node that is named and found is as it is named; `access` says what it is good for."""
    nodes = [{"id": "ns=2;s=/Line1/p1/T", "device": "press", "field": "t", "access": "read"}]
    made = found(FakeServer(TREE), {"path": "Objects/Line1/{device_id}/{field}",
                                    "access": "write"}, nodes=nodes)  # fmt: skip
    assert [(node.device, node.field) for node in made.read()] == [("press", "t")]
    assert sorted(made.written) == [("p1", "n"), ("p2", "T")]


def test_names_that_cannot_be_are_left_out_and_told() -> None:
    """A device of control characters or endless length is no device; the note says how many."""
    made = found(FakeServer({"L": {"a\nb": {"T": 1}, "x" * 300: {"T": 1}, "ok": {"T": 1}}}),
                 "Objects/L/{device_id}/{field}")  # fmt: skip
    assert named(made) == [("ok", "T")]
    assert "2 nodes are left out" in made.note()
