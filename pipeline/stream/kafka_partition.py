"""One partition that a stage of this process has: what waits there, its state, its time."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from pipeline.model.record import Record
from pipeline.ports import DueTimer
from pipeline.stream.kafka_store import NEVER, PartitionStore

# What a record takes beside its key and value, about.
_RECORD_BYTES = 200


class Phase(enum.Enum):
    """NEW: its place in the topic is to be read; RESTORING: its state comes; READY: it works;
    HELD: it could, but newer rules than ours made its state.
    """

    NEW = enum.auto()
    RESTORING = enum.auto()
    READY = enum.auto()
    HELD = enum.auto()


class Portion(NamedTuple):
    """What is to be handled next. `taken` of what waits: `records`, and what is `misplaced`."""

    records: Sequence[Record]
    misplaced: Sequence[Record]
    timers: Sequence[DueTimer]
    taken: int
    size: int


class Metadata(msgspec.Struct, frozen=True):
    """What is kept beside a partition's offset: its time, which never goes back, and how far the
    topic `rules` was in force for who wrote it (0: its rules are not from there).
    """

    now_ms: int = 0
    rules: int = 0


_read_metadata = msgspec.json.Decoder(Metadata).decode
_write_metadata = msgspec.json.Encoder().encode


class Partition:
    """One partition. The stage's thread uses it."""

    __slots__ = (
        "alone", "end", "floor", "misplaced", "next", "now_ms", "number", "opened", "oversize",
        "paused", "phase", "rules", "store", "stray", "waiting",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.phase = Phase.NEW
        self.paused = True
        self.opened = False  # whether it was ever READY
        self.stray = False  # whether a record came before that: the reader is to be set back
        self.store: PartitionStore | None = None
        self.waiting: list[Record] = []
        self.misplaced: set[int] = set()  # offsets among those that wait
        self.now_ms = 0
        self.rules = 0
        self.next: int | None = None  # what is committed; None: nothing yet
        self.floor = 0  # records before this offset were read already
        self.end = -1  # the topic's end, as last seen
        self.alone = 0  # so many records are to be handled one by one
        self.oversize = 0  # how often what comes first was too large to commit

    @property
    def position(self) -> int:
        """The offset before which all is handled, or is nothing for a reader."""
        return max(self.next or 0, -1 if self.waiting else self.end)

    @property
    def metadata(self) -> str:
        """What to keep beside the offset."""
        return _write_metadata(Metadata(self.now_ms, self.rules)).decode()

    @property
    def next_due_ms(self) -> int:
        """When its next timer is due."""
        return NEVER if self.store is None else self.store.next_due_ms

    def locate(self, committed: int | None, metadata: str | None) -> None:
        """Take in what the group has committed; forget what was read before that."""
        try:
            kept = _read_metadata(metadata or "{}")
        except msgspec.MsgspecError:
            kept = Metadata()  # whoever moved the group's offset by hand wrote none of ours
        self.now_ms = max(self.now_ms, kept.now_ms)
        self.rules = kept.rules
        self.next = committed
        if committed is not None:
            self.floor = max(self.floor, committed)
            before = sum(record.offset < committed for record in self.waiting)
            self.taken(before)

    def ready(self) -> None:
        """Let it work: its place is known and its state is here."""
        self.phase = Phase.READY
        self.opened = True

    def hold(self, rules: int) -> bool:
        """Have it wait while `rules`, our place in their topic, is before that of its state; tell
        whether that is news.
        """
        held = self.rules > rules
        if held is (self.phase is Phase.HELD):
            return False
        self.phase = Phase.HELD if held else Phase.READY
        return True

    def take(self, record: Record, *, misplaced: bool) -> None:
        """Take in a record that was read.

        Before the partition was opened it is none of ours: it was on its way when the partition
        went, and came back.
        """
        if not self.opened:
            self.stray = True
            return
        if record.offset < self.floor:
            return
        self.floor = record.offset + 1
        self.waiting.append(record)
        if misplaced:
            self.misplaced.add(record.offset)

    def portion(self, bytes_max: int, records_max: int, timers: Sequence[DueTimer]) -> Portion:
        """Return what to handle next: as much as fits, one record or timer at the least."""
        count = size = 0
        if records_max and not (self.alone and timers):
            most = 1 if self.alone else records_max
            for record in self.waiting[:most]:
                size += len(record.value or b"") + len(record.key) + _RECORD_BYTES
                if size > bytes_max and count:
                    break
                count += 1
        if self.alone:
            timers = timers[:1]
        found = self.waiting[:count]
        if not self.misplaced:
            return Portion(found, (), timers, count, size)
        return Portion(
            [record for record in found if record.offset not in self.misplaced],
            [record for record in found if record.offset in self.misplaced],
            timers,
            count,
            size,
        )

    def taken(self, count: int) -> None:
        """Forget so many of what waits: they are committed."""
        if self.misplaced:
            self.misplaced -= {record.offset for record in self.waiting[:count]}
        del self.waiting[:count]
        self.alone = max(0, self.alone - count)
