"""The cases: what is done to workers, their state and the brokers, how often."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.chaos.crew import READY_S, WORKERS, Crew

FROZEN_S = 10.0  # past a worker's session (6 s) and its transaction (5 s)
JOIN_S = 3.0
STATEFUL = ("route", "downlink", "all")


@dataclass
class Sizes:
    """How much of each: the long form, unless the short one is asked for."""

    kills: int = 30
    rounds: int = 10
    joins: int = 30
    messages: int = 100_000
    broker_frozen_s: float = 30.0
    all_down_s: float = 60.0

    @classmethod
    def short(cls) -> Sizes:
        return cls(kills=3, rounds=1, joins=3, messages=200, broker_frozen_s=10, all_down_s=10)


@dataclass
class Tally:
    """What a case did: seconds from each fault until all devices were served again."""

    recoveries: list[float] = field(default_factory=list)


Case = Callable[[Crew, Sizes, Tally], Awaitable[None]]


async def _kill(name: str, crew: Crew, sizes: Sizes, tally: Tally) -> None:
    """SIGKILL of one worker, which is started again."""
    for _ in range(sizes.kills):
        await asyncio.sleep(crew.chance.uniform(0.2, 1.5))
        since, began = crew.ledger.next_n, time.monotonic()
        await crew.kill(name)
        tally.recoveries.append(await crew.recovered(since, began))


async def _together(crew: Crew, sizes: Sizes, tally: Tally) -> None:
    """SIGKILL of all workers at once."""
    for _ in range(sizes.rounds):
        await asyncio.sleep(crew.chance.uniform(0.2, 1.5))
        since, began = crew.ledger.next_n, time.monotonic()
        await crew.kill(*WORKERS)
        tally.recoveries.append(await crew.recovered(since, began))


async def _rolling(crew: Crew, sizes: Sizes, tally: Tally) -> None:
    """SIGTERM and a new start of one worker after the other."""
    for _ in range(sizes.rounds):
        for name in WORKERS:
            since, began = crew.ledger.next_n, time.monotonic()
            await crew.restart(name)
            tally.recoveries.append(await crew.recovered(since, began))


async def _frozen(crew: Crew, sizes: Sizes, tally: Tally) -> None:
    """SIGSTOP of a worker past its session, then SIGCONT: others took over, it must be fenced."""
    for turn in range(sizes.rounds):
        await asyncio.sleep(crew.chance.uniform(0.2, 1.5))
        name = STATEFUL[turn % len(STATEFUL)]
        since, began = crew.ledger.next_n, time.monotonic()
        crew.signal(name, signal.SIGSTOP)
        await asyncio.sleep(FROZEN_S)
        crew.signal(name, signal.SIGCONT)
        tally.recoveries.append(await crew.recovered(since, began))


async def _joining(crew: Crew, sizes: Sizes, tally: Tally) -> None:
    """A worker of all stages that joins, and leaves three seconds after it is ready."""
    extra = crew.worker("extra", WORKERS["all"])
    for _ in range(sizes.joins):
        await extra.ready(crew.session, READY_S)
        await asyncio.sleep(JOIN_S)
        since, began = crew.ledger.next_n, time.monotonic()
        code = await asyncio.to_thread(extra.stop, READY_S)
        if code:
            crew.complaints.append(f"extra: exit code {code} when asked to stop")
        tally.recoveries.append(await crew.recovered(since, began))
        extra.start()
    await extra.ready(crew.session, READY_S)
    await asyncio.to_thread(extra.stop, READY_S)


def _stores(data: Path) -> Iterator[Path]:
    """Find the folders of state stores."""
    for current in list(data.rglob("CURRENT")):
        yield current.parent


def _deleted(data: Path) -> None:
    for store in _stores(data):
        shutil.rmtree(store)


def _truncated(data: Path) -> None:
    for store in _stores(data):
        for file in [*store.glob("*.log"), *store.glob("*.sst"), *store.glob("MANIFEST*")]:
            with file.open("r+b") as opened:
                opened.truncate(file.stat().st_size // 2)


def _corrupted(data: Path) -> None:
    for store in _stores(data):
        for file in [*store.glob("*.log"), *store.glob("*.sst"), *store.glob("MANIFEST*")]:
            with file.open("r+b") as opened:
                opened.seek(file.stat().st_size // 3)
                opened.write(b"\xa5" * min(64, file.stat().st_size // 3))


async def _store(harm: Callable[[Path], None], crew: Crew, sizes: Sizes, tally: Tally) -> None:
    """SIGKILL of the workers that keep state; their stores are harmed before they start again."""
    for _ in range(sizes.rounds):
        await asyncio.sleep(crew.chance.uniform(0.5, 1.5))
        found = [store for name in STATEFUL for store in _stores(crew.programs[name].data)]
        if not found:
            crew.complaints.append("there was no state store to harm")
        since, began = crew.ledger.next_n, time.monotonic()
        await crew.kill(*STATEFUL, harm=harm)
        tally.recoveries.append(await crew.recovered(since, began))


async def _broker(topic: str, crew: Crew, sizes: Sizes, tally: Tally) -> None:
    """SIGKILL of the broker that leads most of a topic; it comes back after all others go on
    without it. A broker that is alone comes back at once.
    """
    for _ in range(max(sizes.rounds, 3)):
        await asyncio.sleep(crew.chance.uniform(0.2, 1.5))
        node = await crew.leader(topic)
        since, began = crew.ledger.next_n, time.monotonic()
        await asyncio.to_thread(crew.brokers.kill, node)
        alone = len(crew.brokers.nodes) == 1
        if not alone:
            tally.recoveries.append(await crew.recovered(since, began))
        await asyncio.to_thread(crew.brokers.restart, node)
        if alone:
            tally.recoveries.append(await crew.recovered(since, began))
        await crew.in_sync()


async def _broker_frozen(crew: Crew, sizes: Sizes, tally: Tally) -> None:
    """SIGSTOP of the transaction coordinator. Recovery counts from its SIGCONT where it is alone,
    else from the SIGSTOP.
    """
    for _ in range(sizes.rounds):
        await asyncio.sleep(crew.chance.uniform(0.2, 1.5))
        node = await crew.leader("__transaction_state")
        since, began = crew.ledger.next_n, time.monotonic()
        crew.brokers.pause(node)
        if len(crew.brokers.nodes) == 1:
            await asyncio.sleep(sizes.broker_frozen_s)
            since, began = crew.ledger.next_n, time.monotonic()
            crew.brokers.resume(node)
            tally.recoveries.append(await crew.recovered(since, began))
            continue
        watch = asyncio.create_task(crew.recovered(since, began))
        await asyncio.sleep(sizes.broker_frozen_s)
        crew.brokers.resume(node)
        tally.recoveries.append(await watch)
        await crew.in_sync()


async def _all_down(crew: Crew, sizes: Sizes, tally: Tally) -> None:
    """SIGKILL of all brokers, which come back later. Recovery counts from their start."""
    for _ in range(max(1, sizes.rounds // 5)):
        for node in crew.brokers.nodes:
            await asyncio.to_thread(crew.brokers.kill, node)
        await asyncio.sleep(sizes.all_down_s)
        since, began = crew.ledger.next_n, time.monotonic()
        for node in crew.brokers.nodes:
            await asyncio.to_thread(crew.brokers.restart, node, wait=False)
        tally.recoveries.append(await crew.recovered(since, began))
        await crew.in_sync()


WORKER_CASES: dict[str, Case] = {
    **{f"kill-{name}": partial(_kill, name) for name in WORKERS},
    "kill-together": _together,
    "rolling-restart": _rolling,
    "worker-frozen": _frozen,
    "joining-leaving": _joining,
    "store-deleted": partial(_store, _deleted),
    "store-truncated": partial(_store, _truncated),
    "store-corrupted": partial(_store, _corrupted),
}
BROKER_CASES: dict[str, Case] = {
    "kill-leader": partial(_broker, "chaos.device.events"),
    "kill-group-coordinator": partial(_broker, "__consumer_offsets"),
    "kill-transaction-coordinator": partial(_broker, "__transaction_state"),
    "coordinator-frozen": _broker_frozen,
    "all-brokers-down": _all_down,
}
SHORT: dict[int, tuple[str, ...]] = {
    1: (*(name for name in WORKER_CASES if name != "kill-all"), "kill-leader"),
    3: ("kill-route", *BROKER_CASES),
}
"""What the short form runs: a broker that is alone is leader and coordinator of all."""


def cases(brokers: int, *, short: bool) -> dict[str, Case]:
    """Return the cases for so many brokers."""
    known = WORKER_CASES | BROKER_CASES
    if short:
        return {name: known[name] for name in SHORT[brokers]}
    if brokers == 1:
        alone = ("kill-group-coordinator", "kill-transaction-coordinator")
        return {name: case for name, case in known.items() if name not in alone}
    return known
