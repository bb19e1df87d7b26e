"""What an operator sets: options of the command line, or `FUNICULAR_…` in the environment."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.ingest.settings import IngestSettings
from pipeline.script.limits import ScriptLimits
from pipeline.sink.addresses import Network
from pipeline.sink.settings import SinkSettings
from pipeline.stream.settings import EngineSettings, LogSettings

EMBEDDED = "embedded"
RULES_TOPIC = Path("topic:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One process. `rules` may be several folders, one a tenant; or `topic:` alone, the topic that
    `funicular publish` writes. `watch`: folders that are edited are loaded again.

    `log_url`: `embedded`, `kafka://host:9092,…` or `faust://host:9092,…`; `data` is where the
    embedded log, or the state beside a worker, lives. `slot` tells apart workers of one machine.
    `allowed_networks`: where requests may go besides public addresses.
    """

    rules: tuple[Path, ...] = (Path("rules"),)
    data: Path = Path("data")
    log_url: str = EMBEDDED
    slot: int | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    stop_timeout_s: float = 20.0
    watch: bool = True
    allowed_networks: tuple[Network, ...] = ()
    log: LogSettings = field(default_factory=LogSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    scripts: ScriptLimits = field(default_factory=ScriptLimits)

    @property
    def follows_topic(self) -> bool:
        """Whether the rules come from Kafka's topic. UsageError: they cannot."""
        if RULES_TOPIC not in self.rules:
            return False
        if len(self.rules) > 1:
            raise UsageError("give rules folders, or `--rules topic:` alone")
        if self.log_url == EMBEDDED:
            raise UsageError("`--rules topic:` follows a topic of Kafka; give --log kafka://…")
        return True

    @property
    def log_file(self) -> Path:
        """The embedded log."""
        return self.data / "funicular.db"

    @property
    def keys_file(self) -> Path:
        """The API's keys, hashed."""
        return self.data / "keys.json"

    @property
    def ingest(self) -> IngestSettings:
        """The door's settings."""
        return IngestSettings(
            host=self.host,
            port=self.port,
            keys_file=self.keys_file,
            # The same after a restart, and no other worker's: two cannot listen on one port.
            worker=f"{socket.gethostname()}-{self.port}",
        )

    @property
    def sink(self) -> SinkSettings:
        """The sinks' settings; relative paths of files begin where the process was started."""
        return SinkSettings(allowed_networks=self.allowed_networks)
