"""How long a worker that is killed with a transaction open holds up the readers of its topics.

Run: `python -m tests.bench.kafka_stall [--kills 5]`. Starts a broker beside it; kills a worker
(SIGKILL) that has sent its offsets and not committed; then appends to the topic that the worker
wrote to, and waits until a `read_committed` reader has that. Prints the middle and the worst, in
seconds, for the broker's default interval of looking for such transactions (10 s) and for 1 s,
each with the worker left dead and with one started at once in its place.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.kafka.brokers import Brokers
from tests.kafka.cluster_work import Flow

INTERVAL = "transaction.abort.timed.out.transaction.cleanup.interval.ms"
MARK = b"behind it"


def stall(brokers: Brokers, folder: Path, *, restart: bool) -> float:
    """Return the seconds from the kill until a reader has what was appended after it."""
    flow = Flow(brokers, f"s{uuid4().hex[:8]}.", folder / uuid4().hex / "state", partitions=1)
    flow.folder.parent.mkdir(parents=True)
    topic = flow.kafka.topic("counted")
    try:
        flow.append(200)
        options = {"group.id": "look", "isolation.level": "read_committed"}
        reader = Consumer(flow.kafka.confluent() | options)
        reader.assign([TopicPartition(topic, 0, 0)])
        reader.poll(1)
        worker = flow.worker(at="flushed", after=2, session_timeout_s=6.0)
        worker.wait(30)
        killed = time.monotonic()
        producer = Producer(flow.kafka.confluent())
        producer.produce(topic, MARK)
        producer.flush()
        if restart:
            flow.worker(session_timeout_s=6.0)
        while True:
            message = reader.poll(0.1)
            if message is not None and message.value() == MARK:
                break
        reader.close()
        return time.monotonic() - killed
    finally:
        flow.stop()


def main() -> None:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=5)
    kills = parser.parse_args().kills
    sys.stdout.write(f"{'broker looks every':<20}{'worker':<12}{'middle s':>10}{'worst s':>10}\n")
    with tempfile.TemporaryDirectory() as folder:
        for interval_s in (10, 1):
            with Brokers.start(1, properties={INTERVAL: str(interval_s * 1_000)}) as brokers:
                for restart in (False, True):
                    took = [stall(brokers, Path(folder), restart=restart) for _ in range(kills)]
                    sys.stdout.write(
                        f"{f'{interval_s} s':<20}{'restarted' if restart else 'left dead':<12}"
                        f"{statistics.median(took):>10.1f}{max(took):>10.1f}\n"
                    )
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
