"""Making and checking topics on a real broker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.errors import RetryableError, UsageError
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.kafka_topics import check, create, look, plan, require
from tests.kafka.brokers import Brokers


def test_topics_are_made_as_planned_and_found_so(kafka: Brokers, prefix: str) -> None:
    """Before, all are missing; what `create` makes differs in nothing; a second time makes none."""
    settings = KafkaSettings(bootstrap=kafka.bootstrap, prefix=prefix, partitions=3)
    plans = plan(settings)
    before = check(settings, plans)
    assert [each.message for each in before] == ["is missing"] * len(plans)
    with pytest.raises(UsageError, match=rf"{prefix}reply: is missing") as error:
        require(settings, plans)
    assert error.value.message.count("\n") == len(plans)
    assert sorted(create(settings, plans)) == sorted(each.topic for each in plans)
    assert check(settings, plans) == []
    assert require(settings, plans) == []
    assert create(settings, plans) == []
    found = {each.topic: each for each in look(settings)}
    assert sorted(found) == sorted(each.topic for each in plans)
    assert found[f"{prefix}device.state"].config["cleanup.policy"] == "compact"
    assert found[f"{prefix}rules"].partitions == 1
    more = replace(settings, partitions=4)
    assert {each.level for each in check(more, plan(more))} == {"warning"}


def test_only_our_topics_are_shown(kafka: Brokers, prefix: str) -> None:
    """Others' topics of the cluster are none of ours, whatever their names begin with."""
    kafka.create({f"{prefix}reply": 1, f"{prefix}delivery.acme.app": 1, f"{prefix}else": 1})
    settings = KafkaSettings(bootstrap=kafka.bootstrap, prefix=prefix)
    assert [each.topic for each in look(settings)] == [
        f"{prefix}delivery.acme.app",
        f"{prefix}reply",
    ]
    assert look(settings, ["nobody"]) == []


def test_what_the_cluster_refuses_is_said_in_its_words(kafka: Brokers, prefix: str) -> None:
    """More copies than brokers is the user's mistake, and named."""
    settings = KafkaSettings(bootstrap=kafka.bootstrap, prefix=prefix, replication=5)
    with pytest.raises(UsageError, match=r"cannot be made: .*replication factor"):
        create(settings, plan(settings))


def test_no_broker_is_said_in_time() -> None:
    """Where nobody listens the answer comes after `connect_timeout_s`."""
    settings = KafkaSettings(bootstrap="127.0.0.1:1", connect_timeout_s=1)
    with pytest.raises(RetryableError, match=r"127\.0\.0\.1:1"):
        check(settings, plan(settings))
