from __future__ import annotations

import asyncio
import random as random_numbers
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from pipeline.integrations.dialect import dialects
from pipeline.metrics import Registry
from pipeline.model.uplink import Link
from pipeline.rulebook.book import Rulebook
from pipeline.sink.file import FileConfig
from pipeline.sink.http import HttpConfig
from pipeline.sink.worker import Sinks
from tests.unit.sink.fakes import (
    SETTINGS,
    TENANT,
    FakeClock,
    FakeLog,
    Server,
    World,
    answers,
    delivery,
    downlink_delivery,
    drips,
    floods,
    integration,
    resets,
    rulebook,
    run,
    says_nothing,
    serving,
)


class Bench:
    """Sinks over a fake log and a real server."""

    def __init__(self, world: World, server: Server, folder: Path) -> None:
        self.world = world
        self.server = server
        self.log = FakeLog(world)
        self.clock = FakeClock(world)
        self.metrics = Registry()
        self.books: dict[str, Rulebook] = {}
        self.settings = replace(SETTINGS, folder=folder)
        self.sinks = self.make()

    def make(self) -> Sinks:
        return Sinks(
            self.log,
            lambda: self.books,
            self.settings,
            self.metrics,
            self.clock.now_ms,
            lambda: 0.0,
            clock=self.clock,
        )

    def http(self, path: str, **config: Any) -> tuple[str, HttpConfig]:
        return "http", HttpConfig(url=self.server.url + path, **config)

    def rules(self, *integrations: Any, **sinks: Any) -> None:
        self.books = {TENANT: rulebook(sinks, integrations)}

    async def reached(self, position: int, name: str = "app") -> None:
        await self.world.until(lambda: self.log.position(name) >= position)

    def heard(self, path: str) -> list[int]:
        return [heard.json["n"] for heard in self.server.heard if heard.path == path]


@asynccontextmanager
async def bench_of(folder: Path) -> AsyncIterator[Bench]:
    world = World()
    async with serving(world) as server:
        bench = Bench(world, server, folder)
        try:
            yield bench
        finally:
            await bench.sinks.stop(0)


def test_every_sink_gets_its_own(tmp_path: Path) -> None:
    """Each sink of the rules reads its own topic and delivers by its own transport."""

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            bench.rules(app=bench.http("/app"), archive=("file", FileConfig(path="a.jsonl")))
            bench.log.deliver(delivery(1))
            bench.log.deliver(delivery(2, destination="archive"))
            await bench.sinks.start()
            await bench.reached(1)
            await bench.reached(1, "archive")
            assert bench.heard("/app") == [1]
            line = msgspec.json.decode((tmp_path / "a.jsonl").read_bytes())
            assert line["body"]["n"] == 2

    run(main())


DEAD = {
    "500": answers(500),
    "429": answers(429, retry_after="60"),
    "redirect": answers(302, location="/elsewhere"),
    "reset": resets,
    "silence": says_nothing,
}


@pytest.mark.parametrize("mood", DEAD)
def test_a_dead_destination_delays_only_itself(tmp_path: Path, mood: str) -> None:
    """While one destination fails in whatever way, the others get all theirs."""

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            bench.server.always["/dead"] = DEAD[mood]
            bench.rules(dead=bench.http("/dead", timeout=0.2), app=bench.http("/app"))
            for number in range(20):
                bench.log.deliver(delivery(number, f"dev{number % 4}"))
                bench.log.deliver(delivery(number, f"dev{number % 4}", destination="dead"))
            await bench.sinks.start()
            await bench.reached(20)
            assert sorted(bench.heard("/app")) == list(range(20))
            assert bench.log.position("dead") == 0
            assert bench.log.dead_letters() == []
            await bench.world.until(
                lambda: [one.state for one in bench.sinks.status()] == ["ok", "failing"]
            )
            bench.server.always["/dead"] = answers(200)
            bench.server.heard.clear()
            while bench.log.position("dead") < 20:
                await bench.clock.jump()
                await bench.world.until(
                    lambda: bench.clock.due() or bench.log.position("dead") == 20
                )
            for device in range(4):
                own = [number for number in bench.heard("/dead") if number % 4 == device]
                assert own == list(range(device, 20, 4))

    run(main())


@pytest.mark.parametrize("mood", [drips(200), floods(200)])
def test_a_slow_or_giant_answer_delays_only_its_own_destination(tmp_path: Path, mood: Any) -> None:
    """A body without end costs its own destination some time, and nobody anything else."""

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            bench.server.always["/slow"] = mood
            bench.rules(slow=bench.http("/slow", timeout=0.2), app=bench.http("/app"))
            for number in range(3):
                bench.log.deliver(delivery(number))
                bench.log.deliver(delivery(number, destination="slow"))
            await bench.sinks.start()
            await bench.reached(3)
            await bench.reached(3, "slow")
            assert bench.heard("/slow") == [0, 1, 2]

    run(main())


def test_500_then_200(tmp_path: Path) -> None:
    """A destination that recovers gets the same message again, with the same id, in order."""

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            bench.server.moods["/app"].extend([answers(500), answers(503)])
            bench.rules(app=bench.http("/app"))
            for number in range(3):
                bench.log.deliver(delivery(number))
            await bench.sinks.start()
            assert [await bench.clock.jump(), await bench.clock.jump()] == [1, 2]
            await bench.reached(3)
            assert bench.heard("/app") == [0, 0, 0, 1, 2]
            ids = [heard.headers["webhook-id"] for heard in bench.server.heard]
            assert ids == ["d0", "d0", "d0", "d1", "d2"]

    run(main())


def test_429_waits_as_long_as_it_says(tmp_path: Path) -> None:
    """`Retry-After` is kept where it is longer than our own wait."""

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            bench.server.moods["/app"].append(answers(429, retry_after="17"))
            bench.rules(app=bench.http("/app"))
            bench.log.deliver(delivery(0))
            await bench.sinks.start()
            assert await bench.clock.jump() == 17
            await bench.reached(1)

    run(main())


def test_4xx_is_a_dead_letter(tmp_path: Path) -> None:
    """A refused message is buried with the status and what was said; the next one goes out."""

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            bench.server.moods["/app"].append(answers(422, b"temperature is missing"))
            bench.rules(app=bench.http("/app"))
            bench.log.deliver(delivery(0))
            bench.log.deliver(delivery(1))
            await bench.sinks.start()
            await bench.reached(2)
            (letter,) = bench.log.dead_letters()
            assert (letter.stage, letter.reason) == ("sink", "rejected")
            assert letter.detail == {
                "status": 422,
                "response": "temperature is missing",
                "destination": "app",
            }

    run(main())


def test_downlinks_report_what_became_of_them(tmp_path: Path) -> None:
    """An asynchronous integration's downlinks go out, and `device.events` tells their outcome."""

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            dialect = dialects()["ttn_v2"]
            bench.rules(integration(dialect, options=dialect.options()))
            link = Link(device_id="dev1", urls={"downlink": bench.server.url + "/down?key=k"})
            for number in (1, 2, 3):
                one = downlink_delivery(number)
                bench.log.deliver(msgspec.structs.replace(one, link=link))
            bench.server.moods["/down"].extend([answers(200), answers(400, b"no such device")])
            await bench.sinks.start()
            await bench.reached(3, "downlink-ns")
            reports = [event.report for event in bench.log.reports()]
            assert [(one.downlink_id, one.state, one.reason) for one in reports] == [
                ("l1", "sent", ""),
                ("l2", "failed", "rejected"),
                ("l3", "sent", ""),
            ]
            assert bench.log.dead_letters() == []

    run(main())


def test_synchronous_integrations_have_no_destination(tmp_path: Path) -> None:
    """Where a device can only be answered, nothing is sent by a sink."""

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            bench.rules(integration(dialects()["sigfox"], synchronous=True))
            await bench.sinks.start()
            assert bench.sinks.status() == []

    run(main())


def test_refresh_follows_the_rules(tmp_path: Path) -> None:
    """New sinks start, removed ones stop, changed ones restart, the others are left alone."""

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            bench.rules(app=bench.http("/app"), old=bench.http("/old"), kept=bench.http("/kept"))
            await bench.sinks.start()
            kept = bench.sinks._running[TENANT, "kept"]
            bench.rules(app=bench.http("/app2"), new=bench.http("/new"), kept=bench.http("/kept"))
            await bench.sinks.refresh()
            assert bench.sinks._running[TENANT, "kept"] is kept
            for name in ("app", "new", "old"):
                bench.log.deliver(delivery(7, destination=name))
            await bench.reached(1)
            await bench.reached(1, "new")
            assert {heard.path for heard in bench.server.heard} == {"/app2", "/new"}
            assert bench.log.position("old") == 0
            bench.rules(old=bench.http("/old"))
            await bench.sinks.refresh()
            await bench.reached(1, "old")
            assert bench.heard("/old") == [7]

    run(main())


def test_a_stop_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    """Stopped and started again at many moments, each message arrives, per device in order."""

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            bench.rules(app=bench.http("/app"))
            for number in range(200):
                bench.log.deliver(delivery(number, f"dev{number % 5}"))
            chance = random_numbers.Random(7)
            while bench.log.position("app") < 200:
                bench.sinks = bench.make()
                await bench.sinks.start()
                goal = len(bench.server.heard) + chance.randrange(1, 40)
                await bench.world.until(
                    lambda goal=goal: (
                        len(bench.server.heard) >= goal or bench.log.position("app") == 200
                    )
                )
                await bench.sinks.stop(chance.choice([0, 5]))
            heard = bench.heard("/app")
            assert set(heard) == set(range(200))
            for device in range(5):
                own = [number for number in heard if number % 5 == device]
                first_times = list(dict.fromkeys(own))
                assert first_times == sorted(first_times)

    run(main())


def test_a_bug_is_told_to_the_worker(tmp_path: Path) -> None:
    """`failure` gives the bug by which a destination stopped."""

    class Broken:
        """A dialect with a bug."""

        name = "broken"

        def send(self, *_: Any) -> Any:
            raise ZeroDivisionError

    async def main() -> None:
        async with bench_of(tmp_path) as bench:
            bench.rules(integration(Broken()))
            bench.log.deliver(downlink_delivery(1))
            with capture_logs() as logs:
                await bench.sinks.start()
                error = await bench.sinks.failure()
            assert isinstance(error, ExceptionGroup)
            assert [entry for entry in logs if "bug" in entry["event"]]
            assert bench.log.position("downlink-ns") == 0

    run(main())


def test_a_real_clock_waits() -> None:
    """The real clock returns at the event, or at the end of the time."""
    from pipeline.sink.clock import MonotonicClock

    async def main() -> None:
        clock = MonotonicClock()
        event = asyncio.Event()
        before = clock.monotonic()
        await clock.wait(event, 0.01)
        assert clock.monotonic() >= before + 0.009
        event.set()
        await clock.wait(event, None)
        await clock.wait(event, 60)

    run(main())
