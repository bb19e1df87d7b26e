"""The brokers that the other tests stand on: up, killed, paused, restarted."""

from __future__ import annotations

from confluent_kafka import Producer

from tests.kafka.brokers import Brokers


def append(brokers: Brokers, topic: str, count: int) -> None:
    """Append records; return when all are acknowledged."""
    producer = Producer({"bootstrap.servers": brokers.bootstrap, "acks": "all", "log_level": 0})
    for number in range(count):
        producer.produce(topic, str(number))
    assert producer.flush(30) == 0


def test_a_restarted_broker_has_its_records(own_kafka: Brokers, prefix: str) -> None:
    """What was acknowledged before SIGKILL is there after the restart, and SIGSTOP loses none."""
    if not own_kafka.nodes:
        return
    own_kafka.create({prefix + "t": 2})
    append(own_kafka, prefix + "t", 100)
    own_kafka.kill(1)
    own_kafka.restart(1)
    own_kafka.pause(1)
    own_kafka.resume(1)
    append(own_kafka, prefix + "t", 50)
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": own_kafka.bootstrap, "group.id": "g"})
    ends = [
        consumer.get_watermark_offsets(TopicPartition(prefix + "t", number), timeout=10)[1]
        for number in range(2)
    ]
    consumer.close()
    assert sum(ends) == 150
