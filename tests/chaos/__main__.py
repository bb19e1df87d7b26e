"""Harm the running program on Kafka in every way that is likely, and account for all of it.

Run: `python -m tests.chaos [--short] [--only CASE …] [--brokers 1|3] [--messages N] [--kills N]
[--rounds N] [--json FILE]`, or `make chaos`. Starts brokers (tests/kafka/brokers.py says where
they come from), a worker for each job, and load of every dialect. Prints a table: what was done,
what was answered 2xx, what of it is missing or doubled anywhere up to the sinks, downlinks that two
uplinks carried unflagged, and the seconds from a fault until each device is served again. The
exit code is 1 where anything does not add up.

The long form takes hours: each case has brokers and an account of its own, and `--json FILE` keeps
what was found after each of them, so that a run that was ended goes on where it stood.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import msgspec

from pipeline.stream.kafka_settings import KafkaSettings
from tests.chaos.account import Account, account, check_state
from tests.chaos.crew import Crew
from tests.chaos.faults import BROKER_CASES, WORKER_CASES, Case, Sizes, Tally, cases
from tests.chaos.takeover import Takeover, takeover
from tests.kafka.brokers import Brokers, source
from tests.kafka.program_work import committed, quiet

DEVICES = 100_000
"""Whose state is taken over."""


@dataclass
class Row:
    """One case: numbers of uplinks are from `first` to `last`."""

    case: str
    brokers: int
    faults: int
    messages: int
    recovery_median_s: float
    recovery_worst_s: float
    drained_s: float
    first: int
    last: int
    missing: int = 0
    duplicates: int = 0
    shared: int = 0
    complaints: tuple[str, ...] = ()


@dataclass
class Found:
    """All that was found; what `--json` holds."""

    cases: list[Row] = field(default_factory=list)
    takeover: Takeover | None = None
    broken: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path | None) -> Found:
        """Return what an earlier run left there."""
        if file is None or not file.exists():
            return cls()
        return msgspec.json.decode(file.read_bytes(), type=cls)

    def write(self, file: Path | None) -> None:
        """Keep it."""
        if file is not None:
            file.write_bytes(msgspec.json.encode(self))

    def has(self, name: str, brokers: int) -> bool:
        """Tell whether a case was run on so many brokers."""
        return any((row.case, row.brokers) == (name, brokers) for row in self.cases)

    def said(self) -> str:
        """Return it for people."""
        said = [table(self.cases)] if self.cases else []
        if self.takeover is not None:
            taken = self.takeover
            said.append(
                f"takeover: {taken.devices} devices filled in {taken.fill_s:.1f} s; new worker"
                f" ready after {taken.start_s:.1f} s, all served after {taken.takeover_s:.1f} s"
            )
        said += [f"BROKEN: {each}" for each in self.broken]
        return "\n".join(said)


async def run_case(crew: Crew, name: str, case: Case, sizes: Sizes) -> Row:
    """Run one case under load."""
    tally = Tally()
    first, accepted = crew.ledger.next_n + 1, len(crew.ledger.accepted)
    crew.complaints = []
    drained = await crew.under_load(partial(case, crew, sizes, tally), sizes.messages)
    return Row(
        name,
        len(crew.brokers.nodes),
        len(tally.recoveries),
        len(crew.ledger.accepted) - accepted,
        statistics.median(tally.recoveries),
        max(tally.recoveries),
        drained,
        first,
        crew.ledger.next_n,
        complaints=tuple(crew.complaints),
    )


def fill_in(rows: Sequence[Row], found: Account) -> None:
    """Give each case what its uplinks' numbers say."""
    for row in rows:
        numbers = range(row.first, row.last + 1)
        row.missing = sum(n in numbers for n in found.missing)
        row.duplicates = sum(n in numbers for n in found.doubled)
        row.shared = sum(n in numbers for n in found.shared)


async def run_cluster(
    count: int, wanted: dict[str, Case], options: argparse.Namespace, sizes: Sizes
) -> tuple[list[Row], list[str]]:
    """Run cases on one cluster, one after the other; then read everything and account for it."""
    rows: list[Row] = []
    say(f"starting {count} broker(s)")
    folder = Path(tempfile.mkdtemp(prefix="funicular-chaos-"))
    senders, tick_s = (2, 0.2) if options.short else (36, 1)
    with await asyncio.to_thread(Brokers.start, count) as brokers:
        async with Crew(brokers, folder, senders=senders, tick_s=tick_s) as crew:
            for name, case in wanted.items():
                say(f"{count} broker(s): {name} …", end="")
                began = time.monotonic()
                row = await run_case(crew, name, case, sizes)
                rows.append(row)
                say(
                    f" {row.faults} faults, {row.messages} messages, worst recovery "
                    f"{row.recovery_worst_s:.1f} s, {time.monotonic() - began:.0f} s"
                    + "".join(f"\n  {each}" for each in row.complaints)
                )
            broken = await close(crew, rows)
        if broken:
            brokers.keep_logs(folder)
    if broken:
        say(f"kept for a look: {folder}")
    else:
        shutil.rmtree(folder)
    return rows, broken


async def close(crew: Crew, rows: Sequence[Row]) -> list[str]:
    """Let all come to rest, stop the workers in good order, and account for everything."""
    broken = [each for row in rows for each in row.complaints]
    programs = list(crew.programs.values())
    await quiet(programs, crew.session)
    codes = await asyncio.gather(*(asyncio.to_thread(each.stop) for each in programs))
    broken += [f"a worker stopped with exit code {code}" for code in codes if code]
    bootstrap = crew.brokers.bootstrap
    read = cache(lambda topic: committed(bootstrap, crew.prefix + topic))
    found = await asyncio.to_thread(account, read, crew.ledger, crew.servers, crew.archive)
    fill_in(rows, found)
    try:
        kafka = KafkaSettings(bootstrap=bootstrap, prefix=crew.prefix)
        await asyncio.to_thread(check_state, kafka, read)
    except AssertionError as error:
        found.broken.append(f"state: {error}")
    return broken + found.broken


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown."""
    names = ["case", "brokers", "faults", "messages", "missing", "duplicates"]
    names += ["shared downlinks", "recovery median s", "worst s"]
    lines = [f"| {' | '.join(names)} |", "|---" + "|---:" * (len(names) - 1) + "|"]
    lines += [
        f"| {row.case} | {row.brokers} | {row.faults} | {row.messages} | {row.missing} "
        f"| {row.duplicates} | {row.shared} | {row.recovery_median_s:.1f} "
        f"| {row.recovery_worst_s:.1f} |"
        for row in rows
    ]
    return "\n".join(lines)


def say(text: str, end: str = "\n") -> None:
    """Show progress, beside the table's own output."""
    sys.stderr.write(text + end)
    sys.stderr.flush()


def show(text: str) -> None:
    """Write what was found to standard output."""
    sys.stdout.write(text + "\n")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    known = [*WORKER_CASES, *BROKER_CASES, "takeover"]
    parser.add_argument("--short", action="store_true", help="3 kills a kind, few messages")
    parser.add_argument("--only", action="append", choices=known, help="may be given again")
    parser.add_argument("--brokers", type=int, choices=(1, 3), help="without it: 1, then 3")
    parser.add_argument("--messages", type=int, help="at least so many a case")
    parser.add_argument("--kills", type=int, help="of each kind of worker")
    parser.add_argument("--rounds", type=int, help="of every other case")
    parser.add_argument("--devices", type=int, default=DEVICES, help="for takeover")
    parser.add_argument("--json", type=Path, help="keep the figures there; go on where it stands")
    return parser.parse_args()


def sizes_of(options: argparse.Namespace) -> Sizes:
    """Return the sizes that were asked for."""
    sizes = Sizes.short() if options.short else Sizes()
    for name in ("messages", "kills", "rounds"):
        if getattr(options, name) is not None:
            setattr(sizes, name, getattr(options, name))
    return sizes


async def run_takeover(options: argparse.Namespace) -> Takeover:
    """Measure how state is taken over."""
    say(f"takeover of {options.devices} devices …")
    with (
        tempfile.TemporaryDirectory(prefix="funicular-takeover-") as folder,
        await asyncio.to_thread(Brokers.start, options.brokers or 1) as brokers,
    ):
        return await takeover(brokers, Path(folder), options.devices)


async def run(options: argparse.Namespace) -> int:
    """Run what was asked for; return the exit code."""
    found = Found.read(options.json)
    only = options.only or []
    for count in [options.brokers] if options.brokers else (1, 3):
        wanted = cases(count, short=options.short and not only)
        wanted = {
            name: case
            for name, case in wanted.items()
            if (not only or name in only) and not found.has(name, count)
        }
        together = [wanted] if options.short else [{name: wanted[name]} for name in wanted]
        for part in filter(None, together):
            rows, broken = await run_cluster(count, part, options, sizes_of(options))
            found.cases += rows
            found.broken += broken
            found.write(options.json)
    if found.takeover is None and ("takeover" in only or not (only or options.short)):
        found.takeover = await run_takeover(options)
        found.write(options.json)
    show(found.said())
    lost = sum(row.missing + row.duplicates + row.shared for row in found.cases)
    return 1 if found.broken or lost else 0


def main() -> int:
    """Run from the command line."""
    if not source():
        say("no Kafka: neither a Docker daemon, nor java and mvn")
        return 2
    logging.disable(logging.WARNING)
    # Whoever asks us to stop leaves no worker and no broker behind: every `with` is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    return asyncio.run(run(arguments()))


if __name__ == "__main__":
    sys.exit(main())
