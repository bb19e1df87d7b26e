"""For every test: logging as structlog has it by default, and no clock in property tests. And the
servers that sinks write to.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.real.sink_servers import SinkServers

# How long an example takes says how busy the machine is, not whether the claim holds.
settings.register_profile("any", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any")


@pytest.fixture(autouse=True)
def logging_as_by_default() -> None:
    """Undo what an earlier test's command has set, such as a level that hides what is said."""
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def sink_servers() -> Iterator[SinkServers]:
    """Real servers, each started when it is first asked for."""
    from tests.real.sink_servers import SinkServers

    servers = SinkServers()
    yield servers
    servers.remove()
