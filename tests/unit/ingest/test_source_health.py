"""How a connection does: counted, told once, shown."""

from __future__ import annotations

from structlog.testing import capture_logs

from pipeline.ingest.source_health import SourceHealth
from pipeline.metrics import Registry


class Clock:
    """Says what the test says."""

    now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


def made() -> tuple[SourceHealth, Clock]:
    clock = Clock()
    return SourceHealth("acme", "barn", "chirpstack", "mqtt", clock), clock


def test_a_fault_is_told_when_it_is_new_and_when_it_ends() -> None:
    """A thousand equal failures are one line, another fault is another, the end says how many."""
    health, _ = made()
    with capture_logs() as logs:
        for _ in range(1_000):
            health.connecting()
            health.broke("refused")
        health.broke("no such host")
        health.connected()
        health.connected()

    assert [(each["log_level"], each.get("error"), each.get("tries")) for each in logs] == [
        ("warning", "refused", None),
        ("warning", "no such host", None),
        ("info", None, 1_001),
    ]


def test_a_connection_stays_lost_while_it_is_tried() -> None:
    """`lost` is the state, and since when, until a try succeeds."""
    health, clock = made()
    health.connected()
    clock.now_ms = 2_000
    health.broke("gone")
    clock.now_ms = 3_000
    health.connecting()

    status = health.status()
    assert (status.state, status.since_ms, status.last_error) == ("lost", 2_000, "gone")
    assert (status.errors, status.connects, status.last_error_ms) == (1, 1, 2_000)


def test_messages_and_what_is_passed_over_are_counted() -> None:
    """Good and bad messages count, and the last one's time; a reason is logged once."""
    health, clock = made()
    clock.now_ms = 5_000
    health.took(10, 2)
    with capture_logs() as logs:
        health.passed_over(3, "retained")
        health.passed_over(4, "retained")

    status = health.status()
    assert (status.messages, status.refused, status.passed_over) == (10, 2, 7)
    assert status.last_message_ms == 5_000
    assert len(logs) == 1


def test_the_registry_gets_each_count_once() -> None:
    """Flushed twice, counters stand where they stood; the gauge follows the connection."""
    health, _ = made()
    metrics = Registry()
    health.connected()
    health.took(10, 0)
    for _ in range(2):
        health.flush(metrics)
    labels = (("integration", "barn"), ("tenant", "acme"))
    assert metrics.values("funicular_integration_messages_total") == {labels: 10}
    assert metrics.values("funicular_integration_connected") == {labels: 1}
    health.stopped()
    health.flush(metrics)
    assert metrics.values("funicular_integration_connected") == {labels: 0}


def test_a_note_is_kept_and_told_once() -> None:
    """What the user should know of a connection is in the status, and once in the log."""
    health, _ = made()
    with capture_logs() as logs:
        health.connected("QoS 0 alone")
        health.connected("QoS 0 alone")

    assert health.status().note == "QoS 0 alone"
    assert [each["log_level"] for each in logs].count("warning") == 1
