"""ThingsBoard's nodes that decide where a message goes → ours: filters, switches, flow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.rehearse.thingsboard.export import ExportedNode
from pipeline.rehearse.thingsboard.language import condition, metadata, quoted
from pipeline.rehearse.thingsboard.piece import EITHER, SUCCESS, THEN, Needed, Piece, lost

Carry = Callable[[ExportedNode, Needed, tuple[str, ...]], Piece]
"""A node, what is needed so far, and the relations by which messages leave it → its piece."""

TYPES = {
    "Post telemetry": "uplink",
    "Post attributes": "uplink",
    "Attributes Updated": "attributes_updated",
    "POST_TELEMETRY_REQUEST": "uplink",
    "POST_ATTRIBUTES_REQUEST": "uplink",
    "ATTRIBUTES_UPDATED": "attributes_updated",
}
"""What our types of messages are called there: relations of the switch, and types."""

_INSTEAD = {
    "Activity Event": "`silence` leads to `back`",
    "Inactivity Event": "write a `silence` node",
    "Alarm Created": "take the outlet `created` of `raise_alarm`",
    "Alarm Updated": "take the outlet `updated` of `raise_alarm`",
    "Alarm Severity Updated": "take the outlet `severity_changed` of `raise_alarm`",
    "Alarm Cleared": "take the outlet `then` of `clear_alarm`",
    "RPC Request to Device": "applications ask for downlinks by the API",
}
_EXPECTED = ("deviceName", "deviceType", "ts")


def script_of(
    node: ExportedNode, js: str = "jsScript", tbel: str = "tbelScript"
) -> tuple[str, str]:
    """Return a node's script and its language. Exports from before TBEL have JavaScript only."""
    if node.config.get("scriptLang") == "TBEL":
        return str(node.config.get(tbel) or ""), "tbel"
    return str(node.config.get(js) or ""), "javascript"


def script_node(source: str, language: str, needed: Needed) -> dict[str, Any]:
    """Return a `script` node; what the script expects in the metadata is remembered."""
    needed.metadata.update(key for key in _EXPECTED if f"metadata.{key}" in source)
    if language == "javascript":
        return {"script": source}
    return {"script": {"language": language, "source": source}}


def _filter(node: ExportedNode, needed: Needed, _relations: tuple[str, ...]) -> Piece:
    source, language = script_of(node)
    if not source.strip():
        return Piece([], THEN, ["its script is empty"])
    plain = condition(source)
    made = {"filter": plain} if plain else script_node(source, language, needed)
    return Piece([made], EITHER)


def _switch(node: ExportedNode, needed: Needed, relations: tuple[str, ...]) -> Piece:
    source, language = script_of(node)
    if not source.strip():
        return Piece([], THEN, ["its script is empty"])
    made = script_node(source, language, needed)
    if isinstance(made["script"], str):
        made = {"script": {"source": source}}
    ways = {relation: ("script", "outlets", relation) for relation in relations}
    note = "a text that the script returns and that leads nowhere is a dead letter here"
    return Piece([{**made, "then": "stop"}], ways, [note])


def _type_switch(_node: ExportedNode, _needed: Needed, relations: tuple[str, ...]) -> Piece:
    ways: dict[str, tuple[str, ...]] = {}
    notes = []
    for relation in relations:
        if relation == "Other":
            ways[relation] = ("otherwise",)
        elif relation in TYPES:
            ways[relation] = ("match_type", TYPES[relation])
        else:
            hint = _INSTEAD.get(relation, "there is nothing like it here")
            notes.append(f"no message here is a `{relation}`: {hint}")
    return Piece([{"match_type": {}}], ways, notes)


def _type_filter(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    asked = list(node.config.get("messageTypes") or ())
    ours = sorted({TYPES[each] for each in asked if each in TYPES})
    unknown = [each for each in asked if each not in TYPES]
    notes = [f"no message here is a {', '.join(unknown)}"] if unknown else []
    return Piece([{"filter": f"message.type in {json.dumps(ours)}"}], EITHER, notes)


def _has_fields(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    messages = [f"telemetry.{key}" for key in node.config.get("messageNames") or ()]
    names = [metadata(key) for key in node.config.get("metadataNames") or ()]
    # What is known of the device is always there.
    names = [name for name in names if name.startswith("metadata.")]
    if node.config.get("checkAllKeys", True):
        if not messages + names:
            return Piece()
        return Piece([{"has_fields": messages + names}], EITHER)
    tests = [f"has({place})" for place in messages + names] or ["true"]
    return Piece([{"filter": " || ".join(tests)}], EITHER)


def _by_profile(_node: ExportedNode, _needed: Needed, relations: tuple[str, ...]) -> Piece:
    cases = [each for each in relations if each not in ("default", "Failure")]
    ways: dict[str, tuple[str, ...]] = {
        relation: ("switch", str(number), "to") for number, relation in enumerate(cases)
    }
    made = {"switch": [{"when": f"device.type == {quoted(each)}", "to": ""} for each in cases]}
    ways["default"] = ("otherwise",)
    if not cases:
        return Piece([], {"default": ("then",)})
    return Piece([made], ways, ["types of devices here are what ThingsBoard calls profiles"])


def _by_entity(_node: ExportedNode, _needed: Needed, relations: tuple[str, ...]) -> Piece:
    ways = {"Device": ("then",), "Asset": ("otherwise",)}
    notes = [f"no {each} sends messages here" for each in relations if each not in ways]
    return Piece([{"filter": 'device.kind == "device"'}], ways, notes)


def _is_entity(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    kinds = [str(each).lower() for each in node.config.get("originatorTypes") or ()]
    ours = [each for each in kinds if each in ("device", "asset")]
    return Piece([{"filter": f"device.kind in {json.dumps(ours)}"}], EITHER)


def _alarm_status(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    wanted = list(node.config.get("alarmStatusList") or ())
    tests = []
    for each in wanted:
        active, _, acknowledged = str(each).partition("_")
        seen = "" if acknowledged == "ACK" else "!"
        gone = "" if active == "ACTIVE" else "!"
        tests.append(f"({gone}metadata.alarm.active && {seen}metadata.alarm.acknowledged)")
    test = " || ".join(tests) or "false"
    return Piece([{"filter": f"has(metadata.alarm) && ({test})"}], EITHER)


def _geofence_filter(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    fence, why = fence_of(node.config)
    if fence is None:
        return lost(why)
    return Piece([{"geofence": fence, "unplaced": "stop"}], EITHER)


def fence_of(config: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Return the config of a `geofence`, or None and why there is none."""
    if config.get("fetchPerimeterInfoFromMessageMetadata"):
        return None, "its perimeter comes from the metadata of each message"
    fence: dict[str, Any] = {
        "latitude": f"telemetry.{config.get('latitudeKeyName') or 'latitude'}",
        "longitude": f"telemetry.{config.get('longitudeKeyName') or 'longitude'}",
    }
    if config.get("perimeterType") == "CIRCLE":
        meters = {"METER": 1.0, "KILOMETER": 1000.0, "FOOT": 0.3048, "MILE": 1609.344}
        meters["NAUTICAL_MILE"] = 1852.0
        radius = float(config.get("range") or 0) * meters.get(str(config.get("rangeUnit")), 1.0)
        fence["circle"] = {
            "latitude": config.get("centerLatitude"),
            "longitude": config.get("centerLongitude"),
            "radius_m": radius,
        }
        return fence, ""
    try:
        corners = json.loads(config.get("polygonsDefinition") or "")
        plain = all(len(each) == 2 and all(isinstance(one, int | float) for one in each)
                    for each in corners)  # fmt: skip
    except (ValueError, TypeError):
        return None, "its polygon cannot be read"
    if not plain:
        return None, "several polygons, or one with holes, are more than a `geofence` takes"
    fence["polygon"] = corners
    return fence, ""


def _chain(node: ExportedNode, needed: Needed, relations: tuple[str, ...]) -> Piece:
    asked = str(node.config.get("ruleChainId") or "")
    name = needed.chains.get(node.name) or needed.chains.get(asked)
    if name is None:
        return lost(f"it runs the chain `{node.name}`: give its export, too, under that name")
    made: dict[str, Any] = {"chain": name}
    handed = [each for each in relations if each not in (SUCCESS, "Failure")]
    ways: dict[str, tuple[str, ...]] = {each: ("outputs", each) for each in handed}
    return Piece([made], {**ways, SUCCESS: ("then",)})


def _output(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    return Piece([{"output": node.name[:64]}], {})


def _nothing(why: str) -> Carry:
    def carry(_node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
        return Piece([], THEN, [why] if why else [])

    return carry


CARRY: Mapping[str, Carry] = {
    "TbJsFilterNode": _filter,
    "TbJsSwitchNode": _switch,
    "TbMsgTypeSwitchNode": _type_switch,
    "TbMsgTypeFilterNode": _type_filter,
    "TbCheckMessageNode": _has_fields,
    "TbDeviceTypeSwitchNode": _by_profile,
    "TbAssetTypeSwitchNode": _by_profile,
    "TbOriginatorTypeSwitchNode": _by_entity,
    "TbOriginatorTypeFilterNode": _is_entity,
    "TbCheckAlarmStatusNode": _alarm_status,
    "TbGpsGeofencingFilterNode": _geofence_filter,
    "TbRuleChainInputNode": _chain,
    "TbRuleChainOutputNode": _output,
    "TbAckNode": _nothing(""),
    "TbCheckpointNode": _nothing(""),
    "TbSynchronizationBeginNode": _nothing(""),
    "TbSynchronizationEndNode": _nothing(""),
}
