from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.errors import RetryableError, StorageFullError
from pipeline.metrics import Registry
from pipeline.sink.destination import Destination, Surroundings
from pipeline.sink.endings import downlink_ending, sink_ending
from pipeline.sink.retry import RetryConfig
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Result, Verdict
from tests.unit.sink.fakes import (
    POSTPONED,
    REFUSED,
    SETTINGS,
    START_MS,
    TENANT,
    FakeClock,
    FakeLog,
    FakeTransport,
    World,
    delivery,
    downlink_delivery,
    run,
)

RETRY = RetryConfig(first=1, factor=2, max=60, jitter=0)


class Bench:
    """One destination over fakes."""

    def __init__(self, settings: SinkSettings = SETTINGS, **transport: Any) -> None:
        self.world = World()
        self.log = FakeLog(self.world)
        self.clock = FakeClock(self.world)
        self.metrics = Registry()
        self.failures: list[BaseException] = []
        self.transport = FakeTransport(self.world, **{"retry": RETRY} | transport)
        self._settings = settings
        self.destination = self._make("app")

    def _make(self, name: str) -> Destination:
        around = Surroundings(
            self.log,
            self._settings,
            self.metrics,
            self.clock.now_ms,
            lambda: 0.0,
            self.clock,
        )
        ending = downlink_ending if name.startswith("downlink-") else sink_ending
        return Destination(TENANT, name, self.transport, ending, around)

    @asynccontextmanager
    async def running(self, name: str = "app") -> AsyncIterator[Bench]:
        self.destination = self._make(name)
        self.destination.start(self._fail)
        try:
            yield self
        finally:
            await self.destination.stop(5)

    def _fail(self, error: BaseException) -> None:
        self.failures.append(error)
        self.world.stir()

    async def reached(self, position: int, name: str = "app") -> None:
        await self.world.until(lambda: self.log.position(name) >= position)

    def counted(self, result: str, name: str = "app") -> float:
        labels = (("destination", name), ("result", result), ("tenant", TENANT))
        return self.metrics.values("funicular_deliveries_total").get(labels, 0)


def test_all_are_delivered_in_order_and_the_position_follows() -> None:
    """Records become deliveries, per device in order; the position ends behind the last."""

    async def main() -> None:
        bench = Bench()
        for number in range(30):
            bench.log.deliver(delivery(number, f"dev{number % 3}"))
        async with bench.running():
            await bench.reached(30)
        for device in range(3):
            own = [f"d{number}" for number in range(30) if number % 3 == device]
            assert [one for one in bench.transport.delivered if one in own] == own
        assert bench.counted("delivered") == 30
        assert bench.log.appended == []

    run(main())


def test_one_device_waits_while_others_go_on() -> None:
    """A device whose delivery takes long has one in flight; other devices pass it by."""

    async def main() -> None:
        bench = Bench()
        gate = bench.transport.gates["slow"] = asyncio.Event()
        for number, device in enumerate(["slow", "slow", "b", "c"]):
            bench.log.deliver(delivery(number, device))
        async with bench.running():
            await bench.world.until(lambda: bench.transport.delivered == ["d2", "d3"])
            assert [batch for batch in bench.transport.batches if batch == ["d1"]] == []
            assert bench.log.position("app") == 0
            gate.set()
            await bench.reached(4)
        assert bench.transport.delivered == ["d2", "d3", "d0", "d1"]

    run(main())


def test_concurrency_is_limited() -> None:
    """No more deliveries are in flight than the transport allows."""

    async def main() -> None:
        bench = Bench(concurrency=3)
        for number in range(10):
            bench.transport.gates[f"dev{number}"] = asyncio.Event()
            bench.log.deliver(delivery(number, f"dev{number}"))
        async with bench.running():
            await bench.world.until(lambda: len(bench.transport.batches) == 3)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(bench.transport.batches) == 3
            for gate in bench.transport.gates.values():
                gate.set()
            await bench.reached(10)

    run(main())


def test_the_destinations_fault_pauses_it_and_keeps_the_order() -> None:
    """On a failure it waits 1, 2, 4 s, the position stays, and order is as it was."""

    async def main() -> None:
        bench = Bench()
        bench.transport.results["d0"].extend([POSTPONED] * 3)
        for number in range(3):
            bench.log.deliver(delivery(number))
        with capture_logs() as logs:
            async with bench.running():
                waits = [await bench.clock.jump() for _ in range(3)]
                await bench.reached(3)
        assert waits == [1, 2, 4]
        assert bench.transport.delivered == ["d0", "d1", "d2"]
        assert bench.transport.batches[:4] == [["d0"]] * 4
        assert bench.counted("retried") == 3
        events = [entry["event"] for entry in logs]
        assert events == [
            "A destination fails; its deliveries wait.",
            "A destination works again.",
        ]

    run(main())


def test_a_failing_destination_is_tried_by_one_request() -> None:
    """During an outage one request at a time goes out, and all go again after it."""

    async def main() -> None:
        bench = Bench(concurrency=4)
        for number in range(8):
            bench.log.deliver(delivery(number, f"dev{number}"))
            bench.transport.results[f"d{number}"].append(POSTPONED)
        async with bench.running():
            await bench.world.until(bench.clock.due)
            assert len(bench.transport.batches) == 4
            for sent in (5, 6, 7, 8):
                await bench.clock.jump()
                await bench.world.until(lambda sent=sent: len(bench.transport.batches) == sent)
            await bench.clock.jump()
            await bench.reached(8)
        assert sorted(bench.transport.delivered) == [f"d{number}" for number in range(8)]

    run(main())


def test_the_destinations_own_pause_is_kept() -> None:
    """`Retry-After` of a failure, and a pause with a success, hold up the next request."""

    async def main() -> None:
        bench = Bench()
        bench.transport.results["d0"].extend(
            [
                RetryableError("try later", retry_after_s=30),
                type(POSTPONED)(verdict="delivered", pause_s=7.0),  # type: ignore[arg-type]
            ]
        )
        bench.log.deliver(delivery(0))
        bench.log.deliver(delivery(1))
        async with bench.running():
            assert await bench.clock.jump() == 30
            assert await bench.clock.jump() == 7
            await bench.reached(2)

    run(main())


def test_the_messages_fault_is_a_dead_letter_at_once() -> None:
    """A refused message goes to `dead.letter` with the position; its successor goes on."""

    async def main() -> None:
        bench = Bench()
        bench.transport.results["d0"].append(REFUSED)
        bench.log.deliver(delivery(0))
        bench.log.deliver(delivery(1))
        async with bench.running():
            await bench.reached(2)
        (letter,) = bench.log.dead_letters()
        assert (letter.stage, letter.reason, letter.detail["status"]) == ("sink", "rejected", 422)
        assert letter.value == bench.log.topics["delivery.acme.app"][0].value
        assert bench.transport.delivered == ["d1"]
        assert bench.counted("refused") == 1
        labels = (("reason", "rejected"), ("stage", "sink"))
        assert bench.metrics.values("funicular_dead_letters_total") == {labels: 1}

    run(main())


@pytest.mark.parametrize("value", [None, b"", b"no json", b'{"id": 1}', b"\xff", b"[" * 100_000])
def test_a_record_that_is_no_delivery_does_not_stop_the_rest(value: bytes | None) -> None:
    """What cannot be read is buried; the next is delivered."""

    async def main() -> None:
        bench = Bench()
        bench.log.put("delivery.acme.app", value)
        bench.log.deliver(delivery(1))
        async with bench.running():
            await bench.reached(2)
        (letter,) = bench.log.dead_letters()
        assert (letter.reason, letter.value) == ("bad_delivery", value)
        assert bench.transport.delivered == ["d1"]

    run(main())


def test_giving_up_needs_to_be_asked_for() -> None:
    """With `give_up_after` a delivery that fails past it is buried with its attempts."""

    async def main() -> None:
        retry = RETRY.model_copy(update={"give_up_after": 5.0})
        bench = Bench(retry=retry)
        bench.transport.results["d0"].extend([POSTPONED] * 99)
        bench.log.deliver(delivery(0))
        bench.log.deliver(delivery(1))
        async with bench.running():
            for _ in range(4):
                await bench.clock.jump()
            await bench.reached(2)
        (letter,) = bench.log.dead_letters()
        assert (letter.reason, letter.detail["attempts"]) == ("given_up", 4)
        assert letter.detail["last_error"] == "the destination answered 503"
        assert bench.counted("given_up") == 1

    run(main())


def test_one_message_that_always_fails_does_not_stop_the_others() -> None:
    """A message that makes the destination fail each time is tried ever more rarely."""

    async def main() -> None:
        bench = Bench(concurrency=1)
        bench.transport.results["d0"].extend([POSTPONED] * 999)
        bench.log.deliver(delivery(0, "poison"))
        async with bench.running():
            for number in range(1, 40):
                bench.log.deliver(delivery(number, f"dev{number}"))
                if number == 20:
                    for _ in range(8):
                        await bench.clock.jump()
            await bench.clock.jump()
            await bench.world.until(lambda: len(bench.transport.delivered) == 39)
            tries = sum(batch == ["d0"] for batch in bench.transport.batches)
        assert tries < 15
        assert bench.log.position("app") == 0

    run(main())


def test_results_above_the_position_are_written_at_once() -> None:
    """An outcome is durable before the position can pass it, though an earlier one is open."""

    async def main() -> None:
        bench = Bench()
        gate = bench.transport.gates["slow"] = asyncio.Event()
        bench.transport.results["d1"].append(REFUSED)
        bench.log.deliver(delivery(0, "slow"))
        bench.log.deliver(delivery(1, "b"))
        async with bench.running():
            await bench.world.until(bench.log.dead_letters)
            assert bench.log.position("app") == 0
            gate.set()
            await bench.reached(2)
        assert len(bench.log.dead_letters()) == 1

    run(main())


def test_results_do_not_wait_for_the_commit_interval() -> None:
    """An outcome is written at once; a position alone waits for the interval."""

    async def main() -> None:
        bench = Bench(SinkSettings(commit_interval_s=60))
        bench.log.deliver(delivery(0))
        async with bench.running():
            await bench.world.until(lambda: bench.clock.due() == [60])
            assert bench.log.position("app") == 0
            bench.transport.results["d1"].append(REFUSED)
            bench.log.deliver(delivery(1))
            await bench.reached(2)
            assert bench.clock.now_s == 0

    run(main())


def test_a_stop_while_the_log_is_full() -> None:
    """A stop does not wait for room; what could not be written is repeated by the next run."""

    async def main() -> None:
        bench = Bench()
        bench.transport.results["d0"].append(REFUSED)
        bench.log.refusals.extend([StorageFullError("no room on the disk")] * 99)
        bench.log.deliver(delivery(0))
        async with bench.running():
            await bench.world.until(bench.clock.due)
            await bench.destination.stop(5)
        assert bench.log.position("app") == 0
        bench.log.refusals.clear()
        bench.transport.results["d0"].append(REFUSED)
        async with bench.running():
            await bench.reached(1)
        assert len(bench.log.dead_letters()) == 1

    run(main())


def test_no_position_passes_a_result_that_was_not_written() -> None:
    """Where the log took nothing up to the stop, nothing later is written though there is room."""

    async def main() -> None:
        bench = Bench()
        bench.transport.results["d0"].append(REFUSED)
        bench.log.refusals.extend([StorageFullError("no room on the disk")] * 2)
        bench.log.deliver(delivery(0, "a"))
        async with bench.running():
            await bench.world.until(bench.clock.due)
            bench.log.deliver(delivery(1, "b"))
            await bench.world.until(lambda: bench.transport.delivered == ["d1"])
            await bench.destination.stop(5)
        assert bench.log.position("app") == 0
        bench.transport.results["d0"].append(REFUSED)
        async with bench.running():
            await bench.reached(2)
        assert [letter.offset for letter in bench.log.dead_letters()] == [0]

    run(main())


def test_a_full_log_loses_no_result() -> None:
    """While the log takes nothing, results and position are kept and written later."""

    async def main() -> None:
        bench = Bench()
        bench.transport.results["d0"].append(REFUSED)
        bench.log.refusals.extend([StorageFullError("no room on the disk")] * 3)
        bench.log.deliver(delivery(0))
        with capture_logs() as logs:
            async with bench.running():
                for _ in range(3):
                    await bench.clock.jump()
                await bench.reached(1)
        assert len(bench.log.dead_letters()) == 1
        full = [entry for entry in logs if "log takes no results" in entry["event"]]
        assert len(full) == 1

    run(main())


def test_stop_finishes_what_is_in_flight() -> None:
    """A stop waits for the request under way and commits it; what waited is not begun."""

    async def main() -> None:
        bench = Bench(concurrency=1)
        gate = bench.transport.gates["a"] = asyncio.Event()
        bench.log.deliver(delivery(0, "a"))
        bench.log.deliver(delivery(1, "b"))
        async with bench.running():
            await bench.world.until(lambda: bench.transport.batches)
            stop = asyncio.create_task(bench.destination.stop(5))
            await asyncio.sleep(0)
            gate.set()
            await stop
        assert bench.transport.delivered == ["d0"]
        assert bench.log.position("app") == 1
        assert bench.transport.closes == 1
        async with bench.running():
            await bench.reached(2)
        assert bench.transport.delivered == ["d0", "d1"]

    run(main())


def test_a_stop_that_runs_out_of_time_loses_nothing() -> None:
    """What is still in flight at the end of the time is delivered again by the next run."""

    async def main() -> None:
        bench = Bench()
        bench.transport.gates["a"] = asyncio.Event()
        bench.log.deliver(delivery(0, "b"))
        bench.log.deliver(delivery(1, "a"))
        bench.log.deliver(delivery(2, "b"))
        async with bench.running():
            await bench.reached(1)
            await bench.world.until(lambda: bench.transport.delivered == ["d0", "d2"])
            await bench.destination.stop(0)
        assert bench.log.position("app") == 1
        assert bench.destination.status().state == "stopped"
        bench.transport.gates.clear()
        async with bench.running():
            await bench.reached(3)
        assert bench.transport.delivered == ["d0", "d2", "d1", "d2"]

    run(main())


def test_a_stop_does_not_wait_for_a_pause() -> None:
    """A destination that waits for its next try stops at once, its position where it was."""

    async def main() -> None:
        bench = Bench()
        bench.transport.results["d0"].extend([POSTPONED] * 9)
        bench.log.deliver(delivery(0))
        async with bench.running():
            await bench.world.until(bench.clock.due)
            assert bench.destination.status().state == "failing"
            await bench.destination.stop(5)
        assert bench.log.position("app") == 0

    run(main())


def test_what_cannot_be_opened_is_tried_again_and_said_once() -> None:
    """An open error is retried with growing waits; the log says it once, and the recovery."""

    async def main() -> None:
        bench = Bench()
        bench.transport.open_errors.extend(
            [RetryableError("no such folder"), OSError("busy"), RetryableError("no such folder")]
        )
        bench.log.deliver(delivery(0))
        with capture_logs() as logs:
            async with bench.running():
                assert [await bench.clock.jump() for _ in range(3)] == [1, 2, 4]
                await bench.reached(1)
        assert [entry["event"] for entry in logs] == [
            "A destination fails; its deliveries wait.",
            "A destination works again.",
        ]

    run(main())


def test_a_stop_while_it_cannot_be_opened() -> None:
    """A destination that never opened stops at once."""

    async def main() -> None:
        bench = Bench()
        bench.transport.open_errors.extend([RetryableError("no")] * 99)
        async with bench.running():
            await bench.world.until(bench.clock.due)
            await bench.destination.stop(5)
        assert bench.destination.status().state == "stopped"

    run(main())


def test_a_stop_while_it_opens() -> None:
    """A stop that comes while the transport opens ends without waiting for its time."""

    async def main() -> None:
        bench = Bench()
        gate = bench.transport.gates["open"] = asyncio.Event()
        bench.log.deliver(delivery(0))
        async with bench.running():
            await bench.world.until(lambda: bench.transport.opens)
            stop = asyncio.create_task(bench.destination.stop(600))
            await asyncio.sleep(0)
            gate.set()
            await stop
        assert bench.transport.delivered == []
        assert bench.destination.status().state == "stopped"

    run(main())


def test_a_bug_stops_this_destination_and_is_told() -> None:
    """An exception that is nobody's fault but ours stops it without moving the position."""

    async def main() -> None:
        bench = Bench()
        bench.transport.results["d0"].append(ZeroDivisionError("bug"))
        bench.log.deliver(delivery(0))
        async with bench.running():
            await bench.world.until(lambda: bench.failures)
            assert isinstance(bench.failures[0], ExceptionGroup)
        assert bench.log.position("app") == 0
        assert bench.destination.status().state == "stopped"

    run(main())


def test_reading_stops_while_too_much_waits() -> None:
    """A dead destination holds a bounded number of records in memory."""

    async def main() -> None:
        settings = SinkSettings(commit_interval_s=0, read_records_max=10, waiting_records_max=50)
        bench = Bench(settings)
        gate = bench.transport.gates["a"] = asyncio.Event()
        for number in range(500):
            bench.log.deliver(delivery(number, "a"))
        async with bench.running():
            await bench.world.until(lambda: bench.destination.status().waiting >= 50)
            for _ in range(50):
                await asyncio.sleep(0)
            assert bench.destination.status().waiting <= 60
            gate.set()
            await bench.reached(500)
        assert len(bench.transport.delivered) == 500

    run(main())


def test_reading_stops_while_too_many_bytes_wait() -> None:
    """Likewise by size, where messages are large."""

    async def main() -> None:
        settings = SinkSettings(commit_interval_s=0, read_records_max=2, waiting_bytes_max=100_000)
        bench = Bench(settings)
        gate = bench.transport.gates["a"] = asyncio.Event()
        for number in range(40):
            bench.log.deliver(delivery(number, "a", body="x" * 20_000))
        async with bench.running():
            await bench.world.until(lambda: bench.destination.status().waiting >= 5)
            for _ in range(50):
                await asyncio.sleep(0)
            assert bench.destination.status().waiting <= 7
            gate.set()
            await bench.reached(40)

    run(main())


def test_a_downlink_expires_while_its_network_server_is_down() -> None:
    """Its outcome is written when its time runs out, though the destination is paused."""

    async def main() -> None:
        bench = Bench()
        expires_at_ms = bench.clock.now_ms() + 2_500
        bench.log.deliver(downlink_delivery(1, expires_at_ms=expires_at_ms))
        bench.transport.results["l1.d"].extend([POSTPONED] * 9)
        async with bench.running("downlink-ns"):
            await bench.world.until(lambda: bench.clock.due()[:1] == [1])
            await bench.clock.jump()
            await bench.world.until(lambda: bench.clock.due()[:1] == [1.5])
            await bench.clock.jump()
            await bench.reached(1, "downlink-ns")
        assert len(bench.transport.batches) == 2
        (event,) = bench.log.reports()
        assert event.report.state == "expired"
        assert event.report.detail["attempts"] == 2
        assert event.report.detail["possibly_delivered"] is True

    run(main())


def test_an_expired_downlink_is_never_sent() -> None:
    """One whose time is over when it is read expires without a request."""

    async def main() -> None:
        bench = Bench()
        bench.log.deliver(downlink_delivery(1, expires_at_ms=bench.clock.now_ms() - 1))
        async with bench.running("downlink-ns"):
            await bench.reached(1, "downlink-ns")
        assert bench.transport.batches == []
        (event,) = bench.log.reports()
        assert (event.report.state, event.report.downlink_id) == ("expired", "l1")
        assert bench.counted("expired", "downlink-ns") == 1

    run(main())


def test_batches_mix_devices_in_order() -> None:
    """A transport that takes several gets them in order of arrival, one call at a time."""

    async def main() -> None:
        bench = Bench(deliveries_max=4, concurrency=1)
        for number in range(10):
            bench.log.deliver(delivery(number, f"dev{number % 2}"))
        async with bench.running():
            await bench.reached(10)
        assert bench.transport.batches == [
            ["d0", "d1", "d2", "d3"],
            ["d4", "d5", "d6", "d7"],
            ["d8", "d9"],
        ]

    run(main())


def test_partitions_are_released_when_nothing_is_under_way() -> None:
    """A release waits for what is in flight and commits it, and starts nothing; afterwards only
    what was read of the partitions that are held goes on.
    """

    async def main() -> None:
        bench = Bench(concurrency=1)
        gate = bench.transport.gates["a"] = asyncio.Event()
        for number, (partition, device) in enumerate([(0, "a"), (1, "b"), (0, "c"), (1, "d")]):
            bench.log.deliver(delivery(number, device), partition)
        async with bench.running():
            await bench.world.until(lambda: bench.transport.batches)
            releasing = asyncio.create_task(bench.destination.release())
            for _ in range(20):
                await asyncio.sleep(0)
            assert not releasing.done()
            gate.set()
            await releasing
            assert bench.transport.batches == [["d0"]]
            assert bench.log.position("app") == 1
            bench.destination.hold({1})
            await bench.world.until(lambda: bench.log.positions.get("sink-acme-app.1") == 4)
        assert bench.transport.delivered == ["d0", "d1", "d3"]
        assert bench.log.position("app") == 1

    run(main())


def test_what_lands_too_late_for_its_partition_leaves_no_trace() -> None:
    """Where a partition went away while its delivery was in flight, the refusal makes no dead
    letter here and no position moves: whoever has the partition now delivers it again.
    """

    async def main() -> None:
        bench = Bench()
        gate = bench.transport.gates["a"] = asyncio.Event()
        bench.transport.results["d0"].append(REFUSED)
        bench.log.deliver(delivery(0, "a"))
        async with bench.running():
            await bench.world.until(lambda: bench.transport.batches)
            bench.destination.hold(())
            gate.set()
            bench.log.deliver(delivery(1, "b"), 1)
            await bench.world.until(lambda: bench.log.positions.get("sink-acme-app.1") == 2)
        assert bench.log.dead_letters() == []
        assert bench.log.position("app") == 0

    run(main())


async def settled() -> None:
    """Let all that can go on without time or an answer go on."""
    for _ in range(50):
        await asyncio.sleep(0)


GONE = Result(Verdict.POSTPONED, "gone", "the destination answered 410", stop=True)


def test_a_destination_that_is_gone_is_left_alone() -> None:
    """After its wish for nothing more it is asked no more, keeps its deliveries, and is shown."""

    async def main() -> None:
        bench = Bench()
        bench.transport.results["d0"].append(GONE)
        bench.log.deliver(delivery(0))
        with capture_logs() as logs:
            async with bench.running():
                await settled()
                assert bench.destination.status().state == "disabled"
                bench.log.deliver(delivery(1, "other"))
                await settled()
                bench.clock.advance(1e7)
                await settled()
                assert bench.destination.status().waiting == 2
                assert bench.transport.batches == [["d0"]]
                assert bench.clock.due() == []
                states = bench.metrics.values("funicular_destination_state")
                assert {dict(labels)["state"]: value for labels, value in states.items()} == {
                    "ok": 0, "failing": 0, "disabled": 1
                }  # fmt: skip
        assert bench.log.position("app") == 0
        assert bench.log.dead_letters() == []
        (told,) = [entry for entry in logs if entry["log_level"] == "error"]
        assert "enabled again by a change of its YAML or a restart" in told["event"]
        async with bench.running():
            await bench.reached(2)
        assert bench.transport.delivered == ["d0", "d1"]

    run(main())


def test_what_expires_at_a_disabled_destination_ends() -> None:
    """Time runs out also for what a disabled destination would have got, and that is told."""

    async def main() -> None:
        bench = Bench()
        bench.transport.results["d0"].append(GONE)
        bench.log.deliver(delivery(0, expires_at_ms=START_MS + 5_000))
        async with bench.running():
            await settled()
            assert bench.destination.status().state == "disabled"
            await bench.clock.jump()
            await bench.reached(1)
        assert [letter.reason for letter in bench.log.dead_letters()] == ["expired"]

    run(main())


def test_a_backlog_is_let_go_slowly() -> None:
    """After an outage two requests go at once, then ever more, up to the concurrency."""

    async def main() -> None:
        bench = Bench(concurrency=4)
        bench.transport.results["d0"].append(POSTPONED)
        bench.log.deliver(delivery(0, "dev0"))
        async with bench.running():
            await bench.world.until(bench.clock.due)
            bench.log.deliver(delivery(1, "dev1"))
            for number in range(2, 12):
                bench.transport.gates[f"dev{number}"] = asyncio.Event()
                bench.log.deliver(delivery(number, f"dev{number}"))
            await bench.clock.jump()
            for number, in_flight in enumerate((2, 3, 4, 4), 1):
                # d0 failed, d1 was the try; of the rest, those before `number` have arrived.
                await settled()
                assert len(bench.transport.batches) == 1 + number + in_flight
                bench.transport.gates[f"dev{number + 1}"].set()
            for gate in bench.transport.gates.values():
                gate.set()
            await bench.reached(12)

    run(main())
