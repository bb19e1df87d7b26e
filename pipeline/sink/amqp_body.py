"""What a downlink is inside a message of AMQP, either version: the dialect makes it."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import SecretStr

from pipeline.integrations.dialect import Dialect, OverMqtt
from pipeline.integrations.http import HttpOptions
from pipeline.model.downlink import Downlink
from pipeline.model.mqtt import Publication
from pipeline.model.uplink import Link

_NOWHERE = SecretStr("https://none.invalid/")
"""The dialect `http` makes the bodies; the address is not used."""


class AmqpBody(NamedTuple):
    """`topic`: of dialects that MQTT carries; `reference`: as `model.mqtt.Publication`."""

    body: bytes
    content_type: str
    topic: str = ""
    reference: str = ""


def body_of(dialect: Dialect, downlink: Downlink, link: Link, options: Any) -> AmqpBody:
    """Return it. MessageError: as the dialect says."""
    if isinstance(dialect, OverMqtt):
        published: Publication = dialect.publication(downlink, link, options)
        return AmqpBody(published.payload, "application/json", published.topic, published.reference)
    if isinstance(options, HttpOptions):  # `check` lets no other come here
        options = options.model_copy(update={"downlink_url": _NOWHERE})
    call = dialect.send(downlink, link, options)
    return AmqpBody(call.body, call.headers.get("content-type", "application/octet-stream"))
