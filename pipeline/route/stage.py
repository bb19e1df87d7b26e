"""The stage: events of devices on `device.events` go through the tenant's chains.

In: records of `device.events`, due timers, the devices' state (`device.state`). Out: downlinks
asked for and reply windows on `downlink.requested`, deliveries, answers on `reply`, dead letters.
What a message does is kept apart by chain: one that fails leaves no trace but its dead letter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, ClassVar

import msgspec

from pipeline.errors import MessageError
from pipeline.metrics import Registry
from pipeline.model.event import (
    AttributesChange,
    CallEnded,
    Cancel,
    DeviceCall,
    DeviceEvent,
    DeviceMessage,
    DownlinkCommand,
    DownlinkReport,
    DownlinksCommand,
    Forget,
    Query,
    RelationChange,
    ReplyWindow,
    WindowOpened,
)
from pipeline.model.record import (
    EVENT_ID,
    REPEAT_ALSO,
    REPEAT_KEY,
    REPLAY,
    REPLAY_CHAIN,
    REPLY_TO,
    TENANT,
    TRACE_ID,
    Outgoing,
    Record,
    derive_id,
    device_key,
    split_key,
)
from pipeline.ports import Batch, DeviceState, DueTimer, ScriptPort
from pipeline.route import attributes, commands, device, device_calls, told, waits
from pipeline.route.chain import Rules, Watch
from pipeline.route.limits import Limits
from pipeline.route.repeats import is_repeat
from pipeline.route.resume import Place, resume
from pipeline.route.rounds import Doing, take_all
from pipeline.route.runner import cascade, enter
from pipeline.route.turn import LogLine, Turn, Work, encode
from pipeline.route.visit import CALL_PREFIX, CALLS_PART, TIMER_PREFIX
from pipeline.rulebook.book import Rulebook, Rulebooks
from pipeline.topics import DEVICE_EVENTS, DEVICE_STATE

_decode = msgspec.json.Decoder(DeviceEvent).decode
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NODE_TIMER = "node/"


def no_log(_lines: Sequence[LogLine]) -> None:
    """Take no notice of what `log` nodes say."""


class Route:
    """See the module. `log` gets what `log` nodes said, once a batch, before it is committed."""

    name: ClassVar[str] = "route"
    topic: ClassVar[str] = DEVICE_EVENTS
    state_topic: ClassVar[str | None] = DEVICE_STATE

    def __init__(
        self,
        rulebooks: Rulebooks,
        metrics: Registry,
        *,
        log: Callable[[Sequence[LogLine]], None] = no_log,
        limits: Limits | None = None,
        watch: Watch | None = None,
        scripts: ScriptPort | None = None,
    ) -> None:
        """`scripts` runs the scripts of chains; without it their nodes fail."""
        self._rulebooks = rulebooks
        self._metrics = metrics
        self._log = log
        self._limits = limits or Limits()
        self._watch = watch
        self._scripts = scripts
        self._compiled: dict[str, tuple[Rulebook, Rules]] = {}

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        """Return what to append: see `ports.Stage`. Blocks on scripts alone."""
        books = self._rulebooks()
        work = Work(state, batch.partition, now_ms, self._limits, self._scripts)
        fire, take = partial(self._fire, work, books), partial(self._take, work, books)
        doings: list[Doing] = [(fire, timer, None) for timer in batch.timers]
        doings += [(take, record, None) for record in batch.records]
        take_all(work, doings)
        self._count(work)
        return work.out

    def _take(self, work: Work, books: Mapping[str, Rulebook], record: Record) -> None:
        try:
            event = _decode(record.value or b"")
            if device_key(event.tenant, event.device) != record.key:
                raise MessageError(f"the key `{record.key}` is not the event's device", code="key")
        except (*_UNDECODABLE, MessageError) as error:
            self._refuse_record(work, record, error)
            return
        rules = self._rules(books, event.tenant)
        if rules is not None and rules.scripted:
            work.begin()
        turn = Turn(work, record, rules, tenant=event.tenant, device=event.device, cause=event.id)
        if type(event) is DeviceMessage:
            self._take_message(turn, event, books.get(event.tenant))
        elif rules is None:
            text = f"there are no rules for the tenant `{event.tenant}`"
            turn.refuse(derive_id(event.id, "route-answer"), 404, "no_rules", text)
            turn.bury(MessageError(text, code="no_rules"), tag="rules")
        elif isinstance(event, AttributesChange):
            commands.change_attributes(turn, event)
            cascade(turn)
        else:
            _COMMANDS[type(event)](turn, event)

    def _take_message(self, turn: Turn, event: DeviceMessage, book: Rulebook | None) -> None:
        headers = turn.record.headers
        replayed = REPLAY in headers
        repeated = False
        if book is None or turn.rules is None:
            text = f"there are no rules for the tenant `{event.tenant}`"
            turn.bury(MessageError(text, code="no_rules"), tag="rules")
        else:
            repeat = headers.get(REPEAT_KEY)
            integration = book.integrations.get(event.integration)
            window_s = integration.dialect.repeat_window_s if integration else 0
            repeated = bool(
                repeat and window_s and not replayed and self._repeats(turn, repeat, window_s)
            )
            if not repeated:
                self._run(turn, event, turn.rules, headers.get(REPLAY_CHAIN) if replayed else None)
        # A replay's request was answered, or gave up, long ago.
        if event.window is not None and REPLY_TO in headers and not replayed:
            window = ReplyWindow(
                id=derive_id(event.id, "window"),
                tenant=event.tenant,
                device=event.device,
                integration=event.integration,
                time_ms=event.time_ms,
                window=event.window,
                repeated=repeated,
            )
            turn.request(window.id, window, headers[REPLY_TO])

    def _repeats(self, turn: Turn, repeat: str, window_s: int) -> bool:
        repeated = self._is_repeat(turn, repeat, window_s)
        also = turn.record.headers.get(REPEAT_ALSO)
        # The second key is remembered of a repeat too: a copy of that one has nothing else.
        return self._is_repeat(turn, also, window_s) or repeated if also else repeated

    def _is_repeat(self, turn: Turn, repeat: str, window_s: int) -> bool:
        return is_repeat(
            turn.state,
            turn.key,
            repeat,
            trace=turn.trace,
            time_ms=turn.record.time_ms,
            window_ms=window_s * 1_000,
            limits=self._limits,
        )

    def _run(self, turn: Turn, event: DeviceMessage, rules: Rules, only_chain: str | None) -> None:
        """Let a message of a device have its effects: on its state, then through the chains."""
        if event.teller:
            told.take_told(turn, event, only_chain)
            return
        if only_chain is not None:
            chain = rules.chains.get(only_chain)
            if chain is None:
                text = f"there is no chain `{only_chain}` any more"
                turn.bury(MessageError(text, code="chain_gone", chain=only_chain), tag="replay")
                return
            enter(turn, chain, event)
            cascade(turn)
            return
        device.note(turn.state, turn.key, event)
        mark = turn.mark()
        device_type = event.device_type or turn.known().get("type", "")
        try:
            self._note(turn, event, rules, device_type)
        except MessageError as fault:
            turn.undo(mark)
            turn.bury(fault, tag="message")
            return
        for chain in rules.matching(event.type, event.integration, device_type):
            enter(turn, chain, event)
        if turn.pending:
            cascade(turn)
        if turn.state.get(turn.key, CALLS_PART) is not None:
            waits.heard(turn, event)

    def _note(self, turn: Turn, event: DeviceMessage, rules: Rules, device_type: str) -> None:
        """Keep the values that a message brings, so that its chains see them."""
        if event.attributes:
            # Chains see these in this message; they are not told of them by another one.
            attributes.change(
                turn.state,
                turn.key,
                "client",
                event.attributes,
                time_ms=min(event.time_ms, event.received_ms),
                bytes_max=self._limits.attributes_bytes_max,
            )
        if event.telemetry and rules.needs_last(event.integration, device_type):
            device.note_telemetry(turn.state, turn.key, event, self._limits.telemetry_keys_max)

    def _fire(self, work: Work, books: Mapping[str, Rulebook], timer: DueTimer) -> None:
        """Go on with a message where a node's timer left it."""
        work.begin()
        work.state.delete(timer.key, TIMER_PREFIX + timer.name)
        tenant, name = split_key(timer.key)
        position = timer.data
        if timer.name.startswith(CALL_PREFIX):
            record = _record_of_timer(timer, encode(position), "", work.partition)
            record.headers[TRACE_ID] = position["trace"]
            rules = self._rules(books, tenant)
            cause = record.headers[EVENT_ID]
            turn = Turn(work, record, rules, tenant=tenant, device=name, cause=cause)
            waits.timed_out(turn, timer.name, timer.due_ms)
            return
        try:
            if not timer.name.startswith(_NODE_TIMER):
                raise MessageError(f"the timer `{timer.name}` is no node's", code="timer")
            message = msgspec.convert(position["message"], DeviceMessage)
        except (msgspec.ValidationError, TypeError, KeyError, MessageError) as error:
            record = _record_of_timer(timer, encode(position), "", work.partition)
            self._refuse_record(work, record, error)
            return
        record = _record_of_timer(timer, encode(message), message.id, work.partition)
        record.headers[TRACE_ID] = position["trace"]
        rules = self._rules(books, tenant)
        turn = Turn(work, record, rules, tenant=tenant, device=name, cause=message.id)
        place = Place(position["chain"], position["node"], position["rules"])
        data = position["data"]
        resume(
            turn,
            place,
            message,
            lambda node, visit: node.apply_timer(visit, data),
            tag=_timer_tag(timer),
            time_ms=timer.due_ms,
        )

    def _refuse_record(self, work: Work, record: Record, error: Exception) -> None:
        """Bury a record that is no event, and let nobody wait for it."""
        tenant, name = split_key(record.key)
        turn = Turn(
            work, record, None, tenant=tenant, device=name, cause=record.headers.get(EVENT_ID, "")
        )
        code = error.code if isinstance(error, MessageError) else "undecodable"
        text = str(error) or type(error).__name__
        turn.bury(MessageError(text, code=code), tag="event")
        reply_id = derive_id(record.headers.get(EVENT_ID) or f"{record.topic}-{record.offset}", "a")
        turn.refuse(reply_id, 400, code, text)

    def _rules(self, books: Mapping[str, Rulebook], tenant: str) -> Rules | None:
        """Return a tenant's chains, compiled once a version."""
        book = books.get(tenant)
        if book is None:
            self._compiled.pop(tenant, None)
            return None
        compiled = self._compiled.get(tenant)
        if compiled is None or compiled[0] is not book:
            configs = (entry.config for entry in book.chains.values())
            compiled = self._compiled[tenant] = (
                book,
                Rules(tenant, book.version, configs, self._watch),
            )
        return compiled[1]

    def _count(self, work: Work) -> None:
        for edge, count in Counter(work.fired).items():
            self._metrics.add(
                "funicular_rule_nodes_total",
                count,
                tenant=edge.tenant,
                chain=edge.chain,
                node=edge.node,
                outlet=edge.outlet,
            )
        for reason, count in Counter(work.buried).items():
            self._metrics.add("funicular_dead_letters_total", count, stage=self.name, reason=reason)
        lines = work.lines
        if not lines:
            return
        lines_max = self._limits.log_lines_max
        if len(lines) > lines_max:
            more = f"{len(lines) - lines_max} more lines of `log` nodes were left out"
            lines[lines_max:] = [LogLine("warning", more, "", "", "", "", "")]
        self._log(lines)


_COMMANDS: dict[type, Callable[[Turn, Any], None]] = {
    Query: commands.answer,
    DeviceCall: device_calls.call,
    DownlinkCommand: commands.command,
    DownlinksCommand: commands.several,
    Cancel: commands.cancel,
    DownlinkReport: waits.report,
    Forget: told.forget,
    RelationChange: told.change_relation,
    CallEnded: waits.call_ended,
    WindowOpened: commands.open_window,
}


def _timer_tag(timer: DueTimer) -> str:
    """Return what tells apart all that one timer causes from what its message caused before."""
    one = f"{timer.name}@{timer.due_ms}".encode()
    return f"t{blake2b(one, digest_size=8).hexdigest()}"


def _record_of_timer(timer: DueTimer, value: bytes, event_id: str, partition: int) -> Record:
    """Return what a timer stands for as a record: the message that waited."""
    tenant, _ = split_key(timer.key)
    return Record(
        topic=DEVICE_EVENTS,
        partition=partition,
        offset=-1,
        time_ms=timer.due_ms,
        key=timer.key,
        value=value,
        headers={EVENT_ID: event_id or f"{timer.key}-{timer.due_ms}", TENANT: tenant},
    )
