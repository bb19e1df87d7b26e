"""The Faust app that is made of stages, before it runs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import topics
from pipeline.errors import UsageError
from pipeline.model.record import Outgoing
from pipeline.ports import Batch, DeviceState, Stage
from pipeline.stream.faust_app import StageApp, make_app
from pipeline.stream.faust_settings import FaustSettings
from pipeline.stream.faust_windows import WithoutAnswers
from pipeline.stream.kafka_settings import KafkaSettings, Security
from pipeline.stream.partitioner import partition_of


class Idle:
    """A stage that does nothing."""

    def __init__(self, name: str = "downlink", topic: str = topics.DOWNLINK_REQUESTED) -> None:
        self.name = name
        self.topic = topic
        self.state_topic: str | None = f"{name}.state"

    def handle(self, batch: Batch, state: DeviceState, now_ms: int) -> list[Outgoing]:
        return []


def stages() -> list[Stage]:
    """Return two stages."""
    return [Idle("route", topics.DEVICE_EVENTS), Idle()]


def test_an_app_has_an_agent_and_a_table_a_stage() -> None:
    """Each stage reads its topic in an agent, one event at a time, and keeps its table."""
    app = make_app(stages(), FaustSettings(kafka=KafkaSettings(prefix="p.")))

    assert app.conf.id == "p.faust-route-downlink"
    assert {agent.concurrency for agent in app.agents.values()} == {1}
    assert {str(agent.channel) for agent in app.agents.values()} == {
        "p.device.events",
        "p.downlink.requested",
    }
    assert set(app.tables.changelog_topics) == {"p.route.state", "p.downlink.state"}


def test_an_app_promises_no_more_than_it_keeps() -> None:
    """It writes to all replicas, makes no topics and shows no state."""
    app = make_app(stages(), FaustSettings())
    conf = app.conf

    assert str(conf.processing_guarantee.value) == "at_least_once"
    assert conf.producer_acks == -1
    assert not conf.topic_allow_declare
    conf.web_enabled = True  # as `faust worker` sets it
    assert app.boot_strategy.web_server() == []


def test_synchronous_downlinks_are_refused_unless_they_are_allowed() -> None:
    """By default the stage that answers is told that no request can take data."""
    refused, allowed = (
        make_app(stages(), FaustSettings(synchronous_downlinks=allow)).runners[1].stage
        for allow in (False, True)
    )

    assert isinstance(refused, WithoutAnswers)
    assert isinstance(allowed, Idle)


class Restoring:
    """An app whose restore has so many records left at each look."""

    restore_stall_s = 0.0

    def __init__(self, *left: int, in_recovery: bool = True) -> None:
        self._left = list(left)
        self.begun_again = 0
        signal = SimpleNamespace(set=self._begin)
        recovery = SimpleNamespace(
            in_recovery=in_recovery,
            active_remaining_total=self._left.pop,
            signal_recovery_start=signal,
        )
        self.tables = SimpleNamespace(recovery=recovery)
        self.looks = len(left)

    def _begin(self) -> None:
        self.begun_again += 1

    @property
    def should_stop(self) -> bool:
        return self.looks == 0

    async def sleep(self, seconds: float) -> None:
        self.looks -= 1


@pytest.mark.parametrize(
    ("app", "times"),
    [
        (Restoring(9, 9, 9), 2),
        (Restoring(7, 8, 9), 0),
        (Restoring(0, 0, 0), 0),
        (Restoring(9, 9, 9, in_recovery=False), 0),
    ],
    ids=["still", "going on", "done", "no restore"],
)
async def test_a_restore_that_stands_still_is_begun_again(app: Restoring, times: int) -> None:
    """Only one with records left, of which none came since the last look."""
    found: Any = app
    await StageApp.watch_restores(found)

    assert app.begun_again == times


def test_two_stages_of_one_name_are_refused() -> None:
    """Their tables would be one."""
    with pytest.raises(UsageError, match="different names: a, a"):
        make_app([Idle("a"), Idle("a")], FaustSettings())


def test_keys_go_where_all_our_clients_put_them() -> None:
    """Faust's producer chooses partitions by the one rule."""
    choose = make_app(stages(), FaustSettings()).conf.producer_partitioner

    for key in ("", "t/dévice:1#x", "t/d"):
        assert choose(key.encode(), list(range(7)), [0]) == partition_of(key, 7)
    assert choose(None, [0, 1, 2], [2]) == 2


def test_who_we_are_is_told_to_brokers_alone() -> None:
    """SASL reaches Faust; the password is in no text of the app."""
    security = Security(protocol="SASL_PLAINTEXT", sasl_username="u", sasl_password="hunter2")
    app = make_app(stages(), FaustSettings(kafka=KafkaSettings(security=security)))
    credentials = app.conf.broker_credentials

    assert (credentials.username, credentials.password) == ("u", "hunter2")
    assert credentials.protocol.value == "SASL_PLAINTEXT"
    assert "hunter2" not in f"{app!r} {app.conf!r} {credentials!r}"
