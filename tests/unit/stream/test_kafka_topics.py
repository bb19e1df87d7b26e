from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.rulebook.book import Rulebook
from pipeline.sink.retry import RetryConfig
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_topics import TopicState, compare, destinations, plan
from pipeline.topics import TOPICS

SETTINGS = KafkaSettings(prefix="p.", partitions=6, replication=3, min_insync_replicas=2)
DAY_MS = 86_400_000


def book(**retries: Any) -> Rulebook:
    """Return a rulebook with a sink of each name, one answered integration and one that is not."""
    sinks: Any = {
        name: SimpleNamespace(tenant="acme", name=name, config=SimpleNamespace(retry=retry))
        for name, retry in retries.items()
    }
    integrations: Any = {
        name: SimpleNamespace(tenant="acme", name=name, synchronous=synchronous)
        for name, synchronous in (("ttn", False), ("sigfox", True))
    }
    return Rulebook("acme", Path(), "v1", integrations, {}, {}, sinks)


def states(plans: Any, **changes: Any) -> list[TopicState]:
    """Return the topics as they are planned, with what is changed of `p.<name>` by config."""
    return [
        TopicState(
            each.topic,
            changes.get("partitions", {}).get(each.name, each.partitions),
            changes.get("replication", {}).get(each.name, each.replication),
            each.config | changes.get("config", {}).get(each.name, {}),
        )
        for each in plans
        if each.name not in changes.get("missing", ())
    ]


def test_each_row_of_the_table_is_planned() -> None:
    """Every topic of the one table gets a plan, with its policy, retention and partitions."""
    plans = {each.name: each for each in plan(SETTINGS)}
    assert plans.keys() == {row.name for row in TOPICS if not row.name.endswith(".")}
    for row in TOPICS:
        if row.name in plans:
            config = plans[row.name].config
            assert config["cleanup.policy"] == ("compact" if row.compacted else "delete")
            if not row.compacted:
                assert config["retention.ms"] == str(row.retention_s * 1_000)
            assert config["min.insync.replicas"] == "2"
    assert plans["rules"].partitions == 1
    assert plans["device.state"].same_partitions_as == "p.device.events"
    assert plans["reply"].config["segment.ms"] == "600000"
    assert {each.topic for each in plans.values()} == {f"p.{name}" for name in plans}


def test_each_destination_is_planned() -> None:
    """Sinks and the integrations that are not answered have delivery topics, kept for longer than
    the sink's last retry.
    """
    long = RetryConfig(give_up_after=10 * 86_400)
    books = [book(archive=long, app=RetryConfig())]
    assert sorted(destinations(books)) == [
        "delivery.acme.app",
        "delivery.acme.archive",
        "delivery.acme.downlink-ttn",
    ]
    plans = {each.name: each for each in plan(SETTINGS, books)}
    assert plans["delivery.acme.archive"].config["retention.ms"] == str(11 * DAY_MS)
    assert plans["delivery.acme.archive"].longest_retry_s == 10 * 86_400
    assert plans["delivery.acme.app"].config["retention.ms"] == str(7 * DAY_MS)
    assert plans["delivery.acme.app"].tries_for_ever
    assert not plans["delivery.acme.downlink-ttn"].tries_for_ever


def test_what_is_as_planned_is_not_mentioned() -> None:
    """Topics that are as they were made differ in nothing."""
    plans = plan(SETTINGS, [book(app=RetryConfig(give_up_after=3_600))])
    assert compare(plans, states(plans)) == []


@pytest.mark.parametrize(
    ("changes", "level", "said"),
    [
        ({"missing": ["reply"]}, "error", "p.reply: is missing; make it with `funicular topics"),
        (
            {"partitions": {"device.state": 3}},
            "error",
            "p.device.state: has 3 partitions and p.device.events has 6; they must be equal",
        ),
        ({"partitions": {"reply": 3}}, "warning", "p.reply: has 3 partitions, not 6"),
        ({"replication": {"reply": 2}}, "warning", "p.reply: is kept 2 times, not 3"),
        (
            {"config": {"reply": {"min.insync.replicas": "4"}}},
            "error",
            "a write needs 4 (min.insync.replicas): none can succeed",
        ),
        (
            {"config": {"device.state": {"cleanup.policy": "delete"}}},
            "error",
            "p.device.state: has cleanup.policy delete, not compact; kafka-configs --alter",
        ),
        (
            {"config": {"device.events": {"max.message.bytes": "1000"}}},
            "warning",
            "p.device.events: has max.message.bytes 1000, not 8388608",
        ),
        (
            {"config": {"uplink.received": {"message.timestamp.type": "CreateTime"}}},
            "warning",
            "has message.timestamp.type CreateTime, not LogAppendTime",
        ),
        (
            {"config": {"uplink.received": {"retention.ms": "3600000"}}},
            "warning",
            "p.uplink.received: is kept for 60 minutes, not 7 days",
        ),
        (
            {"config": {"delivery.acme.app": {"retention.ms": "3600000"}}},
            "error",
            "is kept for 60 minutes, but its sink tries for 2 days (retry.give_up_after)",
        ),
    ],
)
def test_a_difference_says_what_and_what_to_do(
    changes: dict[str, Any], level: str, said: str
) -> None:
    """Each difference is told once, in words, with its weight and an advice."""
    plans = plan(SETTINGS, [book(app=RetryConfig(give_up_after=2 * 86_400))])
    found = [each for each in compare(plans, states(plans, **changes)) if said in str(each)]
    assert [each.level for each in found] == [level]
    assert found[0].advice


def test_more_than_planned_is_no_difference() -> None:
    """Larger messages, longer retention and retention for ever are as good."""
    plans = plan(SETTINGS, [book(app=RetryConfig(give_up_after=3_600))])
    more = {
        "device.events": {"max.message.bytes": "99999999", "retention.ms": "-1"},
        "delivery.acme.app": {"retention.ms": str(99 * DAY_MS)},
    }
    assert compare(plans, states(plans, config=more)) == []


def test_a_sink_that_tries_for_ever_is_warned_of() -> None:
    """Retention ends what a sink without `give_up_after` would try for ever; the check says so."""
    plans = plan(SETTINGS, [book(app=RetryConfig())])
    (found,) = compare(plans, states(plans))
    assert (found.topic, found.level) == ("p.delivery.acme.app", "warning")
    assert "what is older than 7 days is deleted" in found.message


def test_one_copy_counting_as_durable_is_warned_of() -> None:
    """Where three copies are kept but one is enough for a write, the check says what that risks."""
    plans = plan(KafkaSettings(replication=3))
    lax = {each.name: {"min.insync.replicas": "1"} for each in plans}
    found = compare(plans, states(plans, config=lax))
    assert {each.level for each in found} == {"warning"}
    assert len(found) == len(plans)
