"""What an operator sets of the door: where it listens, and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CALL_TIMEOUT_MAX_S = 300.0


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """Sizes are bytes, times seconds. An integration sets its own limit of a body and its own
    deadline.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    """0: any free port."""
    keys_file: Path | None = None
    """The API's keys (`keys.KeyStore`); None: there are none."""

    connections_max: int = 10_000
    """One more is answered 503 and closed."""
    backlog: int = 1_024
    header_bytes_max: int = 8_190
    """Of the request line, and of each header; more is answered 431."""
    headers_max: int = 100
    keepalive_timeout_s: float = 60.0
    """From a connection's begin, or its last answer, to the end of the next request's headers."""
    body_timeout_s: float = 10.0
    """For the whole body, however slowly it comes; then 408."""
    bodies_bytes_max: int = 256 * 1024 * 1024
    """Of all bodies that are being read at one time; then 503. Without it, slow clients could
    take connections_max times an integration's limit."""
    linger_s: float = 2.0
    """How long a body that was refused is read and thrown away, so that the client sees why."""
    answer_write_timeout_s: float = 5.0
    """For an answer to leave; a client that does not read it by then did not get it."""

    waiting_max: int = 10_000
    """Requests that wait for an answer from the stages; one more is answered 503."""
    reports_max: int = 20_000
    """Reports of answers that are not yet stored; synchronous requests then get 503."""
    reply_batch_max: int = 1_000
    reply_commit_s: float = 5.0
    """How often the position in `reply` is stored. Nobody reads on from it; it lets retention
    delete."""
    retry_after_s: float = 5.0
    """What a 503 tells the client, where the cause does not say it."""

    api_body_bytes_max: int = 256 * 1024
    api_timeout_s: float = 5.0
    """How long a command waits for the owner of its device; then 504."""
    call_timeout_max_s: float = CALL_TIMEOUT_MAX_S
    """How long an application's call of a device may wait for its reply."""

    worker: str = ""
    """Tells this process from others where a source must (MQTT's shared subscriptions)."""
    source_batch_max: int = 500
    """Messages of one source that are stored in one step."""
    source_pause_s: float = 0.5
    """Before a lost connection is made again; doubled at each try."""
    source_pause_s_max: float = 60.0
    source_steady_s: float = 60.0
    """A connection that held so long begins anew with the short pause."""

    metrics_interval_s: float = 1.0
    stop_timeout_s: float = 10.0
    """For those who wait, and for the last reports, when the door closes."""
