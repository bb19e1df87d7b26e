"""The ports between rooms: what a stage is, what an engine gives it, how scripts and logs are
reached.

A stage is a pure function of its batch, its state and the time; an engine (`stream/`) commits
what came of it
in one step: outputs, state changes, timers, input offsets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, Protocol

import msgspec

from pipeline.model.record import Outgoing, Record

Load = Callable[[str], dict[str, Any]]
"""Gives the parts of one key from the engine's store: `{part: JSON value}`; empty where there is
none. It may leave out what is aside."""

ASIDE = "!"
"""What the names of parts begin with that are not loaded with their key, but when a stage asks for
them: what is kept for long and seldom looked at. It sorts before all that other parts begin with,
letters."""
PAST_ASIDE = chr(ord(ASIDE) + 1)
"""Where the other parts begin, in order of name."""

LoadAside = Callable[[str, str], dict[str, Any]]
"""Gives those parts of one key that are aside and whose names begin so."""


class DueTimer(msgspec.Struct, frozen=True):
    """A timer that a stage set for `key` and whose time has come. `data` is what the stage gave
    with it.
    """

    key: str
    name: str
    due_ms: int
    data: Any = None


class Batch(msgspec.Struct, frozen=True):
    """What a stage handles in one step: due timers first (in order of `due_ms`), then records by
    offset.
    """

    partition: int
    records: Sequence[Record]
    timers: Sequence[DueTimer] = ()


class DeviceState:
    """What a stage keeps of the keys of one partition: many small parts a key, and timers.

    All parts of a key are loaded when the first is asked for, but for those aside (`ASIDE`): with
    as many keys as a batch has records, what every message loads is what a batch costs.
    Reads see the writes of the same batch. Values are JSON (dict, list, str, int, float, bool,
    None is absence) and
    are never changed in place: a stage puts a new value. Engines read `changes` and
    `timer_changes` at the commit.
    `savepoint` and `rollback` undo what one message did when it ends as a dead letter.
    """

    def __init__(self, load: Load, load_aside: LoadAside = lambda _key, _prefix: {}) -> None:
        self._load = load
        self._load_aside = load_aside
        self._keys: dict[str, dict[str, Any]] = {}
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []
        self.changes: dict[tuple[str, str], Any] = {}
        self.timer_changes: dict[tuple[str, str], tuple[int, Any] | None] = {}

    def _parts(self, key: str) -> dict[str, Any]:
        parts = self._keys.get(key)
        if parts is None:
            parts = self._keys[key] = dict(self._load(key))
        return parts

    def _fetch_aside(self, key: str, prefix: str) -> None:
        parts, changes = self._parts(key), self.changes
        for part, value in self._load_aside(key, prefix).items():
            if (key, part) not in changes:
                parts[part] = value

    def get(self, key: str, part: str) -> Any:
        """Return a part's value, None where there is none."""
        parts = self._keys.get(key)
        if parts is None:
            parts = self._parts(key)
        found = parts.get(part)
        if found is None and part.startswith(ASIDE):
            self._fetch_aside(key, part)
            return parts.get(part)
        return found

    def scan(self, key: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield the parts of a key whose names start with `prefix`, in order of name; without a
        prefix all of them, those aside too.
        """
        parts = self._parts(key)
        if not prefix or prefix.startswith(ASIDE):
            self._fetch_aside(key, prefix or ASIDE)
        for part in sorted(part for part in parts if part.startswith(prefix)):
            yield part, parts[part]

    def put(self, key: str, part: str, value: Any) -> None:
        """Set a part. None deletes it."""
        parts = self._parts(key)
        changes, changed = self.changes, (key, part)
        self._undo.append((parts, part, parts.get(part, _ABSENT)))
        self._undo.append((changes, changed, changes.get(changed, _ABSENT)))
        if value is None:
            parts.pop(part, None)
        else:
            parts[part] = value
        changes[changed] = value

    def delete(self, key: str, part: str) -> None:
        """Remove a part, whether or not it is there."""
        if part in self._parts(key) or part.startswith(ASIDE):
            self.put(key, part, None)

    def set_timer(self, key: str, name: str, due_ms: int, data: Any = None) -> None:
        """Ask to be called for `key` at `due_ms`; a timer of the same name is replaced."""
        self._keep(self.timer_changes, (key, name))
        self.timer_changes[key, name] = (due_ms, data)

    def cancel_timer(self, key: str, name: str) -> None:
        """Take a timer back, whether or not it is set."""
        self._keep(self.timer_changes, (key, name))
        self.timer_changes[key, name] = None

    def savepoint(self) -> int:
        """Return a mark for `rollback`."""
        return len(self._undo)

    def rollback(self, savepoint: int) -> None:
        """Undo all that was put, deleted or timed since the mark."""
        while len(self._undo) > savepoint:
            target, name, before = self._undo.pop()
            if before is _ABSENT:
                target.pop(name, None)
            else:
                target[name] = before

    def _keep(self, target: dict[Any, Any], name: Any) -> None:
        self._undo.append((target, name, target.get(name, _ABSENT)))


_ABSENT = object()


class Stage(Protocol):
    """One step of the flow. `handle` may block on its script engine and on nothing else.

    It must give the same outputs for the same batch, state, rules and `now_ms`; ids are derived
    from their causes.
    A message's own fault is an output (a dead letter), never an exception; an exception is our
    bug and stops the
    worker before the commit. RetryableError: the engine waits and calls again with the same batch.
    """

    @property
    def name(self) -> str:
        """Its name: that of its room, its consumer group and its metrics' label."""
        ...

    @property
    def topic(self) -> str:
        """The one topic that it reads."""
        ...

    @property
    def state_topic(self) -> str | None:
        """The compacted changelog of its state; None: it keeps none."""
        ...

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        """Return what to append. `now_ms` never goes back within a partition."""
        ...


class Script(msgspec.Struct, frozen=True, gc=False):
    """A user's script. `path` is how errors name it; equal `source` and `language` share compiled
    code. Of language `codec`, the source is the configuration of a codec that needs no script.
    """

    path: str
    language: Literal["javascript", "lua", "tbel", "codec"]
    source: str


Operation = Literal[
    "decode_uplink", "encode_downlink", "decode_downlink", "normalize_uplink", "handle_message"
]
Contract = Literal["lorawan", "thingsboard"]
"""Which arguments a `Decoder`/`Encoder` takes; scripts with `decodeUplink`… are told by those
names."""


class ScriptCall(msgspec.Struct, frozen=True):
    """One call of a script.

    Arguments of contract `lorawan`:
      decode_uplink, decode_downlink: `{"bytes": base64, "fPort": int, "recvTime": RFC 3339 or
      epoch milliseconds, "variables": {}}`
      encode_downlink: `{"data": {}, "fPort": int | None, "variables": {}}`
      normalize_uplink: `{"data": {}}`
    of either contract:
      handle_message: `{"telemetry": {}, "metadata": {}, "type": str, "msgType": str, …}`: a message
      in a rule chain; a script that is a body sees `msg` (the telemetry), `metadata`, `msgType`
    of contract `thingsboard`:
      decode_uplink: `{"payload": base64, "metadata": {}}`
      encode_downlink: `{"msg": {}, "metadata": {}, "msgType": str, "integrationMetadata": {}}`
    """

    tenant: str
    script: Script
    operation: Operation
    argument: dict[str, Any]
    contract: Contract = "lorawan"


class ScriptPort(Protocol):
    """Runs scripts in batches, outside this process."""

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Return one result a call, in order: the value, or the ScriptError (returned, not raised).

        Values of contract `lorawan`: decode → `{"data": {...}, "warnings": [str]}`; of an uplink,
        where the script has a normalizer, also `"normalized": {"data": [...], "warnings": [...]}`;
        encode → `{"bytes": [int], "fPort": int | None, "warnings": [str]}`. A script's own
        `errors` are a ScriptError
        of code `script_errors`. Of `thingsboard`, and of handle_message: whatever the script
        returned. Codes:
        `script_threw`, `script_time`,
        `script_memory`, `script_result`, `script_syntax`, `script_missing` (no such function),
        `script_crashed`.
        Blocks for at most the sum of the calls' time limits and a margin. One bad call never
        touches another's result.
        """
        ...

    def close(self) -> None:
        """End the child processes."""
        ...


class Log(Protocol):
    """A log as the edges (ingest, sink) use it from asyncio."""

    async def append(self, records: Sequence[Outgoing]) -> None:
        """Return when all records are durable, in one step. StorageFullError: nothing was
        written.
        """
        ...

    def read(
        self, topic: str, group: str, *, from_end: bool = False, partition: int | None = None
    ) -> Reader:
        """Return a reader at the group's committed position (new group: the earliest, or the
        end). `partition`: of this one alone, which is then not shared with the group's others.
        """
        ...

    def partition_of(self, topic: str, key: str) -> int:
        """Return the partition that records of this key go to."""
        ...


class Holder(Protocol):
    """Whoever works on what a Reader gave, while partitions move between a group's members."""

    async def release(self) -> None:
        """Start nothing more, and return when all that is under way is done and committed.

        Called before partitions may go to other members; whoever takes too long is not waited for.
        """
        ...

    def hold(self, partitions: Collection[int]) -> None:
        """Go on with what was read of these partitions. Forget what was read of any other: its
        new owner, or this reader once more, reads it again from the committed position.
        """
        ...


class Reader(Protocol):
    """Reads one topic for one consumer group."""

    async def opened(self) -> None:
        """Return when the reader stands at its position: with `from_end`, whatever is appended
        from now on is read. RetryableError: the log cannot be reached.
        """
        ...

    def watch(self, holder: Holder) -> None:
        """Tell `holder` when partitions come and go. Where they never do it is never told."""
        ...

    def batches(self, records_max: int) -> AsyncIterator[Sequence[Record]]:
        """Yield non-empty batches, waiting for new records; ends when the log closes. Each
        partition's records are in order.
        """
        ...

    async def commit(
        self, offset: int | Mapping[int, int], records: Sequence[Outgoing] = ()
    ) -> None:
        """Append `records` and move the group's position past `offset` (of partition 0, or by
        partition), in one step where the engine can.
        """
        ...

    async def close(self) -> None:
        """Stop reading; the position stays."""
        ...


class Lease(Protocol):
    """What must run in one place is ours to run, for now. For one event loop."""

    @property
    def valid(self) -> bool:
        """Whether it is still ours, as far as can be told without asking anybody. Once it is not,
        it never is again.
        """
        ...

    async def lost(self) -> None:
        """Return when it is not ours any more; never, while it is."""
        ...

    async def cursor(self) -> Any:
        """Return the cursor that was appended last, by whoever had the lease then; None: none
        was. RetryableError: not known now.
        """
        ...

    async def append(self, records: Sequence[Outgoing], cursor: Any) -> None:
        """Append records and a cursor (JSON) in one step: all of it is durable, or none.

        LeaseLostError: another worker has the lease, nothing was written. RetryableError: not
        now; called again with the same, it writes nothing twice.
        """
        ...


class Leases(Protocol):
    """Who of all workers may do what only one may do at a time."""

    def hold(self, name: str) -> AbstractAsyncContextManager[Lease]:
        """Wait until the lease of a name is ours, however long. Inside the block it is, until
        `Lease.lost` returns; leaving the block says that nothing of it runs here any more, for
        which the next owner waits.
        """
        ...

    @property
    def trouble(self) -> str:
        """Why nobody can tell now whose the leases are; empty: it can be told."""
        ...

    def owner(self, name: str) -> str:
        """Return which worker has it, as far as was seen; empty: not seen."""
        ...

    async def close(self) -> None:
        """Let others have all leases. May be called twice."""
        ...
