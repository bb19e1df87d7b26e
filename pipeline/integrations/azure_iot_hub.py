"""Azure IoT Hub over MQTT, on the device's side of the hub: as a device, a module, or in its place.

Format: «Communicate with an IoT hub using the MQTT protocol» of Microsoft's documentation. What an
application gets of a hub's devices comes over AMQP; MQTT is what devices, gateways and modules of
IoT Edge speak. `role` says which of them we are:

| `role` | comes in | downlinks |
|---|---|---|
| `device` | cloud-to-device messages; `desired` properties of our twin | messages to the hub, or `reported` properties |
| `module` | inputs of an IoT Edge module (`$.cdid` is the device that said it); `desired` properties | outputs, or `reported` properties |
| `hub` | events of devices that publish to a broker in the hub's place | cloud-to-device messages |

A message is read as the dialect `http` reads a body; its properties become `metadata.properties`,
the hub's own `metadata.system`. Its device is the one of the topic for `hub`; else the property that
`device_property` names, where it is set, else `$.cdid`, else our own. `desired` properties become
attributes of `device_id` (status).
"""  # noqa: E501 - a row of a table is one line

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import parse_qsl, quote

import msgspec
import orjson
from pydantic import Field, model_validator

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Asynchronous, DeviceTemplate, Options
from pipeline.integrations.document import digest, parse_object, time_of
from pipeline.integrations.http import DIALECT as HTTP
from pipeline.integrations.http import HttpOptions
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request
from pipeline.model.mqtt import Publication, topic_level
from pipeline.model.uplink import Link, Uplink

PROPERTIES_MAX = 100
_SYSTEM = "$."
_DESIRED = "$iothub/twin/PATCH/properties/desired/"
_REPORTED = "$iothub/twin/PATCH/properties/reported/"
_READ = {
    "device": re.compile(r"devices/(?P<device>[^/]+)/messages/devicebound/(?P<bag>.*)", re.DOTALL),
    "module": re.compile(
        r"devices/(?P<device>[^/]+)/modules/[^/]+/inputs/(?P<input>[^/]+)/(?P<bag>.*)", re.DOTALL
    ),
    "hub": re.compile(r"devices/(?P<device>[^/]+)/messages/events/(?P<bag>.*)", re.DOTALL),
}
_NAME = r"^[A-Za-z0-9._:-]*$"
_DEVICE = "deviceId"  # the property that says whom a downlink is for
_JSON = {"$.ct": "application/json", "$.ce": "utf-8"}
_READ_AS = HttpOptions()


class AzureIotHubOptions(Options):
    """`role`: who we are to the hub, as the table above says. `device_id` (and `module_id`): our
    own, for `device` and `module`. `device_property`: the property of a message that names its
    device, where whoever sends to us may say so (of a downlink: else `deviceId`). `downlinks`: as
    `messages`, or into the twin's `reported` properties. `output`: the module's output.
    """

    role: Literal["device", "module", "hub"] = "device"
    device_id: str = Field(default="", pattern=_NAME, max_length=128)
    module_id: str = Field(default="", pattern=_NAME, max_length=128)
    device_property: str = Field(default="", max_length=255)
    downlinks: Literal["messages", "reported"] = "messages"
    output: str = Field(default="downlinks", pattern=_NAME, min_length=1, max_length=128)

    @model_validator(mode="after")
    def _go_together(self) -> AzureIotHubOptions:
        if self.role == "module" and bool(self.device_id) != bool(self.module_id):
            raise ValueError("a module has a `device_id` and a `module_id`: set both")
        if self.role != "module" and self.module_id:
            raise ValueError("`module_id` is of `role: module`")
        if self.role == "hub" and self.downlinks == "reported":
            raise ValueError("`reported` properties are a device's or a module's to write")
        return self


class AzureIotHub(Asynchronous):
    """The dialect; see the module."""

    name = "azure_iot_hub"
    usual_transport = "mqtt"
    contract = "thingsboard"
    device_template = "{device_id}"
    device_variables = ("device_id",)
    has_f_port = False
    takes_fields = True
    # A message that is not acknowledged comes again a minute later, up to ten times.
    repeat_window_s = 15 * 60
    options = AzureIotHubOptions

    def read(
        self, request: Request, options: AzureIotHubOptions, device_template: str
    ) -> list[Uplink]:
        """Return the one message. As the port says."""
        query = request.query
        if "twin" in query:
            return [_twin(request, options, device_template)]
        properties = _properties(query.get("bag", ""))
        system = {name.removeprefix(_SYSTEM): value
                  for name, value in properties.items() if name.startswith(_SYSTEM)}  # fmt: skip
        own = {name: value for name, value in properties.items() if not name.startswith(_SYSTEM)}
        named = query.get("device", "")
        if options.role != "hub":  # a device that publishes itself names no other
            named = own.get(options.device_property) or system.get("cdid") or named
        device = DeviceTemplate.fill(device_template, {"device_id": named})
        headers = {"content-type": system["ct"]} if system.get("ct") else {}
        (uplink,) = HTTP.read(Request(request.body, headers=headers), _READ_AS, "{device_id}")
        metadata: dict[str, Any] = {"properties": own, "system": system}
        if query.get("input"):
            metadata["input"] = query["input"]
        message = system.get("mid", "")
        return [
            msgspec.structs.replace(
                uplink,
                device=device,
                time_ms=_time(system.get("ctime", "")),
                metadata=metadata,
                link=Link(application_id=query.get("device", ""), device_id=named),
                repeat_key=digest(f"{named}|{message}") if message else "",
                answerable=False,
            )
        ]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `payload_length`."""
        HTTP.check(downlink)

    def send(self, downlink: Downlink, link: Link, options: Any) -> Call:  # noqa: ARG002
        """Raise MessageError `no_link`: messages are published, not posted."""
        raise MessageError("the dialect `azure_iot_hub` hands over by MQTT alone", code="no_link")

    def topics(self, options: AzureIotHubOptions) -> tuple[str, ...]:
        """Return the filters; none where our own id is missing."""
        if options.role == "hub":
            return ("devices/+/messages/events/#",)
        if not options.device_id:
            return ()
        if options.role == "module":
            inputs = f"devices/{options.device_id}/modules/{options.module_id}/inputs/#"
            return (inputs, f"{_DESIRED}#")
        return (f"devices/{options.device_id}/messages/devicebound/#", f"{_DESIRED}#")

    def from_topic(self, topic: str, body: bytes, options: AzureIotHubOptions) -> Request | None:
        """Return the message; None: its topic is none that our role reads."""
        if topic.startswith(_DESIRED) and options.role != "hub":
            return Request(body=body, query={"twin": topic.removeprefix(_DESIRED)})
        found = _READ[options.role].fullmatch(topic)
        return None if found is None else Request(body=body, query=found.groupdict())

    def publication(
        self, downlink: Downlink, link: Link, options: AzureIotHubOptions
    ) -> Publication:
        """Return the message to the hub, or to the device. MessageError `no_link`, `fields`."""
        device = topic_level(link.device_id or downlink.device)
        if options.downlinks == "reported":
            if downlink.fields is None:
                raise MessageError("`reported` properties need fields, not bytes", code="fields")
            body = orjson.dumps(downlink.fields)
            return Publication(f"{_REPORTED}?$rid={quote(downlink.id, safe='')}", body)
        if options.role == "hub":
            to = f"devices/{device}/messages/devicebound/"
        elif not options.device_id:
            raise MessageError("the integration's options have no `device_id`", code="no_link")
        elif options.role == "module":
            to = f"devices/{options.device_id}/modules/{options.module_id}/messages/events/"
        else:
            to = f"devices/{options.device_id}/messages/events/"
        properties = {"$.mid": downlink.id, options.device_property or _DEVICE: device}
        if options.role == "module":
            properties["$.on"] = options.output
        body = downlink.payload or b""
        if downlink.fields is not None:
            body = orjson.dumps(downlink.fields)
            properties |= _JSON
        return Publication(to + _bag(properties), body)

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return a message in JSON."""
        body = HTTP.sample(device_id, counter, payload, now_ms).body
        return Request(body=body, query={"device": device_id, "bag": _bag(_JSON)})

    def sample_topic(self, device_id: str, options: AzureIotHubOptions) -> str:
        """Return the topic of `sample`: as what `role` reads, its device by a property."""
        own = options.device_id or device_id
        named = {options.device_property: device_id} if options.device_property else {}
        bag = _bag(named | _JSON)
        if options.role == "module":
            return f"devices/{own}/modules/{options.module_id or 'funicular'}/inputs/sample/{bag}"
        if options.role == "device":
            return f"devices/{own}/messages/devicebound/{bag}"
        return f"devices/{device_id}/messages/events/{bag}"

    def broker_lines(self, variable: str) -> list[str]:
        """See `dialect.KnowsItsBroker`."""
        return [
            f'  server: "mqtts://${{env:{variable}_HUB}}:8883"   # as my-hub.azure-devices.net',
            f'  client_id: "${{env:{variable}_DEVICE}}"          # of a module: device/module',
            "  sas:                       # makes user and password, and renews them",
            f'    key: "${{env:{variable}_SHARED_KEY}}"',
            "    # policy: device         # where the key is a policy's, not the device's own",
            "  # downlink_client_id: …    # a second device: the hub lets each connect once",
        ]


def _properties(bag: str) -> dict[str, str]:
    """Return a property bag, the end of a topic, which is written as a web form is."""
    try:
        # A `+` is a plus there.
        pairs = parse_qsl(bag.replace("+", "%2B"), keep_blank_values=True,
                          max_num_fields=PROPERTIES_MAX)  # fmt: skip
    except ValueError:
        raise MessageError(
            f"the message has more than {PROPERTIES_MAX} properties", code="field", field="bag"
        ) from None
    return dict(pairs)


def _bag(properties: dict[str, str]) -> str:
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}"
                    for name, value in properties.items())  # fmt: skip


def _twin(request: Request, options: AzureIotHubOptions, device_template: str) -> Uplink:
    document = parse_object(request.body)
    own = options.device_id
    version = document.pop("$version", None)
    attributes = {name: value for name, value in document.items() if not name.startswith("$")}
    return Uplink(
        device=DeviceTemplate.fill(device_template, {"device_id": own}),
        type="status",
        metadata={"twin": "desired", "version": version},
        attributes=attributes,
        link=Link(device_id=own),
        repeat_key=digest(f"{own}|{version}", request.body),
    )


def _time(text: str) -> int | None:
    """Return the hub's time of a message; it may be missing, and is no reason to refuse it."""
    try:
        return time_of(text, "iothub-creation-time-utc")
    except MessageError:
        return None


DIALECT = AzureIotHub()
