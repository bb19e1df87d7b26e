"""The limits of the stages on Kafka; an operator may set each of them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.stream.settings import MIB, EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaEngineSettings(EngineSettings):
    """Limits of the stages on Kafka, beside those of every engine.

    `worker` and `slot` say who this process is: the id of its transactions is made of them, so
    that a worker that comes back ends at once what it left open. `slot` None: the first in the
    state folder that no other process holds. `worker` empty: a name that is made up once and kept
    in the slot's folder; where that folder does not outlive the process (a container without a
    volume), say one that does, and that no other machine has.
    """

    worker: str = ""
    slot: int | None = None
    slots_max: int = 256
    # A worker that is not heard of for this long loses its partitions. The heartbeats are sent by
    # a thread of librdkafka, which no script can hold up; 6 s is the least that brokers allow.
    session_timeout_s: float = 6.0
    # A worker whose stage handles one batch for longer than this loses its partitions.
    poll_interval_max_s: float = 300.0
    # What a killed worker left open holds up readers for no longer than this and the broker's own
    # interval (`transaction.abort.timed.out.transaction.cleanup.interval.ms`, 10 s by default).
    transaction_timeout_s: float = 5.0
    # How long a call to the cluster may take while nothing is at stake.
    call_timeout_s: float = 10.0
    # Records that wait in memory to be read, a stage; and of one fetch of them, about. What is
    # fetched holds several times as much: with 4 MiB a worker took 35 MB more, and was no faster.
    prefetch_bytes: int = 2 * MIB
    # How long a stage sleeps when there is nothing to do, before it looks at its orders again.
    poll_s: float = 0.1
    restore_records_max: int = 10_000
    restore_say_every_s: float = 5.0
    lag_every_s: float = 1.0
    # Memory of one partition's store for what is not yet on disk.
    store_buffer_bytes: int = 2 * MIB
    # Fenced so often within a minute: two workers have the same name and slot.
    fenced_max: int = 5
