"""For every test: logging as structlog has it by default, and no clock in property tests. And the
servers that sinks write to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.real.sink_servers import SinkServers

COMPILED = {"proton": "AMQP 1.0", "DTLSSocket": "CoAP over DTLS"}
"""Libraries that pip has to compile, which not every machine can."""
LEFT_OUT = [what for name, what in COMPILED.items() if find_spec(name) is None]
if LEFT_OUT and os.environ.get("CI"):
    raise pytest.UsageError(f"nothing may be left out here: {LEFT_OUT} (--group compiled)")
collect_ignore_glob = ["*/*amqp1*", "real/test_amqp_program.py"] if "AMQP 1.0" in LEFT_OUT else []


def pytest_report_header() -> str:
    """Say what is not tested."""
    return f"LEFT OUT, for want of libraries: {', '.join(LEFT_OUT)}" if LEFT_OUT else ""


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
