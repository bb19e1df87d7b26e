"""AWS IoT Core over MQTT: telemetry on topics of one's own, device shadows as attributes.

Format: «Device Shadow service documents», «Reserved topics» and «Lifecycle events» of AWS IoT
Core's developer guide. `topic` is a template as of the dialect `mqtt`, and what its topics bring is
read as there; the levels of AWS's own topics are these:

| topic | becomes |
|---|---|
| `$aws/things/{thing}/shadow/…update/documents` | status: all that is `reported` becomes attributes of the thing (client scope), what is no longer there null; of a named shadow as one attribute of that name |
| `$aws/things/{thing}/shadow/…update/rejected` | service_data: `code`, `message` |
| `$aws/events/presence/connected/{client}`, `…/disconnected/…` (with `presence`) | status: `connected`, `disconnect_reason` |

`metadata` of a shadow: `shadow` (its name, empty for the classic one), `version`, `desired`.
A downlink is `desired` of the thing's shadow (its fields; bytes stand under `payload`, in base64),
or a message to `downlink_topic`. AWS's answer to a shadow's update moves the downlink on.
"""  # noqa: E501 - a row of a table is one line

from __future__ import annotations

import re
from base64 import b64encode
from typing import Any, Literal, cast

import orjson
from pydantic import Field, model_validator

from pipeline.errors import MessageError
from pipeline.integrations.dialect import DeviceTemplate
from pipeline.integrations.document import bad_field, digest, milliseconds_of, parse_object
from pipeline.integrations.http import HttpOptions
from pipeline.integrations.mqtt import Mqtt, MqttOptions
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Request
from pipeline.model.mqtt import Publication, topic_level
from pipeline.model.uplink import Link, Report, Uplink

TOKEN_LENGTH_MAX = 64  # AWS's limit of a clientToken
OURS = "funicular-"  # how the tokens of our own downlinks begin
_SHADOW = re.compile(
    r"\$aws/things/(?P<thing>[^/]+)/shadow/(?:name/(?P<name>[^/]+)/)?update/"
    r"(?P<said>documents|rejected)"
)
_PRESENCE = re.compile(r"\$aws/events/presence/(?P<said>connected|disconnected)/(?P<client>[^/]+)")
_OWN = frozenset({"shadow", "shadow_name", "presence"})  # of a request's query


class AwsIotOptions(MqttOptions):
    """`topic`: the template of your devices' telemetry; empty: there is none. `shadows`: take what
    things report in their shadows. `presence`: take who connects and disconnects. `downlinks`:
    to the thing's `shadow` (the one named `shadow`, else the classic one), or to `topic`, which is
    `downlink_topic`. `kinds`, `format`, `device_field`, `repeat_field`: as of the dialect `mqtt`.
    """

    topic: str = Field(default="dt/{application}/{device_id}/{kind}", max_length=1_024)
    shadows: bool = True
    presence: bool = False
    downlinks: Literal["shadow", "topic"] = "shadow"
    shadow: str = Field(default="", pattern=r"^[A-Za-z0-9:_-]*$", max_length=64)

    @model_validator(mode="after")
    def _keep_our_names(self) -> AwsIotOptions:
        for name in _OWN:
            if f"{{{name}}}" in self.topic:
                raise ValueError(f"`{{{name}}}` has a meaning of its own: choose another name")
        return self


class AwsIot(Mqtt):
    """The dialect; see the module."""

    name = "aws_iot"
    options = AwsIotOptions

    def read(self, request: Request, options: HttpOptions, device_template: str) -> list[Uplink]:
        """Return the one message. As the port says."""
        query = request.query
        if "shadow" in query:
            return [_of_shadow(request, device_template)]
        if "presence" in query:
            return [_of_presence(request, device_template)]
        return super().read(request, options, device_template)

    def topics(self, options: MqttOptions) -> tuple[str, ...]:
        """Return the filters: telemetry, and of AWS's own topics those that are wanted."""
        ours = cast("AwsIotOptions", options)
        filters = list(super().topics(options))
        if ours.shadows:
            for shadow in ("shadow", "shadow/name/+"):
                filters += [f"$aws/things/+/{shadow}/update/{said}"
                            for said in ("documents", "rejected")]  # fmt: skip
        if ours.presence:
            filters += [f"$aws/events/presence/{said}/+" for said in ("connected", "disconnected")]
        return tuple(filters)

    def from_topic(self, topic: str, body: bytes, options: MqttOptions) -> Request | None:
        """Return the message; None: its topic is none of the template, nor one of AWS's own."""
        if not topic.startswith("$aws/"):
            return super().from_topic(topic, body, options)
        shadow = _SHADOW.fullmatch(topic)
        if shadow is not None:
            query = {"topic": topic, "device_id": shadow["thing"], "shadow": shadow["said"],
                     "shadow_name": shadow["name"] or ""}  # fmt: skip
            return Request(body=body, query=query)
        presence = _PRESENCE.fullmatch(topic)
        if presence is None:
            return None
        query = {"topic": topic, "device_id": presence["client"], "presence": presence["said"]}
        return Request(body=body, query=query)

    def publication(self, downlink: Downlink, link: Link, options: MqttOptions) -> Publication:
        """Return the update of the shadow, or the message to `downlink_topic`. MessageError:
        `no_link`, `payload_length`.
        """
        ours = cast("AwsIotOptions", options)
        if ours.downlinks == "topic":
            return super().publication(downlink, link, options)
        thing = topic_level(link.device_id or downlink.device)
        shadow = f"shadow/name/{ours.shadow}" if ours.shadow else "shadow"
        token = f"{OURS}{downlink.id}"
        document: dict[str, Any] = {"state": {"desired": _desired(downlink)}}
        if len(token) <= TOKEN_LENGTH_MAX:
            document["clientToken"] = token
        return Publication(f"$aws/things/{thing}/{shadow}/update", orjson.dumps(document))

    def broker_lines(self, variable: str) -> list[str]:
        """See `dialect.KnowsItsBroker`."""
        return [
            "  # The endpoint is as abc123-ats.iot.eu-central-1.amazonaws.com.",
            f'  server: "mqtts://${{env:{variable}_ENDPOINT}}:8883"',
            "  tls:",
            f'    certificate_file: "${{env:{variable}_CERTIFICATE}}"   # of a policy that lets it',
            f'    key_file: "${{env:{variable}_KEY}}"                   # connect and subscribe',
            "  # client_id: funicular      # as the policy allows; downlinks append -down-…",
            '  # version: "5"',
            "  # share: funicular          # several workers; the order is not kept then",
        ]


def _desired(downlink: Downlink) -> dict[str, Any]:
    if downlink.fields is not None:
        return downlink.fields
    payload = downlink.payload or b""
    try:
        return parse_object(payload)
    except MessageError:
        return {"payload": b64encode(payload).decode()}


def _of_shadow(request: Request, device_template: str) -> Uplink:
    thing = request.query.get("device_id", "")
    document = parse_object(request.body)
    device = DeviceTemplate.fill(device_template, {"device_id": thing})
    name = request.query.get("shadow_name", "")
    token = document.get("clientToken")
    ours = token.removeprefix(OURS) if isinstance(token, str) and token.startswith(OURS) else ""
    if request.query.get("shadow") == "rejected":
        return _rejected(request, document, device, ours)
    current, previous = _state(document, "current"), _state(document, "previous")
    version = document["current"].get("version")
    reported = _object(current, "current.state", "reported")
    before = _object(previous, "previous.state", "reported")
    gone = dict.fromkeys(key for key in before if key not in reported)
    attributes = {**reported, **gone}
    desired = _object(current, "current.state", "desired")
    return Uplink(
        device=device,
        type="status",
        time_ms=_seconds(document),
        metadata={"shadow": name, "version": version, "desired": desired},
        attributes={name: reported} if name and attributes else attributes,
        link=Link(device_id=thing),
        reports=(Report(State.ACCEPTED, downlink_id=ours),) if ours else (),
        repeat_key=digest(f"{thing}|{name}|{version}|{document.get('timestamp')}"),
    )


def _rejected(request: Request, document: dict[str, Any], device: str, ours: str) -> Uplink:
    said = {"code": document.get("code"), "message": document.get("message")}
    text = str(said["message"] or said["code"] or "")
    failed = Report(State.FAILED, downlink_id=ours, reason="rejected", detail={"message": text})
    return Uplink(
        device=device,
        type="service_data",
        time_ms=_seconds(document),
        fields=said,
        metadata={"service": "shadow", "shadow": request.query.get("shadow_name", "")},
        link=Link(device_id=request.query.get("device_id", "")),
        reports=(failed,) if ours else (),
        repeat_key=digest(request.query.get("topic", ""), request.body),
    )


def _of_presence(request: Request, device_template: str) -> Uplink:
    client = request.query.get("device_id", "")
    document = parse_object(request.body)
    time = document.get("timestamp")
    fields: dict[str, Any] = {"connected": request.query.get("presence") == "connected"}
    if document.get("disconnectReason"):
        fields["disconnect_reason"] = document["disconnectReason"]
    return Uplink(
        device=DeviceTemplate.fill(device_template, {"device_id": client}),
        type="status",
        time_ms=milliseconds_of(time) if type(time) in (int, float) else None,
        fields=fields,
        metadata={"event": "presence"},
        link=Link(device_id=client),
        repeat_key=digest(request.query.get("topic", ""), request.body),
    )


def _state(document: dict[str, Any], which: str) -> dict[str, Any]:
    """Return one of the two states of a document; of a new shadow there is no previous one."""
    whole = document.get(which)
    if whole is None and which == "previous":
        return {}
    if type(whole) is not dict:
        raise bad_field(which, "must be a JSON object")
    return _object(whole, which, "state")


def _object(parent: dict[str, Any], path: str, name: str) -> dict[str, Any]:
    value = parent.get(name)
    if value is None:
        return {}
    if type(value) is not dict:
        raise bad_field(f"{path}.{name}", "must be a JSON object")
    return value


def _seconds(document: dict[str, Any]) -> int | None:
    time: Any = document.get("timestamp")
    return milliseconds_of(time * 1_000) if type(time) in (int, float) else None


DIALECT = AwsIot()
