"""Rules through Kafka's topic: published once, the same on all workers."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.rulebook.folder import read_folder
from pipeline.stream.kafka_rules import RulesFollower, create_rules_topic, publish
from pipeline.stream.kafka_settings import KafkaSettings
from tests.kafka.brokers import Brokers
from tests.process.ledger_rules import write_rules
from tests.process.program import Program

TOPIC = Path("topic:")


def until_changed(follower: RulesFollower) -> dict[str, Path | None]:
    """Return the first news."""
    for _ in range(300):
        found = dict(follower.changed())
        if found:
            return found
    raise AssertionError("nothing came of the topic")


def settings(kafka: Brokers, prefix: str) -> KafkaSettings:
    found = KafkaSettings(bootstrap=kafka.bootstrap, prefix=prefix, replication=1)
    create_rules_topic(found)
    return found


def test_followers_get_what_was_published(kafka: Brokers, prefix: str, tmp_path: Path) -> None:
    """A follower that was there and one that comes later make the same folder of the newest
    version, its deleted files gone, whatever came before it.
    """
    cluster = settings(kafka, prefix)
    early = RulesFollower(cluster, tmp_path / "early")
    publish(cluster, "t", "one", {"a.yaml": b"1", "b.yaml": b"1"})
    first = until_changed(early)["t"]
    found = publish(cluster, "t", "two", {"a.yaml": b"2"})
    again = publish(cluster, "t", "two", {"a.yaml": b"2"})
    second = until_changed(early)["t"]
    late = RulesFollower(cluster, tmp_path / "late")
    third = until_changed(late)["t"]
    early.close()
    late.close()

    assert first is not None
    assert second is not None
    assert third is not None
    assert sorted(file.name for file in first.iterdir()) == ["a.yaml", "b.yaml"]
    assert found is not None
    assert (found.manifest.sequence, found.changed, found.removed) == (2, ("a.yaml",), ("b.yaml",))
    assert again is None
    assert second.name == third.name
    assert [(file.name, file.read_bytes()) for file in third.iterdir()] == [("a.yaml", b"2")]


def test_two_publish_at_once(kafka: Brokers, prefix: str, tmp_path: Path) -> None:
    """Of those who publish the same tenant at once each one's version is whole or refused; the
    newest is complete.
    """
    cluster = settings(kafka, prefix)
    ended: list[str] = []

    def one(name: str) -> None:
        files = {f"{part}.yaml": name.encode() for part in range(50)}
        try:
            publish(cluster, "t", name, files)
        except UsageError:
            ended.append("refused")
        else:
            ended.append("published")

    threads = [threading.Thread(target=one, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    follower = RulesFollower(cluster, tmp_path)
    folder = until_changed(follower)["t"]
    follower.close()

    assert len(ended) == 4
    assert "published" in ended
    assert folder is not None
    assert len({file.read_bytes() for file in folder.iterdir()}) == 1


def command(url: str, *words: str) -> Result:
    env = {**os.environ, "LEDGER_SERVERS": "http://127.0.0.1:9", "LEDGER_ARCHIVE": "archive"}
    return CliRunner().invoke(main, [*words, "--log", url], env=env)


async def until_version(program: Program, session: aiohttp.ClientSession, version: str) -> None:
    """Wait until a worker runs these rules and no others."""
    async with asyncio.timeout(60):
        while True:
            async with session.get(f"{program.url}/metrics") as answer:
                lines = (await answer.text()).splitlines()
            shown = [line for line in lines if line.startswith("funicular_rules_info{")]
            if shown == [f'funicular_rules_info{{tenant="t",version="{version}"}} 1']:
                return
            await asyncio.sleep(0.2)


@pytest.mark.timeout(240)
async def test_workers_end_on_the_same_version(kafka: Brokers, prefix: str, tmp_path: Path) -> None:
    """Workers wait for the first rules, take each published version without a restart, make the
    topics of its destinations, and end on the same one; a folder with faults is not published.
    """
    url = f"kafka://{kafka.bootstrap}?prefix={prefix}&partitions=3&replication=1"
    folder = write_rules(tmp_path / "rules")
    env = {
        "LEDGER_SERVERS": "http://127.0.0.1:9",
        "LEDGER_ARCHIVE": str(tmp_path / "archive"),
        "FUNICULAR_LOG": url,
    }
    made = await asyncio.to_thread(command, url, "topics", "create", "-r", str(folder))
    assert made.exit_code == 0, made.output
    async with aiohttp.ClientSession() as session:
        stages = Program(TOPIC, tmp_path / "stages", env, ("worker", "convert", "route"))
        edges = Program(TOPIC, tmp_path / "edges", env, ("worker", "ingest", "sink"))
        with stages, edges:
            await asyncio.to_thread(wait_for, stages, "waiting for rules")
            first = await asyncio.to_thread(command, url, "publish", str(folder))
            assert first.exit_code == 0, first.output
            assert "(number 1)" in first.output
            for program in (stages, edges):
                await program.ready(session, 60)
                await until_version(program, session, read_folder(folder).version)

            (folder / "sinks/extra.yaml").write_text(f"transport: file\npath: {tmp_path}/extra\n")
            second = await asyncio.to_thread(command, url, "publish", str(folder))
            assert f"made {prefix}delivery.t.extra" in second.output
            assert "+ sinks/extra.yaml" in second.output
            good = read_folder(folder).version
            for program in (stages, edges):
                await until_version(program, session, good)

            (folder / "chains/ledger.yaml").write_text("nodes: 1\n")
            bad = await asyncio.to_thread(command, url, "publish", str(folder))
            assert bad.exit_code == 2
            for program in (stages, edges):
                await until_version(program, session, good)
                assert await asyncio.to_thread(program.stop) == 0, program.said()


def wait_for(program: Program, words: str) -> None:
    """Wait until a program's log has these words."""
    import time

    deadline = time.monotonic() + 60
    while words not in program.said():
        assert time.monotonic() < deadline, program.said()
        time.sleep(0.1)


async def test_stops_while_it_waits(kafka: Brokers, prefix: str, tmp_path: Path) -> None:
    """A worker that waits for its first rules ends in good order when it is asked to."""
    settings(kafka, prefix)
    env = {"FUNICULAR_LOG": f"kafka://{kafka.bootstrap}?prefix={prefix}&replication=1"}
    with Program(TOPIC, tmp_path / "worker", env, ("worker", "convert")) as program:
        await asyncio.to_thread(wait_for, program, "waiting for rules")

        assert await asyncio.to_thread(program.stop) == 0, program.said()


def test_topic_needs_kafka() -> None:
    """`topic:` without Kafka, or beside a folder, is refused with what to do."""
    alone = CliRunner().invoke(main, ["run", "--rules", "topic:"])
    mixed = CliRunner().invoke(
        main, ["run", "-r", "topic:", "-r", "rules", "--log", "kafka://127.0.0.1:1"]
    )

    assert (alone.exit_code, mixed.exit_code) == (2, 2)
    assert "--log kafka://" in alone.output
    assert "alone" in mixed.output
