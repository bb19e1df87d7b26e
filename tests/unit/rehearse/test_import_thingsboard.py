"""Rule chains as ThingsBoard exports them, turned into ours: what they become, and what is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.rehearse.thingsboard.importing import Imported, import_chains
from pipeline.rehearse.thingsboard.language import condition, pattern
from pipeline.rehearse.thingsboard.weave import CARRY
from pipeline.route.node import nodes
from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.reader import read_document
from pipeline.wiring import load_rules

DETAILS = """var details = {};
if (metadata.prevAlarmDetails) {
  details = JSON.parse(metadata.prevAlarmDetails);
}
return details;"""
Ways = list[tuple[int, int, str]]


def node(kind: str, name: str = "", **config: Any) -> dict[str, Any]:
    """A node as it is exported, positions and all."""
    return {
        "additionalInfo": {"layoutX": 300, "layoutY": 150},
        "type": f"org.thingsboard.rule.engine.{kind}",
        "name": name or kind.rpartition(".")[2],
        "configurationVersion": 0,
        "configuration": config,
    }


def script(kind: str, name: str, source: str, language: str = "TBEL") -> dict[str, Any]:
    return node(kind, name, scriptLang=language, jsScript=source, tbelScript=source)


def export(
    made: list[dict[str, Any]], ways: Ways, name: str = "Cold rooms", first: int = 0
) -> bytes:
    connections = [{"fromIndex": a, "toIndex": b, "type": how} for a, b, how in ways]
    return json.dumps(
        {
            "ruleChain": {"name": name, "type": "CORE", "root": False, "firstRuleNodeId": None},
            "metadata": {
                "firstNodeIndex": first,
                "nodes": made,
                "connections": connections,
                "ruleChainConnections": None,
            },
        }
    ).encode()


def imported(*exports: bytes) -> Imported:
    files = {f"{number}.json": raw for number, raw in enumerate(exports)}
    return import_chains(files, lambda verb: nodes()[verb].acts)


def checked(result: Imported, folder: Path) -> Rulebook:
    """The rulebook of what was imported: `check` finds nothing in it."""
    for file, text in result.files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (book,) = load_rules([folder], None, {}).values()
    assert book.warnings == ()
    return book


def chain(result: Imported, name: str = "cold-rooms") -> dict[str, Any]:
    document, faults = read_document("x.yaml", result.files[f"chains/{name}.yaml"].encode())
    assert document is not None, faults
    return {each.pop("name"): each for each in document.value["nodes"]}


ALARMS = export(
    [
        node("filter.TbMsgTypeSwitchNode", "Message Type Switch", version=0),
        node("telemetry.TbMsgTimeseriesNode", "Save Timeseries", defaultTTL=0),
        node("telemetry.TbMsgAttributesNode", "Save Client Attributes", scope="CLIENT_SCOPE"),
        script("filter.TbJsFilterNode", "Too warm?", "return msg.temperature > 7;"),
        node(
            "action.TbCreateAlarmNode",
            "Create alarm",
            alarmType="Too warm",
            severity="MAJOR",
            scriptLang="TBEL",
            alarmDetailsBuildTbel=DETAILS,
        ),
        node("action.TbClearAlarmNode", "Clear alarm", alarmType="Too warm"),
        node(
            "rest.TbRestApiCallNode",
            "Tell quality",
            restEndpointUrlPattern="https://quality.example/alarms/${deviceName}",
            requestMethod="POST",
            headers={"X-Key": "secret"},
        ),
        script("action.TbLogNode", "Log Other", "return '\\nIncoming message:\\n' + 1;"),
    ],
    [
        (0, 7, "Other"),
        (0, 1, "Post telemetry"),
        (0, 3, "Post telemetry"),
        (0, 2, "Post attributes"),
        (3, 4, "True"),
        (3, 5, "False"),
        (4, 6, "Created"),
        (5, 6, "Cleared"),
        (4, 7, "Failure"),
    ],
)


def test_alarms(tmp_path: Path) -> None:
    """The usual chain: time series, a threshold, an alarm raised and cleared, told elsewhere."""
    result = imported(ALARMS)
    book = checked(result, tmp_path)

    assert chain(result) == {
        "Message Type Switch": {
            "match_type": {"uplink": "Save Timeseries"},
            "otherwise": "Log Other",
        },
        "Save Timeseries": {"send": {"to": "timeseries"}},
        "Too warm?": {
            "filter": "has(telemetry.temperature) && telemetry.temperature > 7",
            "otherwise": "Clear alarm",
        },
        "Create alarm": {
            "raise_alarm": {"type": "Too warm", "severity": "major"},
            "created": "Tell quality",
            "then": "stop",
            "on_failure": "Log Other",
        },
        "Tell quality": {
            "send": {"to": "quality-example", "body": "${telemetry}"},
            "then": "stop",
        },
        "Clear alarm": {"clear_alarm": {"type": "Too warm"}, "then": "Tell quality"},
        "Log Other": {
            "log": {"message": "Log Other: ${telemetry} ${metadata}"},
            "then": "stop",
        },
    }
    assert set(book.sinks) == {"timeseries", "quality-example"}
    assert book.sinks["quality-example"].config.url == "https://quality.example/alarms/{device}"
    assert [(each.node, each.why.split(":")[0]) for each in result.lost] == [
        ("Tell quality", "headers and credentials were not taken over")
    ]
    assert "secret" not in "".join(result.files.values())


def test_several_ways_from_one_node(tmp_path: Path) -> None:
    """Of several nodes that get the same message, those that go on are chains of their own."""
    result = imported(
        export(
            [
                script("transform.TbTransformMsgNode", "Shape", "return {msg: msg};"),
                script("filter.TbJsFilterNode", "Warm", "return msg.t > 1;"),
                node("telemetry.TbMsgTimeseriesNode", "Save"),
                script("filter.TbJsFilterNode", "Wet", "return msg.h > 1;"),
                node("action.TbCreateAlarmNode", "Warm alarm", alarmType="a", severity="MINOR"),
                node("action.TbCreateAlarmNode", "Wet alarm", alarmType="b", severity="MINOR"),
            ],
            [
                (0, 1, "Success"),
                (0, 2, "Success"),
                (0, 3, "Success"),
                (1, 4, "True"),
                (3, 5, "True"),
            ],
        )
    )
    checked(result, tmp_path)

    assert list(chain(result)) == ["Shape", "Save", "Warm", "Wet", "Wet alarm"]
    assert chain(result)["Warm"] == {"chain": "cold-rooms-warm"}
    assert list(chain(result, "cold-rooms-warm")) == ["Warm", "Warm alarm"]


def test_scripts_stay_scripts(tmp_path: Path) -> None:
    """What is more than a plain condition runs here as it is; what it expects is given to it."""
    source = "var x = msg.a + 1;\nreturn metadata.deviceName == 'a' && x > metadata.ts;"
    result = imported(
        export(
            [
                script("filter.TbJsFilterNode", "Judge", source),
                script("filter.TbJsSwitchNode", "Which", "return ['hot', 'wet'];", "JS"),
                node("telemetry.TbMsgTimeseriesNode", "Save"),
                node("action.TbLogNode", "Log", scriptLang="JS", jsScript="return 'x';"),
            ],
            [(0, 1, "True"), (1, 2, "hot"), (1, 3, "wet")],
        )
    )
    checked(result, tmp_path)
    made = chain(result)

    assert made["as in ThingsBoard"]["set"]["fields"] == {
        "metadata.deviceName": "${device.name}",
        "metadata.ts": "${string(int(message.time) * 1000)}",
    }
    assert made["Judge"]["script"]["language"] == "tbel"
    assert made["Judge"]["script"]["source"] == source + "\n"
    assert made["Which"]["script"]["outlets"] == {"hot": "Save", "wet": "Log"}


def test_chains_that_run_each_other(tmp_path: Path) -> None:
    """Exports that belong together are joined by their names, and so are their outputs."""
    outer = export(
        [
            node("flow.TbRuleChainInputNode", "Judge it", ruleChainId="0f0e"),
            node("telemetry.TbMsgTimeseriesNode", "Save"),
        ],
        [(0, 1, "hot")],
        name="Outer",
    )
    inner = export(
        [
            script("filter.TbJsFilterNode", "Hot?", "return msg.t > 1;"),
            node("flow.TbRuleChainOutputNode", "hot"),
        ],
        [(0, 1, "True")],
        name="Judge it",
    )
    result = imported(outer, inner)
    checked(result, tmp_path)

    assert chain(result, "outer")["Judge it"] == {
        "chain": "judge-it",
        "outputs": {"hot": "Save"},
        "then": "stop",
    }
    assert "\non:" not in result.files["chains/judge-it.yaml"]
    assert result.lost == ()


def test_a_chain_that_is_not_given() -> None:
    """What leads into a chain whose export is missing is said, and the rest is there."""
    result = imported(
        export(
            [
                node("telemetry.TbMsgTimeseriesNode", "Save"),
                node("flow.TbRuleChainInputNode", "Elsewhere", ruleChainId="0f0e"),
            ],
            [(0, 1, "Success")],
        )
    )

    assert list(chain(result)) == ["Save"]
    assert [(each.node, "give its export" in each.why) for each in result.lost] == [
        ("Elsewhere", True)
    ]


def test_a_circle_is_cut(tmp_path: Path) -> None:
    """Nodes that lead back to each other cannot be here; where the circle was cut is said."""
    result = imported(
        export(
            [
                script("transform.TbTransformMsgNode", "One", "return {msg: msg};"),
                node("action.TbMsgDelayNode", "Two", periodInSeconds=5),
                node("telemetry.TbMsgTimeseriesNode", "Save"),
            ],
            [(0, 1, "Success"), (1, 0, "Success"), (1, 2, "Success")],
        )
    )
    checked(result, tmp_path)

    assert ("One", "a way leads back to it; circles are left out") in [
        (each.node, each.why) for each in result.lost
    ]


NODES: list[tuple[dict[str, Any], list[str], list[dict[str, Any]]]] = [
    (
        node("metadata.TbGetAttributesNode", fetchTo="METADATA", serverAttributeNames=["limit"],
             latestTsKeyNames=["t"], tellFailureIfAbsent=False),
        ["Success"],
        [
            {"set": {"fields": {"metadata.ss_limit":
                "${has(attributes.server.limit) ? attributes.server.limit : null}"}}},
            {"enrich": {"into": "metadata.latest", "last": ["telemetry.t"]}},
            {"rename": {"metadata.latest.t": "metadata.t"}},
        ],
    ),
    (
        node("metadata.CalculateDeltaNode", inputValueKey="pulse", outputValueKey="delta",
             addPeriodBetweenMsgs=True, periodValueKey="ms"),
        ["Success"],
        [
            {"delta": {"of": "telemetry.pulse", "into": "telemetry.delta",
                       "elapsed_s": "telemetry.ms"}},
            {"set": {"fields": {"telemetry.ms": "${telemetry.ms * 1000}"}}},
        ],
    ),
    (
        node("filter.TbCheckMessageNode", messageNames=["a", "b"], metadataNames=["deviceName"],
             checkAllKeys=True),
        ["True"],
        [{"has_fields": ["telemetry.a", "telemetry.b"]}],
    ),
    (
        node("filter.TbDeviceTypeSwitchNode"),
        ["lamp", "default"],
        [{"switch": [{"when": 'device.type == "lamp"', "to": "End"}], "otherwise": "End"}],
    ),
    (
        node("geo.TbGpsGeofencingActionNode", perimeterType="CIRCLE", centerLatitude=52.0,
             centerLongitude=4.0, range=2, rangeUnit="KILOMETER", latitudeKeyName="lat",
             longitudeKeyName="lon", fetchPerimeterInfoFromMessageMetadata=False),
        ["Entered", "Left"],
        [{"geofence": {"latitude": "telemetry.lat", "longitude": "telemetry.lon",
                       "circle": {"latitude": 52.0, "longitude": 4.0, "radius_m": 2000.0}},
          "entered": "End", "left": "End", "then": "stop"}],
    ),
    (
        node("math.TbMathNode", operation="MULT",
             arguments=[{"type": "MESSAGE_BODY", "key": "t"},
                        {"type": "CONSTANT", "key": "1.8"}],
             result={"type": "MESSAGE_BODY", "key": "f", "resultValuePrecision": 1}),
        ["Success"],
        [{"set": {"fields": {"telemetry.f": "${double(telemetry.t) * double(1.8)}"}}}],
    ),
    (
        node("deduplication.TbMsgDeduplicationNode", interval=60, strategy="LAST"),
        ["Success"],
        [{"throttle": {"per": "60s", "take": "last"}}],
    ),
    (
        node("transform.TbRenameKeysNode", renameIn="DATA", renameKeysMapping={"temp": "t"}),
        ["Success"],
        [{"rename": {"telemetry.temp": "telemetry.t"}}],
    ),
    (
        node("telemetry.TbMsgAttributesNode", scope="SHARED_SCOPE"),
        [],
        [{"set_attributes": {"scope": "shared", "values": "${telemetry}"}}],
    ),
    (
        node("rpc.TbSendRPCRequestNode", timeoutInSeconds=30),
        ["Success"],
        [
            {"call_device": {"payload": {"method": "${telemetry.method}",
                                         "params": "${telemetry.params}"}, "timeout": "30s"}},
            {"map": {"telemetry": "${metadata.reply.telemetry}"}},
        ],
    ),
    (
        node("kafka.TbKafkaNode", "To Kafka", topicPattern="alarms"),
        [],
        [{"send": {"to": "to-kafka", "body": "${telemetry}"}}],
    ),
    (
        node("action.TbCreateRelationNode", direction="FROM", relationType="Contains",
             entityType="DEVICE", entityNamePattern="${ss_room}"),
        [],
        [{"relate": {"relation": "Contains", "to": "${metadata.ss_room}"}}],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("made", "relations", "ours"), NODES, ids=lambda part: str(part)[-40:])
def test_nodes(
    made: dict[str, Any], relations: list[str], ours: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Single nodes become what does the same here, and `check` takes it."""
    end = node("telemetry.TbMsgTimeseriesNode", "End")
    ways: Ways = [(0, 1, relation) for relation in relations]
    result = imported(export([made, end], ways))
    checked(result, tmp_path)

    assert [each for name, each in chain(result).items() if name != "End"] == ours


def test_every_node_is_known() -> None:
    """Each of the classes that ThingsBoard's nodes have is carried over, or said to be lost."""
    listed = (Path(__file__).parent / "thingsboard_nodes.txt").read_text().split()

    assert len(listed) >= 75
    assert sorted(set(listed) - set(CARRY)) == []


@pytest.mark.parametrize("kind", sorted(CARRY))
def test_every_node_comes_to_something(kind: str, tmp_path: Path) -> None:
    """A node of any kind without its configuration is no reason to give up."""
    made = [
        node("telemetry.TbMsgTimeseriesNode", "Save"),
        node(f"x.{kind}", "It"),
        node("telemetry.TbMsgTimeseriesNode", "Save 2"),
    ]
    ways: Ways = [(0, 1, "Success"), (1, 2, "Success"), (1, 2, "True")]

    checked(imported(export(made, ways)), tmp_path)


@pytest.mark.parametrize(
    ("source", "ours"),
    [
        ("return msg.t > 20;", "has(telemetry.t) && telemetry.t > 20"),
        (
            "return msg.t > -5 && msg.h <= 3.5",
            "has(telemetry.t) && telemetry.t > -5 && has(telemetry.h) && telemetry.h <= 3.5",
        ),
        ("// why\nreturn metadata.deviceType === 'lamp';", 'device.type == "lamp"'),
        ("return typeof msg.x !== 'undefined';", "has(telemetry.x)"),
        ("return msg.x.y == null;", "!has(telemetry.x.y)"),
        ("return !(msg.on == true) || msgType == 'POST_TELEMETRY_REQUEST';",
         '!(has(telemetry.on) && telemetry.on == true) || message.type == "uplink"'),
        ("return true;", "true"),
        ("return msg.a > msg.b;", None),
        ("return msg.a != 5;", None),
        ("return metadata.count > 5;", None),
        ("var x = 1; return msg.a > 1;", None),
        ("return msg['a b'] > 1;", None),
        ("return msg.a > 1", "has(telemetry.a) && telemetry.a > 1"),
        ("return msg.a >", None),
        ("", None),
    ],
)  # fmt: skip
def test_conditions(source: str, ours: str | None) -> None:
    """A plain condition becomes an expression that means the same; anything else stays a script."""
    assert condition(source) == ours


def test_patterns() -> None:
    """Patterns take values from where they stand here."""
    assert pattern("${deviceName}: $[a.b] of ${ss_limit}, $[odd key]") == (
        '${device.name}: ${telemetry.a.b} of ${metadata.ss_limit}, ${telemetry["odd key"]}'
    )


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "is no exported rule chain of ThingsBoard"),
        (b"{}", "is no exported rule chain of ThingsBoard"),
        (b'{"ruleChain": {"name": "x"}, "metadata": {"nodes": []}}', "has no first node"),
        (export([node("action.TbLogNode")], [(0, 5, "Success")]), "a node that is not there"),
        (export([node("flow.TbAckNode")], []), "nothing of `Cold rooms` can be carried over"),
    ],
)
def test_what_is_no_export(raw: bytes, said: str) -> None:
    """A file that is something else is refused in a sentence."""
    with pytest.raises(UsageError, match=said):
        imported(raw)


def test_two_of_one_name() -> None:
    """Two chains of one name cannot be told apart by those that run them."""
    with pytest.raises(UsageError, match="another chain is called"):
        imported(ALARMS, ALARMS)
