"""ThingsBoard's nodes that change the message or add to it → ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.rehearse.thingsboard.carry_ways import Carry, script_node, script_of
from pipeline.rehearse.thingsboard.export import ExportedNode
from pipeline.rehearse.thingsboard.language import pattern, selected
from pipeline.rehearse.thingsboard.piece import SUCCESS, THEN, Needed, Piece, lost

_PREFIXES = {
    "clientAttributeNames": ("client", "cs_"),
    "sharedAttributeNames": ("shared", "shared_"),
    "serverAttributeNames": ("server", "ss_"),
}
_FIELDS = {"name": "name", "type": "type", "label": "name"}
_SCOPES = {"CLIENT_SCOPE": "client", "SHARED_SCOPE": "shared", "SERVER_SCOPE": "server"}
_SIGNS = {"ADD": "+", "SUB": "-", "MULT": "*", "DIV": "/"}


def _root(config: Mapping[str, Any], key: str) -> str:
    return "metadata" if str(config.get(key, "")).upper() == "METADATA" else "telemetry"


def scope_of(config: Mapping[str, Any], key: str = "scope") -> str:
    """Return our name for a scope of attributes."""
    return _SCOPES.get(str(config.get(key)), "server")


def _script(node: ExportedNode, needed: Needed, _relations: tuple[str, ...]) -> Piece:
    source, language = script_of(node)
    if not source.strip():
        return lost("its script is empty")
    return Piece([script_node(source, language, needed)])


def _delta(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    config = node.config
    made: dict[str, Any] = {
        "of": f"telemetry.{config.get('inputValueKey')}",
        "into": f"telemetry.{config.get('outputValueKey')}",
    }
    nodes: list[dict[str, Any]] = [{"delta": made}]
    notes = ["the first message of a device has no difference; there it was 0"]
    if config.get("addPeriodBetweenMsgs"):
        period = f"telemetry.{config.get('periodValueKey')}"
        made["elapsed_s"] = period
        nodes.append({"set": {"fields": {period: f"${{{period} * 1000}}"}}})
    if config.get("round") is not None:
        notes.append("it was rounded there")
    if config.get("tellFailureIfDeltaIsNegative"):
        notes.append("a negative difference was a failure there: write a `filter` after it")
    return Piece(nodes, {SUCCESS: ("then",), "Other": ("otherwise",)}, notes)


def _attributes(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    """Attributes as metadata or telemetry, under ThingsBoard's names for them (`ss_target`)."""
    config = node.config
    into = _root(config, "fetchTo")
    fields: dict[str, str] = {}
    for key, (scope, prefix) in _PREFIXES.items():
        for name in config.get(key) or ():
            place = selected(f"attributes.{scope}", (str(name),))
            fields[f"{into}.{prefix}{name}"] = _perhaps(place, config.get("tellFailureIfAbsent"))
    latest = [str(name) for name in config.get("latestTsKeyNames") or ()]
    nodes: list[dict[str, Any]] = [{"set": {"fields": fields}}] if fields else []
    notes = []
    if latest:
        last = [f"telemetry.{name}" for name in latest]
        nodes.append({"enrich": {"into": f"{into}.latest", "last": last}})
        moved = {f"{into}.latest.{name}": f"{into}.{name}" for name in latest}
        nodes.append({"rename": moved})
        notes.append("the last values are those of messages that came to this node")
    if any("." in place.split(".", 1)[1] for place in fields):
        notes.append("a name with a dot stands for a place inside of another here")
    return Piece(nodes, THEN, notes)


def _perhaps(place: str, must: Any) -> str:
    if must or place.endswith("]"):
        return f"${{{place}}}"
    return f"${{has({place}) ? {place} : null}}"


def _originator_fields(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    mapping = node.config.get("dataMapping") or node.config.get("fieldsMapping") or {}
    into = _root(node.config, "fetchTo") if "fetchTo" in node.config else "metadata"
    known = {
        f"{into}.{target}": f"${{device.{_FIELDS[source]}}}"
        for source, target in mapping.items()
        if source in _FIELDS
    }
    odd = sorted(source for source in mapping if source not in _FIELDS)
    notes = [f"nothing is known here of a device's {', '.join(odd)}"] if odd else []
    return Piece([{"set": {"fields": known}}] if known else [], THEN, notes)


def _copy(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    # From version 1 on the other side is implied; before, `fromMetadata` says which it is.
    start = _root(node.config, "copyFrom")
    if node.config.get("fromMetadata") is True:
        start = "metadata"
    end = "telemetry" if start == "metadata" else "metadata"
    keys, notes = _plain_keys(node.config.get("keys"))
    return Piece(
        [{"copy": {f"{start}.{key}": f"{end}.{key}" for key in keys}}] if keys else [], THEN, notes
    )


def _delete(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    start = _root(node.config, "deleteFrom")
    if node.config.get("fromMetadata") is True:
        start = "metadata"
    keys, notes = _plain_keys(node.config.get("keys"))
    return Piece([{"delete": [f"{start}.{key}" for key in keys]}] if keys else [], THEN, notes)


def _plain_keys(keys: Any) -> tuple[list[str], list[str]]:
    """Return the keys that are no patterns of several, and what there is to say of the others."""
    all_keys = [str(key) for key in keys or ()]
    plain = [key for key in all_keys if re.fullmatch(r"[^\s.\\*+?()\[\]{}|^$]+", key)]
    odd = [key for key in all_keys if key not in plain]
    return plain, [f"patterns of keys have no like here: {', '.join(odd)}"] if odd else []


def _rename(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    root = _root(node.config, "renameIn")
    if node.config.get("fromMetadata") is True:
        root = "metadata"
    mapping = node.config.get("renameKeysMapping") or {}
    pairs = {f"{root}.{old}": f"{root}.{new}" for old, new in mapping.items()}
    return Piece([{"rename": pairs}] if pairs else [])


def _split(_node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    return lost("the whole message is never a list here: `split` takes a list inside of it")


def _json_path(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    path = str(node.config.get("jsonPath") or "$")
    if path == "$":
        return Piece()
    if re.fullmatch(r"\$(\.[A-Za-z_]\w*)+", path) is None:
        return lost(f"the path {path} is more than names: write a `script`")
    return Piece([{"map": {"telemetry": f"${{telemetry{path[1:]}}}"}}])


def _deduplicate(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    span = f"{int(node.config.get('interval') or 60)}s"
    strategy = node.config.get("strategy")
    if strategy == "ALL":
        most = min(max(int(node.config.get("maxPendingMsgs") or 100), 2), 100)
        made = {"collect": {"into": "telemetry.messages", "messages": most, "within": span}}
        return Piece([made], THEN, ["the list stands at `telemetry.messages`, values with times"])
    take = "last" if strategy == "LAST" else "first"
    made = {"throttle": {"per": span, "take": take}}
    late = "there the first one left at the end of the time, here it leaves at once"
    return Piece([made], THEN, [late] if take == "first" else [])


def _math(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    config = node.config
    sign = _SIGNS.get(str(config.get("operation")))
    result = config.get("result") or {}
    parts = [_argument(each) for each in config.get("arguments") or ()]
    if sign is None or len(parts) != 2 or None in parts:
        return lost(f"the function {config.get('operation')} of it has no like: write a `script`")
    text = f"${{double({parts[0]}) {sign} double({parts[1]})}}"
    notes = []
    if "resultValuePrecision" in result:
        notes.append("the result was rounded there")
    key = str(result.get("key"))
    nodes: list[dict[str, Any]] = []
    kind = result.get("type")
    if kind == "ATTRIBUTE":
        scope = scope_of(result, "attributeScope")
        nodes.append({"set_attributes": {"scope": scope, "values": {key: text}}})
    into = {"MESSAGE_METADATA": "metadata"}.get(str(kind), "telemetry")
    fields = {f"{into}.{key}": text} if kind != "ATTRIBUTE" or result.get("addToBody") else {}
    if result.get("addToMetadata"):
        fields[f"metadata.{key}"] = text
    if fields:
        nodes.insert(0, {"set": {"fields": fields}})
    return Piece(nodes, THEN, notes)


def _argument(argument: Mapping[str, Any]) -> str | None:
    key, kind = str(argument.get("key")), argument.get("type")
    if kind == "CONSTANT":
        return key if re.fullmatch(r"-?\d+(\.\d+)?", key) else None
    if kind == "ATTRIBUTE":
        place = f"attributes.{scope_of(argument, 'attributeScope')}.{key}"
    elif kind in ("MESSAGE_BODY", "MESSAGE_METADATA"):
        place = f"{'telemetry' if kind == 'MESSAGE_BODY' else 'metadata'}.{key}"
    else:  # time series: of the past
        return None
    if re.fullmatch(r"[A-Za-z_][\w.]*", place) is None:
        return None
    default = argument.get("defaultValue")
    return place if default is None else f"(has({place}) ? {place} : {float(default)})"


def _to_email(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    names = {"to": "toTemplate", "subject": "subjectTemplate", "body": "bodyTemplate"}
    mail = {key: pattern(str(node.config.get(name) or "")) for key, name in names.items()}
    return Piece([{"set": {"fields": {f"metadata.mail.{key}": mail[key] for key in mail}}}])


CARRY: Mapping[str, Carry] = {
    "TbTransformMsgNode": _script,
    "TbJsTransformNode": _script,
    "CalculateDeltaNode": _delta,
    "TbGetAttributesNode": _attributes,
    "TbGetOriginatorFieldsNode": _originator_fields,
    "TbCopyKeysNode": _copy,
    "TbDeleteKeysNode": _delete,
    "TbRenameKeysNode": _rename,
    "TbSplitArrayMsgNode": _split,
    "TbJsonPathNode": _json_path,
    "TbMsgDeduplicationNode": _deduplicate,
    "TbMathNode": _math,
    "TbMsgToEmailNode": _to_email,
}
