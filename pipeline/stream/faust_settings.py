"""What an operator sets of a Faust app: where Kafka is, the app's id, its limits.

In: a URL, `faust://host:9092,host:9092?prefix=…`, and `FUNICULAR_KAFKA_…` and `FUNICULAR_FAUST_…`
in the environment. Out: `FaustSettings`. Faust itself is not imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from pipeline.errors import UsageError
from pipeline.stream import kafka_settings
from pipeline.stream.kafka_settings import KafkaSettings

SCHEME = "faust://"
ENVIRONMENT = "FUNICULAR_FAUST_"
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaustSettings:
    """The cluster and the limits of a Faust app.

    `app_id` is the consumer group's name; empty: `faust-` and the names of the stages. All workers
    of one id must run the same stages, as Faust shares partitions out as if they did.
    `synchronous_downlinks`: answer devices in the response to their request although an answer
    may then come twice, and two requests may get the same downlink after a crash.
    """

    kafka: KafkaSettings = field(default_factory=KafkaSettings)
    app_id: str = ""
    synchronous_downlinks: bool = False
    # A batch waits for more records for so long; each event costs Faust 0.1 ms to hand over.
    linger_s: float = 0.01
    # How often the offsets of what is done are committed. What was done since comes again after a
    # crash; a stage with state knows it by its changelog, one without does it again.
    commit_s: float = 1.0
    # Events that Faust holds ready for a stage.
    buffer_records: int = 4_096
    # When partitions are taken away, the batch under way may take so long to end; then it is
    # given up, and its new owner handles it.
    revoke_s: float = 20.0
    # A restore that gets nothing for so long ends the worker; one of Faust's is begun again.
    restore_stall_s: float = 10.0
    # A worker that takes nothing for so long, as its stage waits to try again, leaves the group.
    stall_s: float = 3_600.0
    # A write that no broker takes for so long ends the worker; nothing of its batch is committed.
    write_timeout_s: float = 120.0

    @classmethod
    def from_url(cls, url: str, env: Mapping[str, str]) -> Self:
        """Read `faust://…`, whose query is that of `kafka://…`, and the environment.

        UsageError: what is wrong, and what to write instead.
        """
        if not url.startswith(SCHEME):
            raise UsageError(f"A Faust app's log is written {SCHEME}host:9092,host:9092?prefix=…")
        kafka = kafka_settings.SCHEME + url.removeprefix(SCHEME)
        return cls(
            kafka=KafkaSettings.from_url(kafka, env),
            app_id=env.get(f"{ENVIRONMENT}APP_ID", ""),
            synchronous_downlinks=_flag(env, "SYNCHRONOUS_DOWNLINKS"),
            linger_s=_seconds(env, "LINGER_S", 0.01),
            commit_s=_seconds(env, "COMMIT_S", 1.0),
        )


def _flag(env: Mapping[str, str], name: str) -> bool:
    text = env.get(ENVIRONMENT + name, "")
    flag = _FLAGS.get(text.strip().lower())
    if flag is None:
        raise UsageError(f"{ENVIRONMENT}{name} is {text!r}; write true or false")
    return flag


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(ENVIRONMENT + name, "")
    try:
        found = float(text) if text else default
    except ValueError:
        found = -1.0
    if not 0 < found < float("inf"):
        raise UsageError(f"{ENVIRONMENT}{name} is {text!r}; it must be a number of seconds over 0")
    return found
