"""`call_device`: a message in, a downlink asked for; with the device's reply it goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
from pydantic import Field, StrictBool, model_validator

from pipeline.route.fields import Condition, Target
from pipeline.route.memory import recall, remember
from pipeline.route.moments import Span
from pipeline.route.node import THEN, Onward, Outcome, Reply
from pipeline.route.nodes.remote_call import gone_on
from pipeline.route.nodes.send_downlink import DownlinkConfig, request_of
from pipeline.route.places import Place, path_of
from pipeline.route.visit import Until, Visit

_NUMBERS = 255  # calls are numbered 1 to 255, so that the number fits a byte of the payload


class DeviceCallConfig(DownlinkConfig):
    """A downlink as of `send_downlink`, and what ends the wait."""

    timeout: Span = Field(description="How long to wait.")
    until: Until = Field(
        default="reply",
        description="A later message of the device, or only that the downlink was sent or "
        "acknowledged.",
    )
    reply: Condition | None = Field(
        default=None,
        description="Whether a later message is the reply; by default the next one is.",
    )
    persistent: StrictBool = Field(
        default=False, description="The downlink stays in the queue when the time is over."
    )
    into: Place = Field(default=path_of("metadata.reply"), validate_default=False)

    @model_validator(mode="after")
    def _a_reply(self) -> DeviceCallConfig:
        if self.reply is not None and self.until != "reply":
            raise ValueError("`reply` says which message ends it; then `until` must be `reply`")
        return self


class CallDevice(Onward):
    """Asks the device something by a downlink, and goes on when it has replied.

    ThingsBoard's remote procedure call. The reply is a later uplink: the next one, or the first for
    which `reply` is true; it enters chains as every uplink does. The call has a number from 1 to
    255, which `payload` and `reply` see as `metadata.call.number`. The message that asked waits in
    the device's state, across restarts, and goes on by `then` with the reply at `metadata.reply`
    (`telemetry`, `time`, `f_port`, `id`). `until: sent` or `acknowledged` is a call one way: it
    waits for the downlink alone (`metadata.reply.state`). A downlink that failed leads to
    `failed`, no reply in time to `timeout`; where that outlet is not named, the node fails. The
    downlink expires with the time, unless `persistent`.

    - name: where is the valve
      call_device:
        f_port: 4
        payload: {ask: position, number: "${metadata.call.number}"}
        reply: telemetry.number == metadata.call.number
        timeout: 2h
      timeout: no reply
      failed: no reply
    - name: remember
      set_attributes: {scope: server, values: {valve: "${metadata.reply.telemetry.position}"}}
      then: stop
    - name: no reply
      log: {level: warning, message: "${device.name}: ${metadata.reply.reason}"}
    """

    verb: ClassVar[str] = "call_device"
    outlets: ClassVar[tuple[str, ...]] = (THEN, "failed", "timeout")
    failing: ClassVar[tuple[str, ...]] = ("failed", "timeout")

    call_device: DeviceCallConfig
    failed: Target | None = Field(default=None, description="The downlink failed.")
    timeout: Target | None = Field(default=None, description="No reply in time.")

    def apply(self, visit: Visit) -> Outcome:
        """Ask for the downlink; the message's way ends for now."""
        config = self.call_device
        number = recall(visit, self.verb).get("number", 0) % _NUMBERS + 1
        remember(visit, self.verb, {"number": number})
        call = {"number": number}
        metadata = {**visit.message.metadata, "call": call}
        message = msgspec.structs.replace(visit.message, metadata=metadata)
        request = request_of(config, visit.scope_of(message), visit.now_ms)
        until_ms = visit.now_ms + config.timeout
        if request.expires_at_ms is None and not config.persistent:
            request = msgspec.structs.replace(request, expires_at_ms=until_ms)
        visit.call_device(request, message, until_ms, {"call": call, "until": config.until})
        return []

    def apply_reply(self, visit: Visit, reply: Reply) -> Outcome:
        """Return the message with the reply."""
        return gone_on(visit, reply, self.call_device.into, self.failed, self.timeout)

    def hears(self, scope: Mapping[str, Any]) -> bool:
        """Return whether a later message is the reply."""
        return self.call_device.reply is None or self.call_device.reply.test(scope)


NODE = CallDevice
