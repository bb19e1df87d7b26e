"""What an operator sets for the sinks of a worker: the limits, each with its default."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.sink.addresses import Network, Outward
from pipeline.sink.retry import RetryConfig


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """Limits are per destination, so that one that is slow costs a known amount of memory."""

    folder: Path = field(default_factory=Path)
    """Where relative paths of `file` sinks begin."""
    read_records_max: int = 1_000
    """Records of one read; the log bounds its bytes."""
    waiting_records_max: int = 5_000
    """Records that are read and not committed; no more are read while there are as many."""
    waiting_bytes_max: int = 32 << 20
    """Likewise, by the size of their values."""
    commit_interval_s: float = 0.2
    """Positions are committed at most so often; outcomes of downlinks do not wait for it."""
    retry_after_s_max: float = 3_600.0
    """The longest wait that a destination can ask for."""
    stop_timeout_s: float = 10.0
    """How long a destination that the rules changed may finish what is in flight."""
    downlink_timeout_s: float = 10.0
    """Time for one request to a network server, its answer's body included."""
    downlink_concurrency: int = 4
    """Requests in flight to one network server; each is of another device."""
    downlink_retry: RetryConfig = field(default_factory=RetryConfig)
    """How network servers are tried again; a downlink's own expiry ends it too."""
    answer_bytes_max: int = 64 << 10
    """More of an answer's body is not read; the connection is closed."""
    allowed_networks: tuple[Network, ...] = ()
    """Where requests may go besides public addresses; without any, not even to this machine."""
    open_retry: RetryConfig = field(default_factory=lambda: RetryConfig(max=60))
    """How a destination that cannot be opened, or a log that cannot be written, is tried again."""

    @property
    def outward(self) -> Outward:
        """Where this worker may connect to."""
        return Outward(self.allowed_networks)
