"""What the log knows by heart: its topics, and how far every consumer group has come.

The committer writes it, in the same transaction as the rows, and publishes it after the commit;
everybody reads it without a query. Who waits for a topic is woken from here.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pipeline.errors import UsageError
from pipeline.stream.writeset import Move


class Topic(NamedTuple):
    """A row of the table of topics. `first` is the first offset that is not deleted."""

    id: int
    name: str
    first: int
    next: int
    bytes: int


class Position(NamedTuple):
    """A row of the table of positions."""

    move: Move
    time_ms: int


class Catalogue:
    """Topics and positions, as committed. Its methods may be called from any thread."""

    def __init__(self, connection: sqlite3.Connection, topics_max: int) -> None:
        self._topics_max = topics_max
        self._lock = threading.Condition()
        self._topics = {
            row[1]: Topic(*row)
            for row in connection.execute("SELECT id, name, first, next, bytes FROM topic")
        }
        self._positions: dict[tuple[str, str], Position] = {}
        for topic, group, next_offset, now_ms, from_end, time_ms in connection.execute(
            "SELECT topic, reader, next, now_ms, from_end, time_ms FROM position"
        ):
            move = Move(topic, group, next_offset, now_ms, bool(from_end))
            self._positions[topic, group] = Position(move, time_ms)
        self._open: dict[tuple[str, str], int] = {}
        self._listeners: dict[str, tuple[Callable[[], None], ...]] = {}

    def topic(self, name: str) -> Topic | None:
        """Return a topic, None where nothing was ever appended."""
        return self._topics.get(name)

    def topics(self) -> list[Topic]:
        """Return all topics."""
        with self._lock:
            return list(self._topics.values())

    def end(self, name: str) -> int:
        """Return the offset that the next record will have."""
        topic = self._topics.get(name)
        return 0 if topic is None else topic.next

    def position(self, topic: str, group: str) -> Move | None:
        """Return where a group stands, None where it is not known."""
        found = self._positions.get((topic, group))
        return None if found is None else found.move

    def positions(self) -> list[Position]:
        """Return where all groups stand."""
        with self._lock:
            return list(self._positions.values())

    def register(self, move: Move, time_ms: int) -> Move:
        """Make a group known from now on, so that retention keeps what it has not read.

        Returns where it stands: a group that is known already stays where it is.
        """
        with self._lock:
            known = self._positions.get(move[:2])
            if known is not None:
                move = known.move._replace(from_end=known.move.from_end and move.from_end)
            self._positions[move[:2]] = Position(move, time_ms)
            return move

    def opened(self, topic: str, group: str, readers: int) -> None:
        """Count the readers of a group: +1 when one is opened, -1 when it is closed."""
        with self._lock:
            now_open = self._open.pop((topic, group), 0) + readers
            if now_open:
                self._open[topic, group] = now_open

    def forget(self, groups: Iterable[tuple[str, str]]) -> None:
        """Drop groups that were removed."""
        with self._lock:
            for group in groups:
                self._positions.pop(group, None)

    def abandoned(self, before_ms: int) -> list[tuple[str, str]]:
        """Return the groups that began at the end, are read by nobody, and are as old."""
        with self._lock:
            return [
                group
                for group, (move, time_ms) in self._positions.items()
                if move.from_end and time_ms < before_ms and not self._open.get(group)
            ]

    def needed(self) -> dict[str, int]:
        """Return the first offset that some group still needs, of each topic that has groups.

        A group that began at the end counts only while it is open: nobody comes back for it.
        """
        found: dict[str, int] = {}
        with self._lock:
            for group, (move, _) in self._positions.items():
                if not move.from_end or self._open.get(group):
                    found[move.topic] = min(move.next, found.get(move.topic, move.next))
        return found

    def lag(self) -> dict[tuple[str, str], int]:
        """Return how many records wait, for groups that somebody reads."""
        with self._lock:
            return {
                group: self._waiting(group[0], move.next)
                for group, (move, _) in self._positions.items()
                if not move.from_end or self._open.get(group)
            }

    def _waiting(self, name: str, position: int) -> int:
        topic = self._topics.get(name)
        return 0 if topic is None else max(0, topic.next - max(position, topic.first))

    def check_room(self, name: str) -> None:
        """Raise UsageError where there are too many topics for a new one."""
        if len(self._topics) >= self._topics_max:
            raise UsageError(
                f"The log has {len(self._topics)} topics; raise topics_max to add {name}"
            )

    def topic_to_write(self, name: str, coming: Sequence[Topic]) -> Topic:
        """Return a topic to append to; where there is none, a new one after those `coming`."""
        found = self._topics.get(name)
        if found is not None:
            return found
        fresh = sum(topic.name not in self._topics for topic in coming)
        number = max((topic.id for topic in self._topics.values()), default=0) + fresh + 1
        return Topic(number, name, 0, 0, 0)

    def settle(self, move: Move) -> Move:
        """Return a move as it is to be written: neither position nor time go back."""
        known = self._positions.get(move[:2])
        if known is None:
            return move
        return move._replace(
            next=max(move.next, known.move.next),
            now_ms=max(move.now_ms, known.move.now_ms),
            from_end=known.move.from_end,
        )

    def publish(self, topics: Sequence[Topic], moves: Sequence[Move], time_ms: int) -> None:
        """Let all see what was committed, in one step, then wake those who listen."""
        with self._lock:
            for topic in topics:
                self._topics[topic.name] = topic
            for move in moves:
                self._positions[move[:2]] = Position(move, time_ms)
            self._lock.notify_all()
        for topic in topics:
            for wake in self._listeners.get(topic.name, ()):
                wake()

    def tell(self) -> None:
        """Have those in `wait` look again."""
        with self._lock:
            self._lock.notify_all()

    def wait(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Block until `ready()` is true after some commit, or the time is over."""
        with self._lock:
            return self._lock.wait_for(ready, timeout_s)

    def listen(self, topic: str, wake: Callable[[], None]) -> None:
        """Have `wake` called, in the committer's thread, when a topic grew. It must not block."""
        with self._lock:
            self._listeners[topic] = (*self._listeners.get(topic, ()), wake)

    def unlisten(self, topic: str, wake: Callable[[], None]) -> None:
        """Undo `listen`."""
        with self._lock:
            left = tuple(known for known in self._listeners.pop(topic, ()) if known != wake)
            if left:
                self._listeners[topic] = left
