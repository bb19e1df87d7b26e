"""IBM Watson IoT Platform over MQTT, as an application of an organization.

Format: «Communicating with applications (MQTT)» of IBM's documentation. Devices have a type and an
id, both of which topics name.

| topic | becomes |
|---|---|
| `iot-2/type/{type}/id/{id}/evt/{event}/fmt/{format}` | uplink: `payload` is the body, `fields` its JSON object, or what stands in it under `d` |
| `iot-2/type/{type}/id/{id}/mon` | status: `connected`, `reason` |

`metadata`: `device_type`, `event`, `format`; of `mon` also `client_address`. Downlinks are commands,
`…/cmd/{command}/fmt/json` of fields, `…/fmt/bin` of bytes.
"""  # noqa: E501 - a row of a table is one line

from __future__ import annotations

import re
from typing import Any

import orjson
from pydantic import Field

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Asynchronous, DeviceTemplate, Options
from pipeline.integrations.document import digest, parse, parse_object, time_of
from pipeline.integrations.http import DIALECT as HTTP
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request
from pipeline.model.mqtt import Publication, topic_level
from pipeline.model.uplink import Link, Uplink

_EVENT = re.compile(
    r"iot-2/type/(?P<device_type>[^/]+)/id/(?P<device_id>[^/]+)/evt/(?P<event>[^/]+)/fmt/"
    r"(?P<format>[^/]+)"
)
_STATUS = re.compile(r"iot-2/type/(?P<device_type>[^/]+)/id/(?P<device_id>[^/]+)/mon")
_LEVEL = r"^[A-Za-z0-9_.-]*$"


class WatsonIotOptions(Options):
    """`device_type`: take the devices of this type alone. `status`: take who connects and
    disconnects. `command`: the name that downlinks have.
    """

    device_type: str = Field(default="", pattern=_LEVEL, max_length=36)
    status: bool = True
    command: str = Field(default="downlink", pattern=_LEVEL, min_length=1, max_length=100)


class WatsonIot(Asynchronous):
    """The dialect; see the module."""

    name = "watson_iot"
    usual_transport = "mqtt"
    contract = "thingsboard"
    device_template = "{device_type}:{device_id}"
    device_variables = ("device_type", "device_id")
    has_f_port = False
    takes_fields = True
    repeat_window_s = 15 * 60
    options = WatsonIotOptions

    def read(
        self,
        request: Request,
        options: Any,  # noqa: ARG002 - the port's shape
        device_template: str,
    ) -> list[Uplink]:
        """Return the one message. As the port says."""
        query = request.query
        names = {name: query.get(name, "") for name in ("device_type", "device_id")}
        device = DeviceTemplate.fill(device_template, names)
        link = Link(application_id=names["device_type"], device_id=names["device_id"])
        if not query.get("event"):
            return [_status(request, device, link)]
        document = parse(request.body) if query.get("format") == "json" else None
        fields = document if type(document) is dict else None
        told = query.get("event", "")
        time_ms = None
        if fields is not None and type(fields.get("d")) is dict:
            stamp = fields.get("ts")
            time_ms = time_of(stamp, "ts") if isinstance(stamp, str) else None
            fields = fields["d"]
        metadata = {"device_type": names["device_type"], "event": told,
                    "format": query.get("format", "")}  # fmt: skip
        return [
            Uplink(device=device, time_ms=time_ms, payload=request.body, fields=fields,
                   metadata=metadata, link=link)
        ]  # fmt: skip

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `payload_length`."""
        HTTP.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: Any) -> Call:  # noqa: ARG002
        """Raise MessageError `no_link`: commands are published, not posted."""
        raise MessageError("the dialect `watson_iot` hands over by MQTT alone", code="no_link")

    def topics(self, options: WatsonIotOptions) -> tuple[str, ...]:
        """Return the filters of all devices."""
        devices = f"iot-2/type/{options.device_type or '+'}/id/+"
        events = f"{devices}/evt/+/fmt/+"
        return (events, f"{devices}/mon") if options.status else (events,)

    def from_topic(
        self,
        topic: str,
        body: bytes,
        options: Any,  # noqa: ARG002 - the port's shape
    ) -> Request | None:
        """Return the message, the topic's names in its query; None: it is of no device's event."""
        found = _EVENT.fullmatch(topic) or _STATUS.fullmatch(topic)
        return None if found is None else Request(body=body, query=found.groupdict())

    def publication(self, downlink: Downlink, link: Link, options: WatsonIotOptions) -> Publication:
        """Return the command. MessageError `no_link`: the device's type or id is not known."""
        device_type = topic_level(link.application_id or options.device_type)
        device_id = topic_level(link.device_id)
        fields = downlink.fields
        kind, body = ("bin", downlink.payload or b"") if fields is None else (
            "json", orjson.dumps(fields))  # fmt: skip
        where = f"iot-2/type/{device_type}/id/{device_id}/cmd/{options.command}/fmt/{kind}"
        return Publication(where, body)

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return an event `status` in JSON."""
        body = HTTP.sample(device_id, counter, payload, now_ms).body
        query = {"device_type": "sample", "device_id": device_id, "event": "status",
                 "format": "json"}  # fmt: skip
        return Request(body=body, query=query)

    def sample_topic(self, device_id: str, options: WatsonIotOptions) -> str:
        """Return the topic that `sample` is published to."""
        device_type = options.device_type or "sample"
        return f"iot-2/type/{device_type}/id/{device_id}/evt/status/fmt/json"

    def broker_lines(self, variable: str) -> list[str]:
        """See `dialect.KnowsItsBroker`."""
        organization = f"${{env:{variable}_ORGANIZATION}}"
        return [
            f'  server: "mqtts://{organization}.messaging.internetofthings.ibmcloud.com:8883"',
            f'  client_id: "a:{organization}:funicular"   # A:… shares events among clients',
            f'  user: "${{env:{variable}_API_KEY}}"       # as a-abc123-q8h4v2d1k7',
            f'  password: "${{env:{variable}_TOKEN}}"',
        ]


def _status(request: Request, device: str, link: Link) -> Uplink:
    document = parse_object(request.body)
    fields: dict[str, Any] = {"connected": document.get("Action") == "Connect"}
    if document.get("Reason"):
        fields["reason"] = document["Reason"]
    metadata: dict[str, Any] = {"device_type": link.application_id, "event": "mon"}
    if document.get("ClientAddr"):
        metadata["client_address"] = document["ClientAddr"]
    return Uplink(
        device=device,
        type="status",
        time_ms=time_of(document.get("Time"), "Time"),
        fields=fields,
        metadata=metadata,
        link=link,
        repeat_key=digest(device, request.body),
    )


DIALECT = WatsonIot()
