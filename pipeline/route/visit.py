"""A message on its way through a chain: what a node sees, and the effects that it may ask for.

In: a message and a chain. Out: the effects, in the turn's outputs and in the device's state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import msgspec

from pipeline.errors import MessageError
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import DownlinkRequest
from pipeline.model.event import DeviceMessage, Position, RelationChange, RequestedDownlink
from pipeline.model.record import derive_id
from pipeline.model.uplink import Link
from pipeline.ports import Script, ScriptCall
from pipeline.route import alarms, attributes, relations
from pipeline.route.alarms import Alarm
from pipeline.route.chain import Chain, Step
from pipeline.route.message import Scope, plain
from pipeline.route.node import FAILURE, Outcome
from pipeline.route.origin import origin_of
from pipeline.route.relations import Way
from pipeline.route.storable import size_of
from pipeline.route.turn import LogLine, Mark, Pending, Turn
from pipeline.topics import delivery_topic

TIMER_PREFIX = "timer/"
CALL_PREFIX = "call/"
CALLS_PART = "calls"

Until = Literal["reply", "sent", "acknowledged"]
"""What ends a call to the device: a later message of it, or how far the downlink has come."""


class Start(NamedTuple):
    """Where a walk begins; `apply` stands in for the first node's (a timer's, for instance)."""

    position: int = 0
    apply: Callable[[Any], Outcome] | None = None


BEGIN = Start()
_LEFT_OUT = "…"


class Visit:
    """What nodes are given. `message` and `scope` change from node to node; a node reads them,
    and asks for effects by the methods.
    """

    __slots__ = (
        "_base",
        "_chain",
        "_depth",
        "_handed",
        "_made",
        "_steps_left",
        "_time_ms",
        "_turn",
        "message",
        "now_ms",
        "scope",
        "stands",
        "step",
    )

    def __init__(
        self, turn: Turn, chain: Chain, message: DeviceMessage, *, base: str, time_ms: int
    ) -> None:
        self._turn = turn
        self._chain = chain
        self._base = base  # what the ids of effects derive from: one run of a chain, for ever
        self._time_ms = time_ms
        self._made = 0
        self._depth = 0
        self._handed: list[tuple[str, DeviceMessage]] = []
        self._steps_left = turn.work.limits.steps_max
        self.now_ms = turn.now_ms
        self.message = message
        self.scope = Scope(message, turn)
        self.step: Step = chain.steps[0]
        self.stands: Mark | None = None  # what a failure leaves; None: nothing

    @property
    def turn(self) -> Turn:
        """The turn that this is part of: for those who watch, not for nodes."""
        return self._turn

    # What a node may ask.

    def plain(self) -> dict[str, Any]:
        """Return the message as applications get it."""
        return plain(self.message, self._turn.known())

    def recall(self) -> Any:
        """Return what this node remembered of this device; None: nothing."""
        return self._turn.state.get(self._turn.key, self.step.part)

    def device(self) -> str:
        """Return the device's key: its tenant and name."""
        return self._turn.key

    def alarm(self, kind: str) -> Alarm | None:
        """Return the device's alarm of a type, also a cleared one; None: there is none."""
        return alarms.find(self._turn.state, self._turn.key, kind)

    def successor(self, what: str, **changes: Any) -> DeviceMessage:
        """Return a new message that this node makes of its message; `what` tells it from others
        that the node makes of the same.
        """
        mark = blake2b(f"{self.step.part}/{what}".encode(), digest_size=6).hexdigest()
        return msgspec.structs.replace(
            self.message, id=derive_id(self.message.id, f"n{mark}"), **changes
        )

    def run_script(self, script: Script, argument: dict[str, Any]) -> Any:
        """Return what a script made of an argument (operation `handle_message`). ScriptError: it
        failed. It may end this turn, which is then taken again: see `scripts.py`.
        """
        turn = self._turn
        call = ScriptCall(
            tenant=turn.tenant, script=script, operation="handle_message", argument=argument
        )
        return turn.work.scripts.call(call)

    # What a node may do.

    def remember(self, value: Any) -> None:
        """Keep a JSON value for this node and device; None forgets."""
        turn = self._turn
        if value is not None and (size := size_of(value)) > turn.work.limits.node_state_bytes_max:
            raise MessageError(
                f"the node would keep {size} bytes of this device",
                code="node_state",
                limit=turn.work.limits.node_state_bytes_max,
            )
        turn.state.put(turn.key, self.step.part, value)

    def wake(self, name: str, at_ms: int, data: Any = None) -> None:
        """Ask for `apply_timer` at `at_ms`, with this message; replaces this node's timer `name`.

        A time that is not ahead is the next millisecond.
        """
        self._set_timer(f"{self.step.part}/{name}", at_ms, self._position(self.message, data))

    def _position(self, message: DeviceMessage, data: Any) -> dict[str, Any]:
        """Return where a message waits. MessageError (code `state`): it cannot be kept."""
        turn = self._turn
        position = {
            "chain": self.step.chain,
            "node": self.step.name,
            "rules": turn.rules.version if turn.rules else "",
            "trace": turn.trace,
            "message": msgspec.to_builtins(
                msgspec.structs.replace(message, link=None, window=None)
            ),
            "data": data,
        }
        size_of(position)
        return position

    def _set_timer(self, timer: str, at_ms: int, data: Any) -> None:
        turn = self._turn
        entry = TIMER_PREFIX + timer
        timers_max = turn.work.limits.timers_max
        if turn.state.get(turn.key, entry) is None and (
            sum(1 for _ in turn.state.scan(turn.key, TIMER_PREFIX)) >= timers_max
        ):
            raise MessageError(
                f"the device has {timers_max} timers already", code="timers", limit=timers_max
            )
        due_ms = max(at_ms, self.now_ms + 1)
        turn.state.set_timer(turn.key, timer, due_ms, data)
        turn.state.put(turn.key, entry, due_ms)

    def cancel_wake(self, name: str) -> None:
        """Take this node's timer back, whether or not it is set."""
        turn, timer = self._turn, f"{self.step.part}/{name}"
        turn.state.cancel_timer(turn.key, timer)
        turn.state.delete(turn.key, TIMER_PREFIX + timer)

    def change_attributes(
        self,
        scope: str,
        values: dict[str, Any],
        delete: tuple[str, ...] = (),
        *,
        overwrite_newer: bool = False,
    ) -> bool:
        """Set and delete attributes of the device as of the message's time; False: no change.
        What is newer than the message stays, unless `overwrite_newer`.

        Later nodes see them at once; chains are told of a change when all chains have had the
        message.
        """
        turn = self._turn
        change = attributes.change(
            turn.state,
            turn.key,
            scope,
            values,
            delete=delete,
            time_ms=self._time_ms,
            bytes_max=turn.work.limits.attributes_bytes_max,
            overwrite_newer=overwrite_newer,
        )
        if change is None:
            return False
        self.scope.pop("attributes", None)
        self._made += 1
        turn.pending.append(
            Pending(
                self._base,
                f"{self._chain.tag}-a{self._made}",
                self._time_ms,
                change,
                f"{self.step.chain}/{self.step.name}",
            )
        )
        return True

    def keep_alarm(self, kind: str, alarm: Alarm) -> None:
        """Keep an alarm of the device. MessageError: it has too many, or this one is too large."""
        turn, limits = self._turn, self._turn.work.limits
        alarms.keep(
            turn.state,
            turn.key,
            kind,
            alarm,
            alarms_max=limits.alarms_max,
            bytes_max=limits.alarm_bytes_max,
        )

    def send_downlink(self, request: DownlinkRequest) -> str:
        """Ask for a downlink to the device; returns its id."""
        turn, message = self._turn, self.message
        known = turn.known()
        link = known.get("link")
        wanted = RequestedDownlink(
            id=self._id(),
            tenant=turn.tenant,
            device=turn.device,
            integration=known.get("integration") or message.integration,
            time_ms=self.now_ms,
            request=msgspec.structs.replace(request, source=f"{self.step.chain}/{self.step.name}"),
            device_type=known.get("type", ""),
            link=msgspec.convert(link, Link) if link else None,
            metadata=message.metadata,
        )
        turn.request(wanted.id, wanted)
        return wanted.id

    def send(self, destination: str, body: Any) -> None:
        """Hand a body to a sink."""
        turn = self._turn
        event_id = self._id()
        turn.emit(
            delivery_topic(turn.tenant, destination),
            event_id,
            Delivery(
                event_id,
                turn.tenant,
                turn.device,
                destination,
                self.now_ms,
                body,
                origin=origin_of(self.message, turn.known()),
            ),
        )

    def related(self, relation: str, way: Way) -> list[str]:
        """Return the devices that this one relates to (`to`), or that relate to it (`from`)."""
        return relations.others(self._turn.state, self._turn.key, way, relation)

    def relate(self, relation: str, way: Way, other: str, *, present: bool) -> bool:
        """Keep or forget a relation, and tell the other device; False: it was so before."""
        turn = self._turn
        state, key = turn.state, turn.key
        if present:
            limit = turn.work.limits.relations_max
            changed = relations.put(state, key, way, relation, other, relations_max=limit)
        else:
            changed = relations.remove(state, key, way, relation, other)
        if changed:
            self.scope.pop("relations", None)
            event = RelationChange(
                id=self._id(),
                tenant=turn.tenant,
                device=other,
                time_ms=self._time_ms,
                relation=relation,
                way=relations.back(way),
                other=turn.device,
                present=present,
            )
            turn.tell(other, event.id, event)
        return changed

    def tell(self, device: str, **changes: Any) -> None:
        """Send this message, with `changes`, to another device of the tenant, which takes it as
        one that it was told. MessageError: it was passed on too often (`hops`), or this turn tells
        too many (`told`).
        """
        turn, limits = self._turn, self._turn.work.limits
        if self.message.hops >= limits.hops_max:
            raise MessageError(
                f"it was passed on by {limits.hops_max} devices already",
                code="hops",
                limit=limits.hops_max,
            )
        turn.told += 1
        if turn.told > limits.told_max:
            raise MessageError(
                f"one message tells {limits.told_max} devices at most",
                code="told",
                limit=limits.told_max,
            )
        event = msgspec.structs.replace(
            self.message,
            id=self._id(),
            device=device,
            teller=turn.device,
            hops=self.message.hops + 1,
            integration="",
            dev_eui="",
            customer="",
            group="",
            link=None,
            window=None,
            **changes,
        )
        turn.tell(device, event.id, event)

    def here(self) -> Position:
        """Return the position of this node."""
        return Position(self.step.chain, self.step.name)

    def scope_of(self, message: DeviceMessage) -> Scope:
        """Return what expressions see of a message that this node made."""
        return Scope(message, self._turn)

    def call(self, destination: str, body: Any, until_ms: int, data: Any = None) -> str:
        """Hand a body to a sink and let this message wait for the answer: `apply_reply` gets it,
        or that there was none by `until_ms`. Returns the call's id.
        """
        turn = self._turn
        event_id = self._id()
        self._await(event_id, self.message, until_ms, data)
        turn.emit(
            delivery_topic(turn.tenant, destination),
            event_id,
            Delivery(
                event_id,
                turn.tenant,
                turn.device,
                destination,
                self.now_ms,
                body,
                awaited=True,
                expires_at_ms=until_ms,
            ),
        )
        return event_id

    def call_device(
        self, request: DownlinkRequest, message: DeviceMessage, until_ms: int, data: dict[str, Any]
    ) -> str:
        """Ask for a downlink and let `message` wait for the device's reply, as `call` does."""
        turn = self._turn
        call = self.send_downlink(request)
        self._await(call, message, until_ms, data)
        turn.state.put(turn.key, CALLS_PART, [*(turn.state.get(turn.key, CALLS_PART) or ()), call])
        return call

    def _await(self, call: str, message: DeviceMessage, until_ms: int, data: Any) -> None:
        turn = self._turn
        calls_max = turn.work.limits.calls_max
        if sum(1 for _ in turn.state.scan(turn.key, CALL_PREFIX)) >= calls_max:
            raise MessageError(
                f"the device waits for {calls_max} calls already", code="calls", limit=calls_max
            )
        turn.state.put(turn.key, CALL_PREFIX + call, self._position(message, data))
        self._set_timer(CALL_PREFIX + call, until_ms, {"trace": turn.trace})

    def log(self, level: str, message: str) -> None:
        """Say something in the log."""
        turn = self._turn
        limits = turn.work.limits
        if len(message) > limits.log_characters_max:
            message = message[: limits.log_characters_max] + _LEFT_OUT
        turn.work.lines.append(
            LogLine(
                level=level,
                message=message,
                tenant=turn.tenant,
                device=turn.device,
                chain=self.step.chain,
                node=self.step.name,
                event_id=self.message.id,
            )
        )

    def output(self, name: str) -> None:
        """Hand this message back to whoever runs this chain, under a name; else it ends here."""
        self._handed.append((name, self.message))

    def enter(self, name: str) -> list[tuple[str, DeviceMessage]]:
        """Run another chain on this message to its end; returns what it handed back by `output`.

        MessageError: it failed, there is no such chain, or chains are too deep in one another.
        """
        turn = self._turn
        chain = turn.rules.chains.get(name) if turn.rules else None
        if chain is None:
            raise MessageError(f"there is no chain `{name}`", code="chain_gone")
        if self._depth >= turn.work.limits.chain_depth_max:
            raise MessageError(
                f"chains run each other {self._depth} deep",
                code="chain_depth",
                limit=turn.work.limits.chain_depth_max,
            )
        step, message, scope = self.step, self.message, self.scope
        before, self._handed = self._handed, []
        self._depth += 1
        self.walk(chain, message)
        self._depth -= 1
        handed, self._handed = self._handed, before
        self.step, self.message, self.scope = step, message, scope
        scope.pop("attributes", None)  # the other chain may have changed them
        return handed

    # What the stage does.

    def walk(self, chain: Chain, message: DeviceMessage, start: Start = BEGIN) -> None:
        """Take a message from a position to every end that it comes to.

        MessageError: a node failed and nobody takes it; `step` says which.
        """
        position, apply = start
        waiting: list[tuple[int, DeviceMessage]] = []
        steps, fired = chain.steps, self._turn.work.fired
        while True:
            if position < 0:
                if not waiting:
                    return
                position, message = waiting.pop()
            self._steps_left -= 1
            if self._steps_left < 0:
                raise self._too_many_steps()
            if message is not self.message:
                self.message = message
                self.scope = Scope(message, self._turn)
            self.step = step = steps[position]
            if step.failure is None:
                outcome = (apply or step.apply)(self)
            else:
                outcome = self._attempt(step, apply or step.apply)
            if apply is not None:
                apply, self.stands = None, self._turn.mark()
            if isinstance(outcome, str):
                edge = step.edges[outcome]
                fired.append(edge)
                position = edge.target
                continue
            position = -1
            waiting += self._ways(step, outcome)

    def _ways(
        self, step: Step, made: list[tuple[str, DeviceMessage]]
    ) -> Iterator[tuple[int, DeviceMessage]]:
        """Yield where messages go on that a node made, the last one first."""
        for outlet, message in reversed(made):
            edge = step.edges[outlet]
            self._turn.work.fired.append(edge)
            if edge.target >= 0:
                yield edge.target, message

    def _attempt(self, step: Step, apply: Any) -> Outcome:
        """Apply a node whose failure has somewhere to go: undo what it did, and say why there."""
        turn, message, scope, depth = self._turn, self.message, self.scope, self._depth
        handed = self._handed
        mark = turn.mark()
        try:
            outcome: Outcome = apply(self)
        except MessageError as fault:
            if fault.code == "steps":
                raise
            turn.undo(mark)
            failure = {"node": self.step.name, "reason": fault.code, "message": fault.message}
            self.step, self.message, self.scope, self._depth = step, message, scope, depth
            self._handed = handed
            scope.pop("attributes", None)
            metadata = {**message.metadata, FAILURE: failure}
            return [(FAILURE, msgspec.structs.replace(message, metadata=metadata))]
        return outcome

    def _too_many_steps(self) -> MessageError:
        steps_max = self._turn.work.limits.steps_max
        return MessageError(
            f"the message passed {steps_max} nodes and is still on its way",
            code="steps",
            limit=steps_max,
        )

    def _id(self) -> str:
        self._made += 1
        return derive_id(self._base, f"{self._chain.tag}-{self._made}")
