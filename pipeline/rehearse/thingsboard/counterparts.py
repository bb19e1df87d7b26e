"""How each rule node of ThingsBoard's community edition is done here, for the page of nodes.

The names are those of its 77 `@RuleNode` annotations, by category. In `how`, a word in backticks is
one of our nodes, or, after "sink", a transport; a sentence says why where there is none.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["node", "sink", "built in", "not here"]


class Counterpart(NamedTuple):
    """One of ThingsBoard's nodes, and what stands for it here."""

    name: str
    kind: Kind
    how: str


_FILTER = (
    ("alarm status filter", "node", "`match_alarm`"),
    ("asset profile switch", "node", "`switch` over `device.type`, or `on: {device_type: …}`"),
    ("device profile switch", "node", "`switch` over `device.type`, or `on: {device_type: …}`"),
    ("check fields presence", "node", "`has_fields`"),
    ("check relation presence", "node", "`filter: has(relations.to.contains)`"),
    ("entity type filter", "node", '`filter: device.kind == "asset"`'),
    ("entity type switch", "node", "`switch` over `device.kind`"),
    ("gps geofencing filter", "node", "`geofence`"),
    ("message type filter", "node", "`on: {messages: …}` of the chain, or `match_type`"),
    ("message type switch", "node", "`match_type`"),
    ("script", "node", "`filter` by an expression, or `script` that returns true or false"),
    ("switch", "node", "`switch` by expressions, or `script` that returns texts"),
)
_ENRICHMENT = (
    ("calculate delta", "node", "`delta`"),
    (
        "customer attributes",
        "node",
        "`look_up` by `device.customer`, or `tell` from a device for the customer",
    ),
    ("customer details", "node", "`look_up` in a table by `device.customer`"),
    ("fetch device credentials", "not here", "Funicular keeps none: the network server does"),
    ("originator attributes", "node", "`enrich`; expressions see `attributes` without it"),
    ("originator fields", "node", "`enrich`; expressions see `device` without it"),
    (
        "originator telemetry",
        "node",
        "`collect` or `window` over a span of time, `enrich` for last values",
    ),
    (
        "related device attributes",
        "node",
        "`tell`: who has the value tells those related; no device reads another's state",
    ),
    ("related entity data", "node", "likewise `tell` and `set_attributes`"),
    (
        "tenant attributes",
        "node",
        "`look_up` in a table of the rules folder, which is the tenant's",
    ),
    ("tenant details", "node", "`look_up` in a table; expressions see `device.tenant`"),
)
_TRANSFORMATION = (
    ("change originator", "node", "`change_device`"),
    ("copy key-value pairs", "node", "`copy`"),
    ("deduplication", "node", "`deduplicate`; `collect` for all of a span of time"),
    ("delete key-value pairs", "node", "`delete`"),
    ("json path", "node", "`map` or `set` with an expression (`telemetry.list.filter(x, …)`)"),
    ("rename keys", "node", "`rename`"),
    ("script", "node", "`script`, with the same contract; `map` and `set` need none"),
    ("split array msg", "node", "`split`"),
    ("to email", "node", "`template` for the text, then `send` to a mail service's address"),
)
_ACTION = (
    ("assign to customer", "not here", "a device's customer is what its converter says"),
    ("unassign from customer", "not here", "likewise"),
    (
        "calculated fields and alarm rules",
        "node",
        "`accumulate`, `window`, `raise_alarm` in a chain; there is no second place for rules",
    ),
    ("create alarm", "node", "`raise_alarm`"),
    ("clear alarm", "node", "`clear_alarm`"),
    ("copy to view", "not here", "there are no entity views; a sink's `body` says what it gets"),
    ("create relation", "node", "`relate`"),
    ("delete relation", "node", "`unrelate`"),
    ("delay", "node", "`delay`"),
    ("delete attributes", "node", "`delete_attributes`"),
    (
        "device profile",
        "node",
        "`raise_alarm` and `clear_alarm` with expressions (deprecated there)",
    ),
    ("device state", "node", "`silence`: a device falls silent, and is back"),
    ("generator", "node", "`schedule`, of a device that was heard once"),
    ("gps geofencing events", "node", "`geofence`: entered, left, dwelled"),
    ("log", "node", "`log`"),
    (
        "math function",
        "node",
        "`set` or `set_attributes` with an expression; `accumulate` over what is kept",
    ),
    ("message count", "node", "`count`; all nodes are counted in `funicular_rule_nodes_total`"),
    ("push to cloud", "sink", "sink `http` or `kafka` to another Funicular"),
    ("push to edge", "sink", "sink `http` or `kafka` to another Funicular"),
    ("rest call reply", "node", "`send_downlink` on a synchronous integration: it is the answer"),
    ("rpc call reply", "node", "`send_downlink`"),
    ("rpc call request", "node", "`call_device` with a reply, `send_downlink` without"),
    ("save attributes", "node", "`set_attributes`"),
    ("save time series", "sink", "`send` to a sink `postgresql`, `influxdb`, `thingsboard`, …"),
    ("save to custom table", "sink", "sink `postgresql`"),
    ("synchronization start", "built in", "messages of a device are handled one after the other"),
    ("synchronization end", "built in", "likewise"),
)
_EXTERNAL = (
    ("AI request", "node", "`remote_call` to the model's address, by a sink `http`"),
    (
        "aws lambda",
        "sink",
        "sink `http` to the function's URL or an API Gateway; `remote_call` for its answer",
    ),
    ("aws sns", "not here", "its API wants AWS's signature; by API Gateway and a sink `http`"),
    ("aws sqs", "not here", "likewise; or a sink `kafka`, `amqp`, `redis` where there is a choice"),
    ("azure iot hub", "sink", "sink `http` to its REST address with a SAS token, or `mqtt`"),
    ("gcp pubsub", "not here", "its API wants Google's tokens, which end within the hour"),
    ("kafka", "sink", "sink `kafka`; with Kafka as the log every topic can be read anyway"),
    ("mqtt", "sink", "sink `mqtt`"),
    ("rabbitmq", "sink", "sink `amqp`"),
    ("rest api call", "node", "`remote_call` for the answer, `send` to a sink `http` without"),
    ("send email", "sink", "sink `http` to a mail service's API"),
    ("send notification", "sink", "sink `http` to a push service's API"),
    ("send sms", "sink", "sink `http` to an SMS service's API"),
    ("send to slack", "sink", "sink `http` to the channel's incoming webhook"),
)
_FLOW = (
    ("acknowledge", "built in", "a message and all its effects are committed in one step"),
    (
        "checkpoint",
        "built in",
        "likewise; one topic a stage is the queue, and a slow sink delays itself only",
    ),
    ("rule chain", "node", "`chain`"),
    ("output", "node", "`output`"),
)

COUNTERPARTS: dict[str, tuple[Counterpart, ...]] = {
    category: tuple(Counterpart(*row) for row in rows)  # type: ignore[arg-type]  # kinds are of Kind
    for category, rows in {
        "Filter": _FILTER,
        "Enrichment": _ENRICHMENT,
        "Transformation": _TRANSFORMATION,
        "Action": _ACTION,
        "External": _EXTERNAL,
        "Flow": _FLOW,
    }.items()
}
