"""A stage's state as a Faust table: changelogged by Faust, kept by partition in memory.

In come the partitions that Faust assigns, whose changelogs are read here, and each batch's rows
(from the runner); out goes `PartitionState`. Faust's own stores cannot do this: they take the
partition from the event at hand, which a timer that fires has not, and the one in memory keeps
what other workers have deleted since. To Faust this is a store that has its state already, as one
on disk would; it restores only what was written to a changelog since then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

from faust import Table
from faust.stores.base import Store
from faust.types import TP, AppT, EventT

from pipeline.stream.faust_restore import restore
from pipeline.stream.faust_settings import FaustSettings
from pipeline.stream.faust_state import PartitionState
from pipeline.stream.kafka_changes import Change


class StateStore(Store[bytes, bytes]):
    """What a worker has of a stage's state, by partition."""

    def __post_init__(self) -> None:
        """Start empty; Faust calls this."""
        self.data: dict[bytes, bytes] = {}
        self.partitions: dict[int, PartitionState] = {}
        # The last record of each partition's changelog that is in our state.
        self.offsets: dict[int, int] = {}
        self.broken: Exception | None = None

    def partition(self, number: int) -> PartitionState:
        """Return the state of a partition."""
        found = self.partitions.get(number)
        if found is None:
            found = self.partitions[number] = PartitionState()
        return found

    def apply_changelog_batch(
        self,
        batch: Iterable[EventT[Any]],
        to_key: Callable[[Any], bytes],  # noqa: ARG002 - Faust gives them; keys are bytes here.
        to_value: Callable[[Any], bytes],  # noqa: ARG002 - as above.
    ) -> None:
        """Take in records of the changelog while Faust restores.

        Faust logs an error of this function and goes on without the record: it is kept, so that
        the runner refuses to work on such a state.
        """
        for event in batch:
            message = event.message
            try:
                change = Change(message.key or b"", message.value)
                self.partition(message.partition).apply([change])
                self.offsets[message.partition] = message.offset
            except (ValueError, UnicodeError) as error:
                self.broken = error

    def persisted_offset(self, tp: TP) -> int | None:
        """Return the last record of a changelog that is in our state: Faust reads on from there."""
        return self.offsets.get(tp.partition)

    async def on_rebalance(
        self,
        assigned: set[TP],
        revoked: set[TP],
        newly_assigned: set[TP],  # noqa: ARG002 - as Faust calls it.
        generation_id: int = 0,  # noqa: ARG002 - as Faust calls it.
    ) -> None:
        """Forget the partitions that other workers have now; read what is new here.

        ValueError, RetryableError: as `restore`; Faust ends the worker.
        """
        changelog = self.table.changelog_topic.get_topic_name()
        here = {tp.partition for tp in assigned if tp.topic == changelog}
        gone = {tp.partition for tp in revoked if tp.topic == changelog}
        for number in [each for each in self.partitions if each in gone or each not in here]:
            del self.partitions[number]
            self.offsets.pop(number, None)
        table: Any = self.table
        new = sorted(here - self.offsets.keys())
        for number, (state, end) in (await table.read(new)).items():
            self.partitions[number] = state
            self.offsets[number] = end - 1

    def reset_state(self) -> None:
        """Nothing is on disk."""

    async def backup_partition(
        self, tp: TP | int, flush: bool = True, purge: bool = False, keep: int = 1
    ) -> None:
        """Nothing is on disk: the changelog is the copy."""

    def restore_backup(self, tp: TP | int, latest: bool = True, backup_id: int = 0) -> None:
        """Nothing is on disk: the changelog is the copy."""

    def _clear(self) -> None:
        self.partitions.clear()


class StateTable(Table[bytes, bytes]):
    """The table of one stage; `kept` is its store, and `read` restores partitions of it."""

    read: Callable[[Collection[int]], Awaitable[dict[int, tuple[PartitionState, int]]]]

    @property
    def kept(self) -> StateStore:
        """Return the store, which is made when it is first asked for."""
        store = self.data
        assert isinstance(store, StateStore)
        return store

    def _new_store(self) -> StateStore:
        return StateStore(
            "memory://", self.app, self, table_name=self.name, key_type=bytes, value_type=bytes
        )


def add_table(app: AppT, name: str, topic: str, settings: FaustSettings) -> StateTable:
    """Return a new table of the app, whose changelog is `topic`, which must be there."""
    changelog = app.topic(
        topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw",
        internal=True, compacting=True,
    )  # fmt: skip
    table = StateTable(
        app, name=name, key_type=bytes, value_type=bytes, changelog_topic=changelog,
        beacon=app.tables.beacon,
    )  # fmt: skip
    table.read = lambda new: restore(settings.kafka, topic, new, settings.restore_stall_s)
    app.tables.add(table)
    return table
