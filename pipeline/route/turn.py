"""One record's or timer's turn: what is known of its device, and what comes of it so far.

In: the device's state, the rules in force, the time. Out: records on `downlink.requested`,
`delivery.…`, `reply` and `dead.letter`, log lines, changes of attributes that chains are still to
be told of; all of it can be undone to a mark.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from pipeline.errors import MessageError
from pipeline.model.dead_letter import bury
from pipeline.model.event import DeviceMessage
from pipeline.model.record import (
    CAUSE_ID,
    EVENT_ID,
    REPLY_TO,
    RULES_VERSION,
    SCHEMA,
    SCHEMA_VERSION,
    TENANT,
    TRACE_ID,
    Outgoing,
    Record,
    device_key,
)
from pipeline.model.reply import Reply, read_reply_to
from pipeline.ports import DeviceState, ScriptPort
from pipeline.route.attributes import PART_PREFIX, Change
from pipeline.route.chain import Edge, Rules
from pipeline.route.limits import Limits
from pipeline.route.relations import relations_of
from pipeline.route.scripts import Calls
from pipeline.topics import DEVICE_EVENTS, DOWNLINK_REQUESTED, REPLY

DEVICE_PART = "device"
TELEMETRY_PART = "telemetry"
_CLIENT, _SHARED, _SERVER = (PART_PREFIX + scope for scope in ("client", "shared", "server"))

_encode = msgspec.json.Encoder().encode


class LogLine(msgspec.Struct, frozen=True):
    """What a `log` node says; `level` is one of debug, info, warning, error."""

    level: str
    message: str
    tenant: str
    device: str
    chain: str
    node: str
    event_id: str


class Pending(NamedTuple):
    """A change of attributes that chains are to be told of; `cause` and `tag` make the id of that
    message.
    """

    cause: str
    tag: str
    time_ms: int
    change: Change
    by: str


Mark = tuple[int, int, int, int]
"""Where `Turn.undo` goes back to: state, outputs, pending changes, log lines."""


class Work:
    """What a batch has in common, and what comes of it."""

    __slots__ = (
        "_start",
        "buried",
        "fired",
        "limits",
        "lines",
        "now_ms",
        "out",
        "partition",
        "scripts",
        "state",
    )

    def __init__(
        self,
        state: DeviceState,
        partition: int,
        now_ms: int,
        limits: Limits,
        scripts: ScriptPort | None = None,
    ) -> None:
        self.scripts = Calls(scripts, limits.scripts_batched_max)
        self._start = (0, 0, 0, 0, 0)
        self.state = state
        self.partition = partition
        self.now_ms = now_ms
        self.limits = limits
        self.out: list[Outgoing] = []
        self.lines: list[LogLine] = []
        self.fired: list[Edge] = []
        self.buried: list[str] = []

    def begin(self) -> None:
        """Begin a turn that `take_back` can undo, with what was counted of it."""
        self._start = (
            self.state.savepoint(),
            len(self.out),
            len(self.lines),
            len(self.fired),
            len(self.buried),
        )
        self.scripts.begin()

    def take_back(self) -> None:
        """Undo the turn, as if it had not begun: it will be taken again."""
        state, out, lines, fired, buried = self._start
        self.state.rollback(state)
        del self.out[out:]
        del self.lines[lines:]
        del self.fired[fired:]
        del self.buried[buried:]


class Turn:
    """See the module. `rules` is None where the tenant has none."""

    __slots__ = (
        "_same",
        "device",
        "hops",
        "key",
        "now_ms",
        "pending",
        "record",
        "rules",
        "state",
        "tenant",
        "told",
        "trace",
        "work",
    )

    def __init__(
        self,
        work: Work,
        record: Record,
        rules: Rules | None,
        *,
        tenant: str,
        device: str,
        cause: str,
    ) -> None:
        self.work = work
        self.state = work.state
        self.now_ms = work.now_ms
        self.record = record
        self.rules = rules
        self.key = record.key
        self.tenant = tenant
        self.device = device
        self.trace = record.headers.get(TRACE_ID) or cause
        self.pending: list[Pending] = []
        self.hops = 0  # how many devices have passed on what this came of
        self.told = 0  # devices that this turn has told
        self._same = {
            TRACE_ID: self.trace,
            CAUSE_ID: cause,
            TENANT: tenant,
            RULES_VERSION: rules.version if rules is not None else "",
            SCHEMA_VERSION: SCHEMA,
        }

    def known(self) -> dict[str, Any]:
        """Return what is known of the device, empty for an unknown one."""
        return self.state.get(self.key, DEVICE_PART) or {}

    def attributes(self) -> dict[str, dict[str, Any]]:
        """Return the values of each scope."""
        get, key = self.state.get, self.key
        client, shared, server = get(key, _CLIENT), get(key, _SHARED), get(key, _SERVER)
        return {
            "client": client["values"] if client else {},
            "shared": shared["values"] if shared else {},
            "server": server["values"] if server else {},
        }

    def last_telemetry(self) -> dict[str, Any]:
        """Return the device's last values, as far as a chain needs them (`Rules.needs_last`)."""
        part = self.state.get(self.key, TELEMETRY_PART)
        return part["values"] if part else {}

    def relations(self) -> dict[str, dict[str, list[str]]]:
        """Return how the device relates to others: `relations.relations_of`."""
        return relations_of(self.state, self.key)

    def tell(self, device: str, event_id: str, event: Any) -> None:
        """Append an event of another device of the tenant to its log. MessageError: as `emit`."""
        self.emit(DEVICE_EVENTS, event_id, event, key=device_key(self.tenant, device))

    def emit(
        self,
        topic: str,
        event_id: str,
        value: Any,
        partition: int | None = None,
        reply_to: str = "",
        *,
        key: str = "",
    ) -> None:
        """Append a record for this device, or for that of `key`.

        MessageError: it cannot be told in JSON (code `encode`), or is too large (`output_size`).
        """
        encoded = encode(value)
        if len(encoded) > self.work.limits.output_bytes_max:
            raise MessageError(
                f"{len(encoded)} bytes are too much for one record",
                code="output_size",
                limit=self.work.limits.output_bytes_max,
            )
        headers = self._headers(event_id, reply_to)
        self.work.out.append(Outgoing(topic, key or self.key, encoded, headers, partition))

    def request(self, event_id: str, value: Any, reply_to: str = "") -> None:
        """Append a record to `downlink.requested`, on this partition."""
        self.emit(DOWNLINK_REQUESTED, event_id, value, self.work.partition, reply_to)

    def pass_on(self, event_id: str) -> None:
        """Hand the record itself on to `downlink.requested`, with who waits for the answer."""
        headers = self._headers(event_id, self.record.headers.get(REPLY_TO, ""))
        self.work.out.append(
            Outgoing(DOWNLINK_REQUESTED, self.key, self.record.value, headers, self.work.partition)
        )

    def reply(self, event_id: str, status: int, body: Any) -> bool:
        """Answer whoever waits for this record; False: nobody does."""
        to = read_reply_to(self.record.headers.get(REPLY_TO))
        if to is None:
            return False
        answer = Reply(request=to.request, device=self.device, status=status, body=body)
        headers = self._headers(event_id)
        self.work.out.append(Outgoing(REPLY, to.instance, encode(answer), headers, to.partition))
        return True

    def refuse(self, event_id: str, status: int, code: str, message: str) -> bool:
        """Answer with an error; False: nobody waits."""
        return self.reply(event_id, status, {"error": {"code": code, "message": message}})

    def bury(self, fault: MessageError, *, tag: str, record: Record | None = None) -> None:
        """Write a dead letter: of this turn's record, or of `record`."""
        letter = bury(
            record or self.record,
            stage="route",
            reason=fault.code,
            message=fault.message,
            detail=fault.detail,
            now_ms=self.now_ms,
            tag=tag,
            rules=self._same[RULES_VERSION],
        )
        self.work.out.append(letter)
        self.work.buried.append(fault.code)

    def record_of(self, message: DeviceMessage) -> Record:
        """Return a message that came with no record of its own as one, to be buried and replayed.

        It is an event as any other on `device.events`, so a replay can take it up.
        """
        if message.id == self.record.headers.get(EVENT_ID) and self.record.value is not None:
            return self.record
        return Record(
            topic=DEVICE_EVENTS,
            partition=self.work.partition,
            offset=self.record.offset,
            time_ms=self.record.time_ms,
            key=self.key,
            value=encode(message),
            headers=self._headers(message.id),
        )

    def mark(self) -> Mark:
        """Return where things stand."""
        work = self.work
        return (self.state.savepoint(), len(work.out), len(self.pending), len(work.lines))

    def undo(self, mark: Mark) -> None:
        """Take back all that came since the mark; what nodes did is still counted."""
        state, out, pending, lines = mark
        self.state.rollback(state)
        del self.work.out[out:]
        del self.pending[pending:]
        del self.work.lines[lines:]

    def _headers(self, event_id: str, reply_to: str = "") -> dict[str, str]:
        headers = {EVENT_ID: event_id, **self._same}
        if reply_to:
            headers[REPLY_TO] = reply_to
        return headers


def encode(value: Any) -> bytes:
    """Return a value as JSON. MessageError (code `encode`): it cannot be told in JSON."""
    try:
        return _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError(f"cannot be written as JSON: {error}", code="encode") from error
