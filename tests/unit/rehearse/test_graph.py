"""Pictures of rules: what is in them, and that they are what Mermaid and browsers can draw."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from pipeline.errors import UsageError
from pipeline.rehearse.graph import Graph, GraphEdge, GraphNode, graphs_of
from pipeline.rehearse.graph_layout import BOX_GAP, layout
from pipeline.rehearse.graph_mermaid import mermaid
from pipeline.rehearse.graph_svg import svg

SVG = "{http://www.w3.org/2000/svg}"


def ways(graph: Graph) -> list[tuple[str, str, str]]:
    names = {node.id: node.name or node.role for node in graph.nodes}
    return [(names[edge.source], edge.label, names[edge.target]) for edge in graph.edges]


def test_chain(rules: Any) -> None:
    """Nodes in their order with what they say, outlets as labels, cases by their conditions."""
    (graph,) = graphs_of(rules.book(), ["cool"])

    assert [(node.name, node.kind, node.note) for node in graph.nodes if node.role != "end"] == [
        ("uplink, attributes_updated of sensor, meter", "", ""),
        ("which", "switch", ""),
        ("keep", "send", "to out"),
        ("warm", "filter", "telemetry.temperature > 20"),
        ("remember", "set_attributes", ""),
        ("tell", "send_downlink", ""),
        ("note", "log", ""),
    ]
    assert ways(graph) == [
        ("uplink, attributes_updated of sensor, meter", "", "which"),
        ("which", 'message.type == "attributes_updated"', "tell"),
        ("which", "otherwise", "keep"),
        ("keep", "", "warm"),
        ("warm", "then", "remember"),
        ("warm", "otherwise", "end"),
        ("tell", "", "note"),
    ]


def test_failures_and_cases_to_one_node(rules: Any) -> None:
    """What fails is dotted; several outlets to one node are one arrow with all their labels."""
    rules.write(
        "chains/cool.yaml",
        """
        chain: cool
        on: {messages: uplink}
        nodes:
          - name: which
            switch:
              - {when: telemetry.a > 1, to: keep}
              - {when: telemetry.b > 1, to: keep}
            otherwise: keep
            on_failure: keep
          - name: keep
            send: {to: out}
        """,
    )
    (graph,) = graphs_of(rules.book(), ["cool"])

    assert [(edge.label, edge.dotted) for edge in graph.edges[1:]] == [
        ("telemetry.a > 1, telemetry.b > 1, otherwise", False),
        ("failure", True),
    ]


def test_overview(rules: Any) -> None:
    """Integrations that may bring a chain its messages, its sinks, and where downlinks go."""
    graph = graphs_of(rules.book())[0]

    assert {(a, b) for a, _, b in ways(graph) if b == "cool"} == {
        ("lora", "cool"),
        ("stack", "cool"),
        ("fox", "cool"),
        ("web", "cool"),
    }
    assert ("cool", "", "out") in ways(graph)
    back = {edge.target for edge in graph.edges if edge.dotted}
    assert back == {"downlinks lora", "downlinks stack", "downlinks fox", "downlinks web"}


def test_no_such_chain(rules: Any) -> None:
    """A slip in a name is said, with what was meant."""
    with pytest.raises(UsageError, match=r"no chain `cold`.*cool"):
        graphs_of(rules.book(), ["cold"])


ODD = 'x "]--> y; <b>|#&` end\n{{'


def test_mermaid_reads_no_text_as_its_own() -> None:
    """Each line is a node, an arrow or a subgraph, whatever texts hold: they are entity codes."""
    odd = Graph(
        ODD,
        ODD,
        [GraphNode("a", ODD, "decision", "filter", ODD), GraphNode("b", "", "end")],
        [GraphEdge("a", "b", ODD), GraphEdge("b", "a", dotted=True)],
    )
    text = r'"(?:[A-Za-z0-9 _.,:/+-]|#\d+;|<br/>)+"'
    line = re.compile(
        rf"flowchart TD|  subgraph g0 \[{text}\]|  end"
        rf"|    g0_0\{{\{{{text}\}}\}}|    g0_1\(\({text}\)\)"
        rf"|    g0_0 -->\|{text}\| g0_1|    g0_1 -\.-> g0_0"
    )

    assert [each for each in mermaid([odd]).splitlines() if not line.fullmatch(each)] == []


def test_svg_is_whole(rules: Any) -> None:
    """The picture is XML with a box a node and a way an arrow, all inside of it."""
    graphs = graphs_of(rules.book())
    root = ET.fromstring(svg([*graphs, Graph(ODD.strip(), ODD, [], [])]))
    titles = [each.text for each in root.iter(f"{SVG}title")]

    assert "warm · filter · telemetry.temperature > 20" in titles
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for box in root.iter(f"{SVG}rect"):
        if box.attrib["width"] != "100%":
            assert 0 <= float(box.attrib["x"]) <= width - float(box.attrib["width"])
            assert float(box.attrib["y"]) <= height
    arrows = [each for each in root.iter(f"{SVG}path") if "marker-end" in each.attrib]
    assert len(arrows) == sum(len(graph.edges) for graph in graphs)
    assert all(each.attrib["d"] for each in arrows)


def test_layout_keeps_apart_and_points_down() -> None:
    """Boxes of a layer do not touch, arrows lead down, long ones go past the boxes between."""
    sizes = {name: (60.0 + 10 * number, 30.0) for number, name in enumerate("abcdefgh")}
    arrows = [(a, b) for a, b in zip("aaabbcdefa", "bcdeffgghh", strict=True)]
    found = layout(sizes, arrows)

    by_layer: dict[float, list[str]] = {}
    for box, (_, y) in found.centres.items():
        by_layer.setdefault(y, []).append(box)
    for layer in by_layer.values():
        layer.sort(key=lambda box: found.centres[box][0])
        for one, other in pairwise(layer):
            apart = found.centres[other][0] - found.centres[one][0]
            assert apart >= (sizes[one][0] + sizes[other][0]) / 2 + BOX_GAP - 0.001
    for way in found.ways:
        assert all(one[1] < other[1] for one, other in pairwise(way))
    assert layout(sizes, arrows) == found


def test_layout_of_circles() -> None:
    """Of a circle one arrow points up; one to the box itself has no way; nothing is no error."""
    found = layout({"a": (10, 10), "b": (10, 10)}, [("a", "b"), ("b", "a"), ("a", "a")])

    assert found.ways[0] == found.ways[1][::-1]
    assert found.ways[2] == []
    assert layout({}, []).height == 0
