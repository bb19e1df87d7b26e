"""The Things Stack v3 over MQTT: topics, and the message of a downlink, which its API takes, too.

Format: the MQTT Server's page of The Things Stack. Topics are
`v3/{application}@{tenant}/devices/{device}/…`; the community edition of the server has no tenant in
them. The server speaks MQTT 3.1.1 with QoS 0.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Protocol

import orjson

from pipeline.errors import MessageError
from pipeline.integrations.tts_v3_up import OUR_ID
from pipeline.model.downlink import Downlink
from pipeline.model.http import Request
from pipeline.model.mqtt import Publication, topic_level
from pipeline.model.uplink import Link


class TopicOptions(Protocol):
    """What of the dialect's options says where the topics are."""

    application_id: str
    tenant_id: str


class TtsV3Topics:
    """The part of the dialect that MQTT needs: `dialect.OverMqtt`."""

    def topics(self, options: TopicOptions) -> tuple[str, ...]:
        """Return the filter of all messages of all devices."""
        application = options.application_id
        return (f"v3/{_unique(application, options) if application else '+'}/devices/+/#",)

    def from_topic(
        self,
        topic: str,
        body: bytes,
        options: TopicOptions,  # noqa: ARG002 - the port's shape
    ) -> Request | None:
        """Return the request that a webhook would bring; None: the topic is of no message up."""
        parts = topic.split("/")
        if len(parts) < 5 or parts[0] != "v3" or parts[2] != "devices":
            return None
        if parts[4:] in (["down", "push"], ["down", "replace"]):
            return None  # somebody's downlink, perhaps ours
        return Request(body=body, headers={"content-type": "application/json"})

    def publication(self, downlink: Downlink, link: Link, options: TopicOptions) -> Publication:
        """Return the message to `down/push`, or to `down/replace`. MessageError `no_link`."""
        application = options.application_id or link.application_id
        if not application or not link.device_id:
            raise MessageError(
                "no uplink has told the device's application and id yet", code="no_link"
            )
        unique = topic_level(_unique(application, options))
        device = topic_level(link.device_id)
        return Publication(
            topic=f"v3/{unique}/devices/{device}/down/{operation_of(downlink)}",
            payload=orjson.dumps({"downlinks": [message_of(downlink)]}),
        )

    def sample_topic(self, device_id: str, options: TopicOptions) -> str:
        """Return the topic that `sample` is published to."""
        unique = _unique(options.application_id or "sample-app", options)
        return f"v3/{unique}/devices/{device_id}/up"


def operation_of(downlink: Downlink) -> str:
    """Return `replace`, or `push` for all that is appended."""
    return "replace" if downlink.queue == "replace" else "push"


def message_of(downlink: Downlink) -> dict[str, Any]:
    """Return the downlink as `down/push` and `down/replace` take it.

    The Things Stack cannot put a downlink before others: `first` is pushed with the highest
    priority, which is what its scheduler goes by.
    """
    priority = downlink.priority or ("highest" if downlink.queue == "first" else "normal")
    message: dict[str, Any] = {
        "f_port": downlink.f_port,
        "frm_payload": b64encode(downlink.payload or b"").decode(),
        "priority": priority.upper(),
        "correlation_ids": [OUR_ID + downlink.id, *downlink.correlation_ids],
    }
    if downlink.confirmed:
        message["confirmed"] = True
    return message


def _unique(application: str, options: TopicOptions) -> str:
    """Return the application as topics name it: with its tenant, where there are tenants."""
    return f"{application}@{options.tenant_id}" if options.tenant_id else application
