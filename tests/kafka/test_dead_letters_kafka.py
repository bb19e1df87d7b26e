"""Dead letters on a real broker: found, replayed once, also where two replay at the same time."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from pipeline import topics
from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.model.dead_letter import bury
from pipeline.model.letters import LettersFilter
from pipeline.model.record import Outgoing, Record
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_shelf import KafkaShelf
from pipeline.stream.kafka_topics import create, plan
from pipeline.stream.letters import LogLetters
from tests.kafka.brokers import Brokers

NOW_MS = 1_790_000_000_000
DEVICES = 6


def buried(device: int, number: int) -> Outgoing:
    headers = {"id": f"e{device}-{number}", "tenant": "acme"}
    record = Record(
        topics.UPLINK_RECEIVED, 0, number, 1, f"acme/d{device}", b"%d" % number, headers
    )
    return bury(
        record, stage="convert", reason="script_threw", message="why", detail={}, now_ms=NOW_MS
    )


def letters_of(shelf: KafkaShelf) -> LogLetters:
    return LogLetters(shelf, lambda: NOW_MS)


@pytest.fixture
def settings(kafka: Brokers, prefix: str) -> KafkaSettings:
    """A cluster with 18 dead letters of 6 devices in 3 partitions."""
    settings = KafkaSettings(bootstrap=kafka.bootstrap, prefix=prefix, partitions=3)
    create(settings, plan(settings))
    shelf = KafkaShelf(settings, write=True)
    shelf.append([buried(device, number) for number in range(3) for device in range(DEVICES)])
    shelf.close()
    return settings


def test_replay_once(settings: KafkaSettings) -> None:
    """All letters are found; each is sent once, in the order of its device, with its note; who
    began earlier can send none any more.
    """
    earlier = KafkaShelf(settings, write=True)
    outdated = letters_of(earlier)
    first = list(outdated.find(LettersFilter()))
    assert len(first) == 3 * DEVICES
    shelf = KafkaShelf(settings, write=True)
    letters = letters_of(shelf)
    found = list(letters.find(LettersFilter()))
    assert letters.get(found[4].place) == found[4]
    assert letters.get("0-999999") is None

    done = letters.replay(found, "ann")

    assert (len(done.done), done.refused) == (3 * DEVICES, ())
    with pytest.raises(UsageError, match="somebody else replays"):
        outdated.replay(first, "bob")
    sent: dict[str, list[bytes | None]] = {}
    for one in shelf.records(topics.UPLINK_RECEIVED):
        sent.setdefault(one.key, []).append(one.value)
    assert sent == {f"acme/d{device}": [b"0", b"1", b"2"] for device in range(DEVICES)}
    looking = KafkaShelf(settings)
    assert list(letters_of(looking).find(LettersFilter())) == []
    with pytest.raises(UsageError, match="only looked at"):
        looking.append([buried(0, 0)])
    for each in (earlier, shelf, looking):
        each.close()


def test_by_the_command(settings: KafkaSettings) -> None:
    """`funicular dead-letters --log kafka://…` does the same."""
    log = ("--log", f"kafka://{settings.bootstrap}?prefix={settings.prefix}")

    def run(*words: str) -> str:
        ended = CliRunner().invoke(main, ["dead-letters", *words, *log])
        assert ended.exit_code == 0, ended.output
        return ended.stdout

    assert len(run("list", "--device", "d1").splitlines()) == 3
    assert run("replay", "--device", "d1") == "replayed 3\n"
    assert run("drop", "--device", "d2", "--yes") == "dropped 3\n"
    assert len(run("list").splitlines()) == 3 * DEVICES - 6
