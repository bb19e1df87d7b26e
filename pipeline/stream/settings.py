"""The limits of the embedded log and of the engine; an operator may set each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MIB = 1024 * 1024
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Limits of the embedded log.

    `log_bytes_max`: from here on appends get StorageFullError; what stages and sinks commit may
    use `reserve_bytes` more, so that they can work off what is there. `disk_free_bytes_min` is
    left free for the same purpose. `retention_s` overrides the table of topics, by topic name
    (a delivery topic may also be named by its prefix).
    """

    log_bytes_max: int = 16 * GIB
    reserve_bytes: int = 2 * GIB
    disk_free_bytes_min: int = 128 * MIB
    topic_bytes_max: int = 4 * GIB
    retention_s: Mapping[str, float] = field(default_factory=dict)
    topics_max: int = 10_000
    record_bytes_max: int = 64 * MIB
    # Appends that wait for the committer; the next ones wait outside.
    queue_bytes_max: int = 64 * MIB
    # One transaction takes no more than this of what waits.
    commit_records_max: int = 20_000
    commit_bytes_max: int = 32 * MIB
    # Records that are committed together share a row of at most this size.
    row_records_max: int = 1_000
    row_bytes_max: int = 1 * MIB
    read_bytes_max: int = 8 * MIB
    # Connections that serve the readers in asyncio.
    read_threads: int = 2
    # The write-ahead log is folded into the file at this many pages of 4 KiB.
    checkpoint_pages: int = 2_000
    upkeep_every_s: float = 1.0
    # A step of retention deletes no more than this, so that commits in between do not wait long.
    retention_rows_max: int = 200
    retention_bytes_max: int = 8 * MIB
    # A position that was begun at the end (`from_end`) is forgotten when unused for this long.
    abandoned_s: float = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Limits of the stages on an engine."""

    records_max: int = 1_000
    bytes_max: int = 4 * MIB
    timers_max: int = 1_000
    # State that is kept in memory, a stage: its JSON, and what Python needs around it.
    state_keys_max: int = 50_000
    state_bytes_max: int = 16 * MIB
    # Waits between tries of a batch whose handling, or commit, met a fault of the world.
    retry_first_s: float = 0.1
    retry_max_s: float = 15.0
    # A jump of the wall clock is noticed after at most this, where timers wait.
    timer_poll_s: float = 1.0
