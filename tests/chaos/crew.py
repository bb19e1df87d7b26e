"""The program on Kafka with a worker for each job, under load, and how long it takes to recover."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import aiohttp
import orjson
from click.testing import CliRunner

from pipeline.cli import main
from tests.kafka.brokers import Brokers
from tests.process.ledger import DEVICES, KINDS, Ledger, downlink_number, send_all
from tests.process.ledger_rules import write_rules
from tests.process.program import Program, Servers

PARTITIONS = 6
READY_S = 120.0
RECOVER_S = 180.0
DRAIN_S = 60.0
WORKERS = {
    "ingest": ("ingest",),
    "convert": ("convert",),
    "route": ("route",),
    "downlink": ("downlink",),
    "sink": ("sink",),
    "all": ("convert", "route", "downlink"),
}
"""Name → rooms. Each stage has two workers, so that one can take over from the other."""
PROBES = ("ttn", "tts")
"""The kinds that are answered at once; recovery is told from their devices."""


class Crew:
    """Brokers, workers, the servers around them, and the ledger of what was sent."""

    def __init__(self, brokers: Brokers, folder: Path, *, senders: int, tick_s: float) -> None:
        self.brokers = brokers
        self.folder = folder
        self.senders = senders
        self.tick_s = tick_s
        self.ledger = Ledger(rest_s=0.1, tick_s=tick_s)
        self.prefix = "chaos."
        self.archive = folder / "archive.jsonl"
        self.chance = random.Random(7)
        self.servers = Servers()
        self.programs: dict[str, Program] = {}
        self.complaints: list[str] = []
        self._away: set[str] = set()
        self._stack = ExitStack()
        self._rules = folder / "rules"
        self._env: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        await self.servers.__aenter__()
        write_rules(self._rules)
        copies = min(3, len(self.brokers.nodes))
        url = f"kafka://{self.brokers.bootstrap}?prefix={self.prefix}&partitions={PARTITIONS}"
        self._env = {
            "LEDGER_SERVERS": self.servers.url,
            "LEDGER_ARCHIVE": str(self.archive),
            "FUNICULAR_LOG": f"{url}&replication={copies}",
        }
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        made = await asyncio.to_thread(
            CliRunner().invoke, main, ["topics", "create", "-r", str(self._rules)], env=self._env
        )
        if made.exit_code:
            raise RuntimeError(made.output)
        for name, rooms in WORKERS.items():
            self.programs[name] = self.worker(name, rooms)
        for program in self.programs.values():
            await program.ready(self.session, READY_S)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        self._stack.close()
        await self.servers.__aexit__()

    def worker(self, name: str, rooms: tuple[str, ...]) -> Program:
        """Start a worker; it is ended for certain with the crew."""
        program = Program(self._rules, self.folder / name, self._env, ("worker", *rooms))
        return self._stack.enter_context(program)

    async def kill(self, *names: str, harm: Callable[[Path], None] | None = None) -> None:
        """Kill workers, at once; start them again, after `harm` was done to their folders."""
        self._away.update(names)
        for name in names:
            await asyncio.to_thread(self.programs[name].kill)
        for name in names:
            if harm is not None:
                harm(self.programs[name].data)
            self.programs[name].start()
        self._away.difference_update(names)

    async def restart(self, name: str) -> None:
        """Stop a worker in good order, and start it again."""
        self._away.add(name)
        code = await asyncio.to_thread(self.programs[name].stop, READY_S)
        if code:
            self.complaints.append(f"{name}: exit code {code} when asked to stop")
        self.programs[name].start()
        self._away.discard(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a worker."""
        process = self.programs[name].process
        assert process is not None
        process.send_signal(number)

    async def recovered(self, since: int, began: float) -> float:
        """Wait until each probing device has had something delivered that was sent after number
        `since`, so that no partition is stuck on the way to the application, and until a downlink
        of each probing kind that came of such an uplink is at its network server. Return the
        seconds since `began`.
        """
        wanted = {(kind, place) for kind in PROBES for place in range(DEVICES)}
        while time.monotonic() - began < RECOVER_S:
            self._watch()
            seen = {
                (self.ledger.kinds[n], n % DEVICES)
                for n in range(since + 1, self.ledger.next_n + 1)
                if n in self.servers.application
            }
            if wanted <= seen and all(self._answered(kind, since) for kind in PROBES):
                took = time.monotonic() - began
                for name, program in self.programs.items():
                    await program.ready(self.session, READY_S)
                    self._away.discard(name)
                return took
            await asyncio.sleep(0.05)
        self.complaints.append(f"no recovery within {RECOVER_S:.0f} s")
        return RECOVER_S

    def _answered(self, kind: str, since: int) -> bool:
        """Tell whether a downlink came to a network server that an uplink after `since` asked
        for. The last ones are enough: they come in about the order of their numbers.
        """
        return any(
            downlink_number(kind, each) > since for each in self.servers.downlinks[kind][-50:]
        )

    def _watch(self) -> None:
        """Start workers again that ended by themselves, as a supervisor would; and tell of it."""
        for name, program in self.programs.items():
            process = program.process
            if name not in self._away and process is not None and process.poll() is not None:
                said = program.said().splitlines()[-1:]
                self.complaints.append(f"{name} ended by itself, {process.returncode}: {said}")
                program.start()

    async def under_load(self, faults: Callable[[], Awaitable[None]], messages: int) -> float:
        """Send, run the faults, go on until so many were accepted; return the seconds until all
        that was accepted had been delivered.
        """
        enough = asyncio.Event()
        first = len(self.ledger.accepted)
        load = self._senders(self.senders, enough)
        try:
            await asyncio.sleep(0.5)
            await faults()
            # Faults have a pace at which each shows; what is left comes as fast as it is taken.
            self.ledger.tick_s = 0
            load += self._senders(self.senders * 2, enough)
            while len(self.ledger.accepted) - first < messages:
                self._watch()
                await asyncio.sleep(0.1)
        finally:
            enough.set()
            await asyncio.gather(*load)
            self.ledger.tick_s = self.tick_s
        return await self.drained()

    def _senders(self, each: int, until: asyncio.Event) -> list[asyncio.Task[None]]:
        """Start so many senders of each kind."""
        ingest, servers = self.programs["ingest"], self.servers.url
        return [
            asyncio.create_task(send_all(kind, ingest, servers, self.ledger, until))
            for kind in KINDS
            for _ in range(each)
        ]

    async def drained(self) -> float:
        """Wait until all that was accepted is delivered to both sinks, at most as long as it may
        take: each has a reader of its own, and one may be at work long before the other.
        """
        began = time.monotonic()
        while (
            self.ledger.accepted - self.servers.application.keys()
            or self.ledger.accepted - self._archived()
        ):
            if time.monotonic() - began > DRAIN_S:
                self.complaints.append(f"not all delivered {DRAIN_S:.0f} s after the last fault")
                break
            self._watch()
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    def _archived(self) -> set[int]:
        """Return the numbers of the uplinks that are in the file, whole lines alone."""
        if not self.archive.exists():
            return set()
        lines = self.archive.read_bytes().splitlines(keepends=True)
        return {orjson.loads(line)["body"]["n"] for line in lines if line.endswith(b"\n")}

    async def in_sync(self) -> None:
        """Wait until no partition lacks a replica, so that the next broker may go."""
        deadline = time.monotonic() + READY_S
        admin = self.brokers.admin()
        while time.monotonic() < deadline:
            found = await asyncio.to_thread(admin.list_topics, timeout=10)
            topics = found.topics.values()
            if all(len(p.isrs) == len(p.replicas) for t in topics for p in t.partitions.values()):
                return
            await asyncio.sleep(0.2)
        self.complaints.append("the brokers did not come in sync again")

    async def leader(self, topic: str) -> int:
        """Return the broker that leads the most partitions of a topic."""
        found = await asyncio.to_thread(self.brokers.admin().list_topics, topic, timeout=10)
        leaders = [each.leader for each in found.topics[topic].partitions.values()]
        return max(set(leaders), key=leaders.count)
