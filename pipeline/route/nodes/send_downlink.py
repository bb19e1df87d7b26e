"""`send_downlink`: a message in, a downlink asked for on `downlink.requested`, the message out."""

from __future__ import annotations

import binascii
from base64 import b64decode
from typing import Any, ClassVar

from pydantic import Field, StrictBool, model_validator

from pipeline.errors import MessageError
from pipeline.model.downlink import DownlinkRequest, Priority, QueueWord, queue_mode
from pipeline.part import Part
from pipeline.route.fields import BytesTemplate, TemplateMap, TemplatePort, TemplateText
from pipeline.route.message import Scope
from pipeline.route.node import Onward, Outcome
from pipeline.route.visit import Visit
from pipeline.rulebook.duration import Duration

PAYLOAD_BYTES_MAX = 4_096  # far over what any radio carries; the dialect knows its own limit


class DownlinkConfig(Part):
    """`payload` for the converter's encoder, or `bytes` as they are: hex or base64."""

    payload: TemplateMap | None = None
    raw: BytesTemplate | None = Field(default=None, alias="bytes")
    f_port: TemplatePort | None = None
    confirmed: StrictBool = False
    queue: QueueWord | None = Field(
        default=None,
        description="The integration's way by default: `replace`, `first`, `last` (or `push`).",
    )
    priority: Priority | None = None
    expires_in: Duration | None = None
    supersede_key: TemplateText | None = Field(
        default=None, description="Takes the place of a waiting downlink with the same key."
    )

    @model_validator(mode="after")
    def _one_of(self) -> DownlinkConfig:
        if (self.payload is None) == (self.raw is None):
            raise ValueError("needs either `payload` (a mapping for the encoder) or `bytes`")
        return self


class SendDownlink(Onward):
    """Asks for a downlink to the device of the message.

    Numbers and texts may be expressions. Text in `bytes` is hex where it is hex digits only, else
    base64; say `hex:` or `base64:` before it to be sure.

    - name: tell the device
      send_downlink:
        f_port: 10
        payload: {cooling: true, target: "${attributes.shared.target}"}
        queue: replace
        expires_in: 6h
    - name: ping
      send_downlink: {f_port: 2, bytes: "hex:01ff"}
    """

    verb: ClassVar[str] = "send_downlink"

    send_downlink: DownlinkConfig

    def apply(self, visit: Visit) -> Outcome:
        """Ask for the downlink; return `then`."""
        visit.send_downlink(request_of(self.send_downlink, visit.scope, visit.now_ms))
        return "then"


def request_of(config: DownlinkConfig, scope: Scope, now_ms: int) -> DownlinkRequest:
    """Return what a user wrote of a downlink, filled in. MessageError: an expression gives what
    cannot be (codes `f_port`, `downlink_bytes`, `payload_length`), or fails.
    """
    expires_at_ms = None
    if config.expires_in is not None:
        expires_at_ms = now_ms + round(config.expires_in * 1_000)
    return DownlinkRequest(
        payload=None if config.raw is None else _bytes(config.raw(scope)),
        fields=None if config.payload is None else config.payload(scope),
        f_port=None if config.f_port is None else _port(config.f_port(scope)),
        confirmed=config.confirmed,
        queue=queue_mode(config.queue),
        priority=config.priority,
        expires_at_ms=expires_at_ms,
        supersede_key=str(config.supersede_key(scope)) if config.supersede_key else "",
    )


def _port(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 255:
        raise MessageError(f"f_port is {value!r}; it must be a number from 0 to 255", code="f_port")
    return value


def _bytes(value: Any) -> bytes:
    data = _as_bytes(value)
    if len(data) > PAYLOAD_BYTES_MAX:
        raise MessageError(
            f"{len(data)} bytes are too much for a downlink",
            code="payload_length",
            limit=PAYLOAD_BYTES_MAX,
        )
    return data


def _as_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        if isinstance(value, str):
            return _decode(value)
        if isinstance(value, list) and not any(isinstance(item, bool) for item in value):
            return bytes(value)
    except (ValueError, TypeError, binascii.Error) as error:
        raise MessageError(f"`bytes` cannot be read: {error}", code="downlink_bytes") from error
    raise MessageError(
        "`bytes` must give hex or base64 text, bytes, or a list of numbers from 0 to 255",
        code="downlink_bytes",
    )


def _decode(text: str) -> bytes:
    kind, colon, rest = text.partition(":")
    if colon and kind == "hex":
        return bytes.fromhex(rest)
    if colon and kind == "base64":
        return b64decode(rest, validate=True)
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b64decode(text, validate=True)


NODE = SendDownlink
