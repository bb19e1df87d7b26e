"""A worker as a process of its own, which can kill or stop itself at a given moment.

In: JSON as the one argument: what `KafkaEngine` needs, and `at`, `after`, `how`: at which call of
the producer, after how many of them, by which signal. Out, on standard output: `running`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from pipeline.logs import configure_logs
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState
from pipeline.stream import kafka_transactions
from pipeline.stream.kafka import KafkaEngine
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings
from tests.contract.kill_program import Count

# The heartbeat that hears that we are out comes within a third of this.
AFTER_STOP_S = 1.0
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class Failing(Producer):  # type: ignore[misc]
    """A producer whose process comes to harm, once."""

    at = ""
    left = 0
    how = signal.SIGKILL

    def _harm(self, moment: str) -> None:
        if moment != Failing.at:
            return
        Failing.left -= 1
        if Failing.left == 0:
            os.kill(os.getpid(), Failing.how)

    def produce(self, *arguments: Any, **more: Any) -> None:
        """Append; the moment `produce` is in the middle of a batch."""
        self._harm("produce")
        super().produce(*arguments, **more)

    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        """Add the offsets."""
        self._harm("offsets")
        super().send_offsets_to_transaction(*arguments)

    def commit_transaction(self, *arguments: Any) -> None:
        """Commit; the moment `flushed` is when the brokers have all records, `committing` is while
        the request is on its way.
        """
        self._harm("commit")
        if Failing.at == "flushed":
            self.flush(5)
            self._harm("flushed")
        if Failing.at == "committing" and Failing.left == 1:
            threading.Timer(0.004, self._harm, ("committing",)).start()
        elif Failing.at == "committing":
            Failing.left -= 1
        super().commit_transaction(*arguments)
        self._harm("committed")


class FailingCount(Count):
    """The stage, whose process may come to harm while it handles a batch."""

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        """Handle a batch; after a stop go on only when librdkafka has had the news."""
        outputs = super().handle(batch, state, now_ms)
        if Failing.at == "handle":
            Failing.left -= 1
            if Failing.left == 0:
                os.kill(os.getpid(), Failing.how)
                time.sleep(AFTER_STOP_S)
        return outputs


def main(text: str) -> None:
    """Run until killed, or told to stop by SIGTERM."""
    given = json.loads(text)
    configure_logs("text")
    Failing.at = given.get("at", "")
    Failing.left = given.get("after", 1)
    Failing.how = SIGNALS[given.get("how", "kill")]
    kafka_transactions.Producer = Failing  # type: ignore[misc]
    kafka = KafkaSettings(bootstrap=given["bootstrap"], prefix=given["prefix"])
    settings = KafkaEngineSettings(
        slot=given.get("slot", 0),
        records_max=given.get("records_max", 100),
        session_timeout_s=given.get("session_timeout_s", 2.0),
        poll_s=0.02,
    )
    engine = KafkaEngine(kafka, [FailingCount()], settings, state_folder=Path(given["folder"]))
    engine.start()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    sys.stdout.write("running\n")
    sys.stdout.flush()
    while not stopping.is_set() and not engine.failed.done():
        time.sleep(0.02)
    engine.stop()
    engine.failed.result()


if __name__ == "__main__":
    main(sys.argv[1])
