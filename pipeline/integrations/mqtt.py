"""Plain MQTT: JSON, text or bytes on topics of one's own; a template says what the levels are.

`topic: factory/{line}/{device_id}/{kind}` reads the device's name and the message's kind from the
topic; every other name in braces becomes metadata. The payload is read as the dialect `http` reads
a body: `payload` is the bytes as they came, `fields` a JSON object.
`metadata`: `topic`, and each name of the template.
"""

from __future__ import annotations

import re
from functools import cached_property, lru_cache
from typing import Literal, cast

import msgspec
import orjson
from pydantic import Field, field_validator, model_validator

from pipeline.errors import MessageError
from pipeline.integrations.http import DIALECT as HTTP
from pipeline.integrations.http import DOWNLINK_BYTES_MAX, Http, HttpOptions
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request
from pipeline.model.mqtt import Publication, topic_level
from pipeline.model.uplink import Link, Uplink

_LEVEL = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_TOPIC_LENGTH_MAX = 1024
Kind = Literal["uplink", "join", "location", "service_data", "status", "ignore"]


class MqttOptions(HttpOptions):
    """`topic`: the template; a level is a name in braces, or stands for itself, and a last `#`
    is whatever follows. Without a template the filters under `connection: topics` are taken as
    they are, and `device_field` or the converter names the device.

    `kinds`: what a `{kind}` means, as `{telemetry: uplink, state: status, log: ignore}`; one that
    is not there is an uplink. `downlink_topic`: where downlinks are published; `{device_id}` is the
    device. `downlink_format` `binary` publishes the bytes alone. `format`, `device_field`,
    `repeat_field`: as of the dialect `http`.
    """

    topic: str = Field(default="", max_length=_TOPIC_LENGTH_MAX)
    kinds: dict[str, Kind] = Field(default_factory=dict)
    downlink_topic: str = Field(default="", max_length=_TOPIC_LENGTH_MAX)

    @field_validator("topic")
    @classmethod
    def _is_a_template(cls, topic: str) -> str:
        levels = topic.split("/")
        for place, level in enumerate(levels):
            last = place == len(levels) - 1
            if (level == "#" and last) or _LEVEL.fullmatch(level):
                continue
            if any(sign in level for sign in "{}+#"):
                raise ValueError(
                    f"the level `{level}` must be a name in braces or plain text; `#` stands last"
                )
        names = _LEVEL.findall(topic)
        if len(names) != len(set(names)):
            raise ValueError("has a name twice")
        if "topic" in names:
            raise ValueError("`{topic}` is the name of the whole")
        return topic

    @field_validator("downlink_topic")
    @classmethod
    def _is_a_topic(cls, topic: str) -> str:
        if any(sign in topic.replace("{device_id}", "") for sign in "{}+#"):
            raise ValueError("must be one topic; `{device_id}` stands for the device")
        return topic

    @model_validator(mode="after")
    def _no_way_of_http(self) -> MqttOptions:
        for name in ("device_header", "device_query", "repeat_header", "downlink_url"):
            if getattr(self, name) is not None:
                raise ValueError(f"`{name}` is of HTTP alone")
        return self

    @cached_property
    def as_http(self) -> HttpOptions:
        """How the dialect `http` is to read the request that a message becomes."""
        named = "device_id" if "{device_id}" in self.topic else None
        kept = {name: getattr(self, name) for name in ("format", "device_field", "repeat_field")}
        return HttpOptions(**kept, device_query=named)


class Mqtt(Http):
    """The dialect; see the module."""

    name = "mqtt"
    usual_transport = "mqtt"
    options = MqttOptions

    def read(self, request: Request, options: HttpOptions, device_template: str) -> list[Uplink]:
        """Return the one message; `device` is None where nothing names it. As the port says."""
        ours = cast("MqttOptions", options)
        (uplink,) = HTTP.read(request, ours.as_http, device_template)
        kind = ours.kinds.get(request.query.get("kind", ""), "uplink")
        metadata = dict(request.query)
        metadata.pop("device_id", None)
        return [
            msgspec.structs.replace(
                uplink,
                type="uplink" if kind == "ignore" else kind,
                metadata=metadata,
                answerable=False,
            )
        ]

    def send(self, downlink: Downlink, link: Link, options: HttpOptions) -> Call:  # noqa: ARG002
        """Raise MessageError `no_link`: downlinks are published, not posted."""
        raise MessageError("the dialect `mqtt` hands over by MQTT alone", code="no_link")

    def topics(self, options: MqttOptions) -> tuple[str, ...]:
        """Return the template as a filter; none where there is no template."""
        return (_LEVEL.sub("+", options.topic),) if options.topic else ()

    def from_topic(self, topic: str, body: bytes, options: MqttOptions) -> Request | None:
        """Return the message, the topic's names in its query; None: it is not of the template, or
        of a kind that is ignored.
        """
        found: dict[str, str] = {}
        if options.topic:
            match = _pattern(options.topic).fullmatch(topic)
            if match is None:
                return None
            found = match.groupdict()
        if options.kinds.get(found.get("kind", "")) == "ignore":
            return None
        return Request(body=body, query={"topic": topic, **found})

    def publication(self, downlink: Downlink, link: Link, options: MqttOptions) -> Publication:
        """Return the message to `downlink_topic`. MessageError: `no_link`, `payload_length`."""
        if not options.downlink_topic:
            raise MessageError("the integration's options have no `downlink_topic`", code="no_link")
        device_id = topic_level(link.device_id or downlink.device)
        topic = options.downlink_topic.replace("{device_id}", device_id)
        call = HTTP.send(downlink, link, _BODIES[options.downlink_format])
        if len(call.body) > 2 * DOWNLINK_BYTES_MAX:
            raise MessageError("the downlink is too long", code="payload_length", field="payload")
        return Publication(topic=topic, payload=call.body)

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return a flat JSON body, as of the dialect `http`, of a topic that names the device."""
        request = HTTP.sample(device_id, counter, payload, now_ms)
        body = orjson.loads(request.body)
        del body["device"]
        return Request(
            body=orjson.dumps(body),
            query={"topic": f"sample/{device_id}/up", "device_id": device_id},
        )

    def sample_topic(self, device_id: str, options: MqttOptions) -> str:
        """Return a topic of the template; its other names stand for themselves."""
        template = options.topic or "sample/{device_id}/up"
        return _LEVEL.sub(
            lambda match: device_id if match[1] == "device_id" else match[1], template
        ).replace("#", "up")


_BODIES = {
    form: HttpOptions.model_validate(
        {"downlink_url": "https://none.invalid/", "downlink_format": form}
    )
    for form in ("json", "binary")
}
"""`Http.send` makes the bodies; the address is not used."""


@lru_cache(maxsize=1024)
def _pattern(template: str) -> re.Pattern[str]:
    """Return the template as a regular expression: a name is one level, `#` any number."""
    levels = []
    for level in template.split("/"):
        name = _LEVEL.fullmatch(level)
        levels.append(
            f"(?P<{name[1]}>[^/]*)" if name else ".*" if level == "#" else re.escape(level)
        )
    text = "/".join(levels)
    return re.compile(text.removesuffix("/.*") + "(?:/.*)?" if text.endswith("/.*") else text)


DIALECT = Mqtt()
