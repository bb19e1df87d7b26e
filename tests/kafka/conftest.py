"""Brokers for the tests of this folder; all of them run in one process of xdist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.kafka import brokers
from tests.kafka.brokers import Brokers

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark this folder's tests, and keep them together: they share a broker."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.kafka)
            item.add_marker(pytest.mark.xdist_group("kafka"))


@pytest.fixture(scope="session")
def kafka() -> Brokers:
    """One broker, shared by all tests; do not kill it."""
    brokers.needed()
    return brokers.shared()


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[Brokers]:
    """One broker of this module's own, to be killed, paused and restarted."""
    brokers.needed()
    with Brokers.start(1) as found:
        yield found


@pytest.fixture(scope="module")
def three_brokers() -> Iterator[Brokers]:
    """Three brokers of this module's own: replication 3, `min.insync.replicas` 2."""
    brokers.needed()
    with Brokers.start(3) as found:
        yield found


@pytest.fixture
def prefix() -> str:
    """A prefix for the names of one test's topics and groups."""
    return f"t{uuid4().hex[:10]}."
