"""How long a small transaction takes, by how long it waits for the end of the one before.

Run: `python -m tests.bench.kafka_transactions [--transactions 300] [--brokers 1|3]`. Starts brokers
beside it; commits batches of six records, one a partition, one after the other through
`pipeline.stream.kafka_transactions`, with no wait, 1, 2 and 4 ms, all of them three times in turn.
Prints the middle and the 95th percentile of the time from one commit to the next, in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from uuid import uuid4

from confluent_kafka import Consumer

from pipeline.metrics import Registry
from pipeline.model.record import Outgoing
from pipeline.stream import kafka_transactions
from pipeline.stream.kafka_limits import KafkaEngineSettings
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_transactions import Transactions, Work
from tests.kafka.brokers import Brokers

PARTITIONS = 6
RUNS = 3
WAITS_S = (0.0, 0.001, 0.002, 0.004)


def cycles_ms(kafka: KafkaSettings, wait_s: float, count: int) -> list[float]:
    """Return what each of so many transactions took, the wait before it too."""
    kafka_transactions._SETTLE_S = wait_s
    consumer = Consumer(kafka.confluent() | {"group.id": "bench"})
    group = consumer.consumer_group_metadata()
    records = [Outgoing("out", "k", b"x" * 200, {}, partition=n) for n in range(PARTITIONS)]
    transactions = Transactions(
        kafka, KafkaEngineSettings(), Registry(), "bench", f"bench-{uuid4().hex}"
    )
    transactions.open()
    took: list[float] = []
    for number in range(count):
        began = time.perf_counter()
        transactions.commit([Work(0, number + 1, "", 0, records, ())], "in", "", group)
        took.append((time.perf_counter() - began) * 1_000)
    transactions.close()
    consumer.close()
    return took


def main() -> None:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--transactions", type=int, default=300)
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    options = parser.parse_args()
    sys.stdout.write(f"{'wait':<10}{'middle ms':>10}{'p95 ms':>10}\n")
    with Brokers.start(options.brokers) as brokers:
        brokers.create({"in": 1, "out": PARTITIONS})
        kafka = KafkaSettings(bootstrap=brokers.bootstrap)
        cycles_ms(kafka, 0, options.transactions)  # the brokers' code is compiled meanwhile
        for wait_s in WAITS_S * RUNS:
            took = sorted(cycles_ms(kafka, wait_s, options.transactions))
            middle, high = statistics.median(took), took[len(took) * 95 // 100]
            sys.stdout.write(f"{f'{wait_s * 1_000:.0f} ms':<10}{middle:>10.1f}{high:>10.1f}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
