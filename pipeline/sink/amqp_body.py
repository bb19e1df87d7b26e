"""What a downlink is inside a message of AMQP, either version: the dialect makes it. And what a
broker of 0-9-1 says of a message that it does not keep.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import SecretStr

from pipeline.integrations.dialect import Dialect, OverMqtt
from pipeline.integrations.http import HttpOptions
from pipeline.model.downlink import Downlink
from pipeline.model.mqtt import Publication
from pipeline.model.uplink import Link
from pipeline.sink.transport import Result, Verdict

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


def not_kept(error: Exception, key: str, setting: str) -> Result:
    """Return the verdict on a message that the broker did not confirm, of aiormq's DeliveryError;
    `setting` lets it drop what no queue is bound for.
    """
    from aiormq.exceptions import PublishError  # noqa: PLC0415 - an extra

    if isinstance(error, PublishError):
        message = (
            f"no queue is bound for the routing key `{key[:100]}`: bind one, or say `{setting}`"
        )
        return Result(Verdict.POSTPONED, "unroutable", message)
    message = "the broker does not take it now (nack): a queue is full, or a node away"
    return Result(Verdict.POSTPONED, "nack", message)
