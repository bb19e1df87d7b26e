from __future__ import annotations

from pipeline.sink.health import Health
from pipeline.sink.retry import RetryConfig

RETRY = RetryConfig(first=1, factor=2, max=60, jitter=0)


def fail(health: Health, started_s: float = 0.0, now_s: float = 0.0, pause_s: float = 0.0) -> None:
    health.failed(started_s=started_s, now_s=now_s, pause_s=pause_s, random=0.0)


def test_a_healthy_destination_has_all_slots() -> None:
    """Without failures, as many requests may start as the concurrency leaves."""
    assert Health(RETRY).slots(8, 3, 0.0) == 5


def test_a_failing_one_is_asked_by_one_request_after_the_pause() -> None:
    """After a failure nothing starts during the pause, then one request alone."""
    health = Health(RETRY)
    fail(health, now_s=10)
    assert health.slots(8, 0, 10.9) == 0
    assert health.slots(8, 0, 11.0) == 1
    assert health.slots(8, 1, 11.0) == 0


def test_requests_that_fail_together_count_once() -> None:
    """What was in flight when it failed does not lengthen the next wait."""
    health = Health(RETRY)
    for _ in range(8):
        fail(health, started_s=9, now_s=10)
    assert health.failures == 1
    fail(health, started_s=11, now_s=12)
    assert health.not_before_s == 14


def test_the_destinations_own_wish_is_kept() -> None:
    """A longer pause that the destination asked for counts more than ours."""
    health = Health(RETRY)
    fail(health, now_s=1, pause_s=30)
    assert health.not_before_s == 31


def test_only_a_request_that_began_after_the_failure_can_end_it() -> None:
    """A late success of what was under way is no recovery; the next try's is."""
    health = Health(RETRY)
    fail(health, started_s=9, now_s=10)
    health.worked(started_s=9)
    assert health.slots(8, 0, 11.0) == 1
    health.worked(started_s=11)
    assert health.slots(8, 0, 11.0) == 2


def test_after_a_recovery_more_are_let_go_with_each_success() -> None:
    """What has piled up does not fall upon it: 2 at once, one more with each success, then all."""
    health = Health(RETRY)
    fail(health)
    health.worked(started_s=1)
    assert health.slots(8, 0, 1.0) == 2
    for expected in (3, 4, 5, 6, 7, 8, 8):
        health.worked(started_s=2)
        assert health.slots(8, 0, 2.0) == expected


def test_another_failure_begins_anew() -> None:
    """One that fails while it recovers is asked by one request again, and begins at 2 again."""
    health = Health(RETRY)
    fail(health)
    health.worked(started_s=1)
    health.worked(started_s=2)
    fail(health, started_s=3, now_s=3)
    assert health.slots(8, 0, 4.0) == 1
    health.worked(started_s=5)
    assert health.slots(8, 0, 5.0) == 2


def test_a_stopped_one_is_asked_no_more() -> None:
    """Once stopped, nothing starts, whatever the time and whatever still succeeds."""
    health = Health(RETRY)
    health.stop()
    health.worked(started_s=9)
    assert health.slots(8, 0, 1e9) == 0
