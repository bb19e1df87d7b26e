"""One partitioner everywhere: ours, Java's, librdkafka's and aiokafka's give the same partition."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from confluent_kafka import Message, Producer

from pipeline.stream.partitioner import CONFLUENT, partition_of
from tests.kafka import brokers
from tests.kafka.brokers import Brokers

PARTITIONS = (1, 2, 3, 7, 12, 1_000)

JAVA = """
import java.nio.charset.StandardCharsets;
import java.util.Scanner;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

public class Partitions {
  public static void main(String[] counts) {
    Scanner lines = new Scanner(System.in, StandardCharsets.UTF_8);
    while (lines.hasNextLine()) {
      byte[] key = lines.nextLine().getBytes(StandardCharsets.UTF_8);
      StringBuilder said = new StringBuilder();
      for (String count : counts)
        said.append(BuiltInPartitioner.partitionForKey(key, Integer.parseInt(count))).append(' ');
      System.out.println(said.toString().trim());
    }
  }
}
"""


def keys() -> list[str]:
    """Return keys as ours are, of each length, with characters of one to four bytes."""
    dice = random.Random(11)
    found = [f"acme/eui-{dice.randbytes(8).hex()}" for _ in range(200)]
    letters = "abcXYZ019/-_.#äß€☃🚠"
    return found + ["".join(dice.choices(letters, k=size)) for size in range(1, 80)]


def test_java_gives_the_same_partitions(tmp_path: Path) -> None:
    """For all keys, and all counts of partitions, Java's producer would choose ours."""
    brokers.needed()
    program = tmp_path / "Partitions.java"
    program.write_text(JAVA)
    done = subprocess.run(
        ["java", "-cp", f"{brokers.jars()}/*", str(program), *map(str, PARTITIONS)],
        input="\n".join(keys()).encode(),
        capture_output=True,
        check=True,
        timeout=60,
    )
    said = [[int(number) for number in line.split()] for line in done.stdout.decode().splitlines()]
    assert said == [[partition_of(key, count) for count in PARTITIONS] for key in keys()]


def test_librdkafka_gives_the_same_partitions(kafka: Brokers, prefix: str) -> None:
    """What the engine's producer writes by `murmur2_random` lands where we say."""
    kafka.create({prefix + "in": 7})
    landed: dict[str, int] = {}

    def note(error: object, message: Message) -> None:
        assert error is None
        landed[(message.key() or b"").decode()] = message.partition() or 0

    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap, "partitioner": CONFLUENT, "log_level": 0}
    )
    for key in keys():
        producer.produce(prefix + "in", b"v", key=key, on_delivery=note)
    assert producer.flush(30) == 0
    assert landed == {key: partition_of(key, 7) for key in keys()}


def test_aiokafka_gives_the_same_partitions() -> None:
    """The default partitioner of aiokafka, for whoever writes to our topics by it, is ours too."""
    from aiokafka.partitioner import DefaultPartitioner

    theirs = DefaultPartitioner()
    for count in PARTITIONS:
        numbers = list(range(count))
        assert [theirs(key.encode(), numbers, numbers) for key in keys()] == [
            partition_of(key, count) for key in keys()
        ]
