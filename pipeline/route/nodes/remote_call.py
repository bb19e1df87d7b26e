"""`remote_call`: a message in, a request for a sink on `delivery.…`; with the answer it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from pipeline.errors import MessageError
from pipeline.part import Part
from pipeline.route.fields import Target, Template
from pipeline.route.moments import Span
from pipeline.route.node import THEN, Onward, Outcome, Reply
from pipeline.route.places import Draft, Path, Place, path_of
from pipeline.route.visit import Visit
from pipeline.rulebook.catalogue import Known, Problem, suggest

_TIMEOUT_MS = 30_000


class RequestConfig(Part):
    """Whom to ask, what, and how long to wait."""

    to: str = Field(min_length=1, description="A sink's name; of transport `http`.")
    body: Template | None = Field(default=None, description="The whole message by default.")
    timeout: Span = Field(
        default=_TIMEOUT_MS, validate_default=False, description="How long to wait for the answer."
    )
    into: Place = Field(
        default=path_of("metadata.reply"),
        validate_default=False,
        description="Where the answer goes: `status` and `body`.",
    )


class RemoteCall(Onward):
    """Asks a service something, and goes on with the answer when it comes.

    The message waits in the device's state, across restarts; others of the device go on. The
    request leaves by a sink, in order with the device's other deliveries and tried again while the
    service cannot be reached, until the time is over. With a 2xx the message goes on by `then`,
    the answer at `metadata.reply` (`status`, `body`: JSON, or text). Refused or given up it leaves
    by `failed`, without an answer in time by `timeout`, with the `reason` there; where that outlet
    is not named, the node fails. It goes on in this chain only: another chain that ran this one
    went on at once.

    - name: whose is it
      remote_call: {to: application, body: {device: "${device.name}"}, timeout: 10s}
      failed: nobody knows
      timeout: nobody knows
    - name: remember
      set_attributes: {scope: server, values: {owner: "${metadata.reply.body.owner}"}}
      then: stop
    - name: nobody knows
      log: {level: warning, message: "${device.name}: ${metadata.reply.reason}"}
    """

    verb: ClassVar[str] = "remote_call"
    outlets: ClassVar[tuple[str, ...]] = (THEN, "failed", "timeout")
    failing: ClassVar[tuple[str, ...]] = ("failed", "timeout")

    remote_call: RequestConfig
    failed: Target | None = Field(default=None, description="The service refused it.")
    timeout: Target | None = Field(default=None, description="No answer in time.")

    def apply(self, visit: Visit) -> Outcome:
        """Send the request; the message's way ends for now."""
        config = self.remote_call
        body = visit.plain() if config.body is None else config.body(visit.scope)
        visit.call(config.to, body, visit.now_ms + config.timeout)
        return []

    def apply_reply(self, visit: Visit, reply: Reply) -> Outcome:
        """Return the message with the answer."""
        return gone_on(visit, reply, self.remote_call.into, self.failed, self.timeout)

    def check(self, known: Known) -> Iterator[Problem]:
        """Yield a problem where there is no such sink."""
        if self.remote_call.to not in known.sinks:
            yield Problem(
                ("remote_call", "to"),
                f"there is no sink `{self.remote_call.to}`",
                suggest(self.remote_call.to, known.sinks)
                or f"write sinks/{self.remote_call.to}.yaml",
            )


def gone_on(
    visit: Visit, reply: Reply, into: Path, failed: str | None, timeout: str | None
) -> Outcome:
    """Return the way of a message whose call has ended: `then`, `failed`, `timeout`.

    MessageError (codes `call_failed`, `call_timeout`): where that outlet leads nowhere.
    """
    draft = Draft(visit.message)
    if reply.how == "replied":
        draft.put(into, reply.answer)
        return [(THEN, draft.message())]
    if (failed if reply.how == "failed" else timeout) is None:
        raise MessageError(
            reply.message or "the call failed", code=f"call_{reply.how}", reason=reply.reason
        )
    told = {"reason": reply.reason, "message": reply.message}
    if isinstance(reply.answer, dict):
        told |= reply.answer
    draft.put(into, told)
    return [(reply.how, draft.message())]


NODE = RemoteCall
