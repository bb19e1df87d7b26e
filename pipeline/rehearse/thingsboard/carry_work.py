"""ThingsBoard's nodes that keep, tell or do something → ours; and those that have no like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pipeline.rehearse.thingsboard.carry_shape import scope_of
from pipeline.rehearse.thingsboard.carry_ways import Carry, fence_of, script_of
from pipeline.rehearse.thingsboard.export import ExportedNode
from pipeline.rehearse.thingsboard.language import pattern
from pipeline.rehearse.thingsboard.piece import SUCCESS, THEN, Needed, Piece, lost, slug

_SEVERITIES = ("critical", "major", "minor", "warning", "indeterminate")
_UNITS = {"MILLISECONDS": "ms", "SECONDS": "s", "MINUTES": "m", "HOURS": "h", "DAYS": "d"}


def _time_series(_node: ExportedNode, needed: Needed, _relations: tuple[str, ...]) -> Piece:
    about = "What ThingsBoard kept as time series: every message, as JSON lines."
    config = {"transport": "file", "path": "data/timeseries.jsonl"}
    return Piece([{"send": {"to": needed.sink("timeseries", about, config)}}])


def _save_attributes(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    scope = scope_of(node.config)
    if scope == "client":
        return Piece()  # what a device says of itself is kept by the converter's `attributes`
    made = {"set_attributes": {"scope": scope, "values": "${telemetry}"}}
    return Piece([made])


def _delete_attributes(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    names = [str(key) for key in node.config.get("keys") or ()]
    if not names:
        return Piece()
    return Piece([{"delete_attributes": {"scope": scope_of(node.config), "names": names}}])


def _create_alarm(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    config = node.config
    notes = []
    severity = str(config.get("severity") or "CRITICAL")
    if config.get("useMessageAlarmData"):
        return lost("the alarm is said by the message itself")
    if severity.lower() in _SEVERITIES:
        severity = severity.lower()
    else:  # a pattern, whose value is in capitals there
        notes.append(f"the severity {severity} must come in small letters")
        severity = pattern(severity)
    made: dict[str, Any] = {
        "type": pattern(str(config.get("alarmType") or "General Alarm")),
        "severity": severity,
    }
    source, _ = script_of(node, "alarmDetailsBuildJs", "alarmDetailsBuildTbel")
    if _says_details(source):
        made["details"] = "${telemetry}"
        notes.append("its details were built by a script; here they are the telemetry")
    if config.get("propagate") or config.get("propagateToOwner"):
        notes.append("alarms are of one device; nothing propagates")
    # What has no outlet of its own leaves by `then`: an alarm that goes on, or is worse now.
    ways = {"Created": ("created",), "Updated": ("then",), "False": ("otherwise",)}
    return Piece([{"raise_alarm": made, "created": "stop"}], ways, notes)


def _says_details(source: str) -> bool:
    """Return whether a script does more than the one that stands there by default."""
    lines = [line.strip() for line in source.splitlines()]
    said = [line for line in lines if line and not line.startswith("//")]
    usual = ("var details", "if (metadata.prevAlarmDetails)", "details = JSON.parse", "}", "return",
             "metadata.remove", "//", "delete metadata")  # fmt: skip
    return any(not line.startswith(usual) for line in said)


def _clear_alarm(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    made = {"type": pattern(str(node.config.get("alarmType") or "General Alarm"))}
    return Piece([{"clear_alarm": made}], {"Cleared": ("then",), "False": ("otherwise",)})


def _log(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    source, _ = script_of(node)
    notes = [] if "Incoming message" in source else ["what it said was built by a script"]
    text = f"{node.name}: ${{telemetry}} ${{metadata}}"
    return Piece([{"log": {"message": text}}], THEN, notes)


def _delay(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    if node.config.get("useMetadataPeriodInSecondsPatterns"):
        return lost("how long it waits comes from the message")
    return Piece([{"delay": f"{int(node.config.get('periodInSeconds') or 60)}s"}])


def _geofence_events(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    fence, why = fence_of(node.config)
    if fence is None:
        return lost(why)
    ways = {
        "Entered": ("entered",),
        "Left": ("left",),
        "Inside": ("then",),
        "Outside": ("otherwise",),
    }
    notes = []
    inside = int(node.config.get("minInsideDuration") or 0)
    if inside:
        unit = _UNITS.get(str(node.config.get("minInsideDurationTimeUnit")), "m")
        if not node.config.get("reportPresenceStatusOnEachMessage"):
            fence["dwell"] = f"{inside}{unit}"
            ways["Inside"] = ("dwelled",)
        else:
            notes.append(f"there a device was inside after {inside}{unit} only: see `dwell`")
    return Piece([{"geofence": fence, "unplaced": "stop", "then": "stop"}], ways, notes)


def _rpc_request(node: ExportedNode, _needed: Needed, relations: tuple[str, ...]) -> Piece:
    payload = {"method": "${telemetry.method}", "params": "${telemetry.params}"}
    if not set(relations) - {"Failure"}:
        return Piece([{"send_downlink": {"payload": payload}}])
    timeout = f"{int(node.config.get('timeoutInSeconds') or 60)}s"
    nodes: list[dict[str, Any]] = [
        {"call_device": {"payload": payload, "timeout": timeout}},
        {"map": {"telemetry": "${metadata.reply.telemetry}"}},
    ]
    note = "the converter's encoder gets `method` and `params`; the next uplink is the reply"
    return Piece(nodes, THEN, [note])


def _downlink(_node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    return Piece([{"send_downlink": {"payload": {"msg": "${telemetry}"}}}], THEN,
                 ["the converter's encoder gets the message as `msg`"])  # fmt: skip


def _relation(verb: str) -> Carry:
    def carry(node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
        config = node.config
        if config.get("entityType") not in ("DEVICE", "ASSET") or not config.get(
            "entityNamePattern"
        ):
            return lost("relations are between devices here, by their names")
        # There FROM is a way from the originator to the entity.
        way = "to" if config.get("direction") == "FROM" else "from"
        made = {
            "relation": str(config.get("relationType") or "Contains"),
            way: pattern(str(config["entityNamePattern"])),
        }
        return Piece([{verb: made}], {SUCCESS: ("then",), "True": ("then",)})

    return carry


def _rest(node: ExportedNode, needed: Needed, relations: tuple[str, ...]) -> Piece:
    config = node.config
    url = str(config.get("restEndpointUrlPattern") or "").replace("${deviceName}", "{device}")
    method = str(config.get("requestMethod") or "POST")
    if (
        not urlsplit(url).hostname
        or "${" in url
        or "$[" in url
        or method not in ("POST", "PUT", "PATCH")
    ):
        return lost(f"a sink cannot {method} {url}")
    about = f"Where ThingsBoard's node `{node.name}` posted to."
    sink = {"transport": "http", "url": url, **({"method": method} if method != "POST" else {})}
    to = needed.sink(urlsplit(url).hostname or node.name, about, sink)
    notes = []
    if config.get("headers") or (config.get("credentials") or {}).get("type") not in (
        None,
        "anonymous",
    ):
        notes.append(
            f"headers and credentials were not taken over: write them into sinks/{to}.yaml"
        )
    if not set(relations) - {"Failure"}:
        return Piece([{"send": {"to": to, "body": "${telemetry}"}}], THEN, notes)
    nodes: list[dict[str, Any]] = [
        {"remote_call": {"to": to, "body": "${telemetry}"}},
        {"map": {"telemetry": "${metadata.reply.body}"}},
    ]
    return Piece(nodes, THEN, notes)


def _external(what: str, key: str = "", body: str = "${telemetry}") -> Carry:
    def carry(node: ExportedNode, needed: Needed, _relations: tuple[str, ...]) -> Piece:
        where = f" `{node.config[key]}`" if key and node.config.get(key) else ""
        name = slug(node.name)
        about = f"ThingsBoard's node `{node.name}` wrote to {what}{where}; a file stands for it."
        path = f"data/{name}.jsonl"
        to = needed.sink(name, about, {"transport": "file", "path": path})
        note = f"{what}{where}: sinks/{to}.yaml writes to {path}; name the transport that it is"
        return Piece([{"send": {"to": to, "body": body}}], THEN, [note])

    return carry


def _count(_node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
    return Piece([], THEN, ["the metric `funicular_rule_nodes_total` counts messages of each node"])


def _without(why: str) -> Carry:
    def carry(_node: ExportedNode, _needed: Needed, _relations: tuple[str, ...]) -> Piece:
        return lost(why)

    return carry


CARRY: Mapping[str, Carry] = {
    "TbMsgTimeseriesNode": _time_series,
    "TbMsgAttributesNode": _save_attributes,
    "TbMsgDeleteAttributesNode": _delete_attributes,
    "TbCreateAlarmNode": _create_alarm,
    "TbClearAlarmNode": _clear_alarm,
    "TbLogNode": _log,
    "TbMsgCountNode": _count,
    "TbMsgDelayNode": _delay,
    "TbGpsGeofencingActionNode": _geofence_events,
    "TbSendRPCRequestNode": _rpc_request,
    "TbIntegrationDownlinkNode": _downlink,
    "TbCreateRelationNode": _relation("relate"),
    "TbDeleteRelationNode": _relation("unrelate"),
    "TbRestApiCallNode": _rest,
    "TbKafkaNode": _external("Kafka's topic", "topicPattern"),
    "TbMqttNode": _external("MQTT's topic", "topicPattern"),
    "TbRabbitMqNode": _external("RabbitMQ's exchange", "exchangeNamePattern"),
    "TbAwsLambdaNode": _external("AWS Lambda", "functionName"),
    "TbSnsNode": _external("AWS SNS", "topicArnPattern"),
    "TbSqsNode": _external("AWS SQS", "queueUrlPattern"),
    "TbPubSubNode": _external("Google Pub/Sub", "topicName"),
    "TbAzureIotHubNode": _external("Azure IoT Hub", "topicPattern"),
    "TbSendEmailNode": _external("email", body="${metadata.mail}"),
    "TbSendSmsNode": _external("SMS"),
    "TbNotificationNode": _external("notifications"),
    "TbSlackNode": _external("Slack"),
    "TbAiNode": _external("a language model"),
    "TbSaveToCustomCassandraTableNode": _external("a table of Cassandra", "tableName"),
    "TbDeviceProfileNode": _without("the alarm rules of profiles are nodes here: `raise_alarm`"),
    "TbCalculatedFieldsNode": _without("calculated fields are nodes here: `set`, `accumulate`"),
    "TbDeviceStateNode": _without("whether a device is there says `silence`"),
    "TbMsgGeneratorNode": _without("`schedule` sends a device's last message on when it is time"),
    "TbChangeOriginatorNode": _without("write `change_device`, which takes the device's name"),
    "TbGetTelemetryNode": _without("no history is kept here: sum it up before, by `window`"),
    "TbCheckRelationNode": _without("`tell` leads to `otherwise` where nobody is related"),
    "TbGetRelatedAttributeNode": _without("the related device can `tell` its values"),
    "TbGetDeviceAttrNode": _without("the related device can `tell` its values"),
    "TbGetCustomerAttributeNode": _without("customers have no attributes here"),
    "TbGetCustomerDetailsNode": _without("of a customer only the name is known: `device.customer`"),
    "TbGetTenantAttributeNode": _without("tenants have no attributes: see `look_up`"),
    "TbGetTenantDetailsNode": _without("of a tenant only the name is known: `device.tenant`"),
    "TbFetchDeviceCredentialsNode": _without("credentials never come into messages"),
    "TbAssignToCustomerNode": _without("converters name customers"),
    "TbUnassignFromCustomerNode": _without("converters name customers"),
    "TbCopyAttributesToEntityViewNode": _without("there are no views of devices"),
    "TbMsgPushToCloudNode": _without("there is no edge and no cloud: `send` to a sink"),
    "TbMsgPushToEdgeNode": _without("there is no edge and no cloud: `send` to a sink"),
    "TbSendRPCReplyNode": _without("a device's question is answered by `send_downlink`"),
    "TbSendRestApiCallReplyNode": _without("requests are answered by the integration"),
}
