"""Funicular and its peers side by side: the same machine, broker, messages, one after the other.

    python -m tests.bench.compare [--peers faust,quix,streams,bento] [--job whole|convert]
        [--runs 5] [--messages 100000] [--devices 2000] [--json FILE]

`tests/bench/peers/job.py` says what the job is, `trial.py` how it is measured, docs/benchmarks.md
both in more words. Each round runs everybody once, beginning with another one each time. Prints a
table of medians; a ratio is the median of the rounds' ratios, by CPU: how many times as many
uplinks Funicular does with the same CPU. The exit code is 1 where somebody's output was wrong.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from tests.bench.peers.contestants import Contestant, cache_folder, contestants, lacking
from tests.bench.peers.trial import Place, Result, Size, trial
from tests.kafka.brokers import IMAGE, POM, Brokers, source

OURS = "funicular"
JOBS = {"whole": OURS, "convert": f"{OURS}-convert"}
COLUMNS = ("who", "guarantee", "uplinks/s", "CPU µs an uplink", "uplinks/s a core",
           "Funicular is", "MB", "runs")  # fmt: skip


def chosen(peers: Sequence[str], job: str) -> list[Contestant]:
    """Return who takes part: Funicular, and the peers of these names, in jobs of this name (empty:
    both). `quix` means all that begin so. SystemExit: nobody is called so.
    """
    everyone = contestants()
    families = {name.partition("-")[0] for name in everyone}
    unknown = [name for name in peers if name not in everyone and name not in families]
    if unknown:
        raise SystemExit(f"nobody is called {', '.join(unknown)}; there are {', '.join(everyone)}")
    wanted = {*peers, *JOBS.values()} if peers else everyone.keys() | families
    return [
        each
        for name, each in everyone.items()
        if (name in wanted or name.partition("-")[0] in set(peers))
        and each.job in (job or each.job)
    ]


def machine() -> dict[str, Any]:
    """Return what this machine is."""
    model = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000,
        "system": platform.platform(),
        "load": os.getloadavg(),
    }


def run(taking_part: list[Contestant], size: Size, runs: int) -> list[list[Result]]:
    """Return the results, round by round. Whoever ends early, or comes to no end, has a result
    with that as its fault.
    """
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    for each in taking_part:
        each.prepare(cache)
    rounds: list[list[Result]] = []
    with tempfile.TemporaryDirectory() as folder, cluster() as brokers:
        place = Place(brokers, Path(folder), cache)
        for number in range(runs):
            turn = number % len(taking_part)
            rounds.append([])
            for each in taking_part[turn:] + taking_part[:turn]:
                result = _once(each, place, size)
                rounds[-1].append(result)
                how = f"{result.rate:,.0f}/s {result.cpu_us:.1f} µs" if not result.faults else ""
                wrong = "".join(f"\n  WRONG: {fault}" for fault in result.faults)
                say(f"run {number + 1}: {each.name} {how}{wrong}")
    return rounds


def cluster() -> Brokers:
    """Return a broker of our own, or those that FUNICULAR_TEST_KAFKA names. SystemExit: none."""
    where = source()
    if not where:
        raise SystemExit(
            "no Kafka: it needs Java and Maven, or Docker, or FUNICULAR_TEST_KAFKA=host:port"
        )
    return Brokers.start(1) if where in {"container", "jars"} else Brokers({}, where)


def broker_version() -> str:
    """Return which Kafka it runs on."""
    where = source()
    if where == "container":
        return IMAGE
    found = re.search(r"<kafka.version>(.+)</kafka.version>", POM.read_text())
    return f"Kafka {found[1]}" if where == "jars" and found else f"as it is at {where}"


def _once(contestant: Contestant, place: Place, size: Size) -> Result:
    try:
        return trial(contestant, place, size)
    except RuntimeError as error:
        return Result(contestant.name, size.uplinks, 0.0, 0.0, 0.0, (str(error),))


def rows(taking_part: list[Contestant], rounds: list[list[Result]]) -> list[dict[str, Any]]:
    """Return one row a contestant: medians over its right runs, and ratios to Funicular's run of
    the same round and job.
    """
    made = []
    for each in taking_part:
        mine = {n: r for n, results in enumerate(rounds) for r in results
                if r.contestant == each.name and not r.faults}  # fmt: skip
        ours = {n: r for n, results in enumerate(rounds) for r in results
                if r.contestant == JOBS[each.job] and not r.faults}  # fmt: skip
        row: dict[str, Any] = {"name": each.name, "job": each.job, "what": each.what,
                               "once": each.once, "right_runs": len(mine)}  # fmt: skip
        if mine:
            row["uplinks_s"] = statistics.median(r.rate for r in mine.values())
            row["cpu_us"] = statistics.median(r.cpu_us for r in mine.values())
            row["resident_mb"] = statistics.median(r.resident_mb for r in mine.values())
        both = mine.keys() & ours.keys()
        if both:
            row["times"] = statistics.median(mine[n].cpu_us / ours[n].cpu_us for n in both)
            row["times_wall"] = statistics.median(ours[n].rate / mine[n].rate for n in both)
        made.append(row)
    return made


def table(found: list[dict[str, Any]], runs: int) -> str:
    """Return the rows in Markdown, a table a job."""
    lines = []
    for job in dict.fromkeys(row["job"] for row in found):
        lines += ["", f"The job: {job}", "", f"| {' | '.join(COLUMNS)} |",
                  "|---|---|" + "---:|" * (len(COLUMNS) - 2)]  # fmt: skip
        for row in found:
            if row["job"] == job:
                lines.append(_line(row, runs))
    return "\n".join(lines)


def _line(row: dict[str, Any], runs: int) -> str:
    who = f"{row['name']}: {row['what']}"
    guarantee = "exactly once" if row["once"] else "at least once"
    if "cpu_us" not in row:
        return f"| {who} | {guarantee} | WRONG in every run |{' |' * (len(COLUMNS) - 3)}"
    times = f"{row['times']:.2f} times" if "times" in row else ""
    cells = (
        f"{row['uplinks_s']:,.0f}", f"{row['cpu_us']:.1f}", f"{1e6 / row['cpu_us']:,.0f}", times,
        f"{row['resident_mb']:.0f}", f"{row['right_runs']} of {runs}",
    )  # fmt: skip
    return f"| {who} | {guarantee} | {' | '.join(cells)} |"


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Run all, print the table, write the JSON."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--peers", default="", help="with commas; everybody by default")
    options.add_argument("--job", choices=("whole", "convert"), default="")
    options.add_argument("--runs", type=int, default=5)
    options.add_argument("--messages", type=int, default=100_000)
    options.add_argument("--warm", type=int, default=20_000, help="uplinks before those that count")
    options.add_argument("--devices", type=int, default=2_000)
    options.add_argument("--partitions", type=int, default=4)
    options.add_argument("--json", type=Path, help="where to write machine, versions and runs")
    given = options.parse_args()
    taking_part = chosen([name for name in given.peers.split(",") if name], given.job)
    for each in [each for each in taking_part if lacking(each)]:
        say(f"LEFT OUT: {each.name} needs {lacking(each)}")
        taking_part.remove(each)
    size = Size(given.messages, given.warm, given.devices, given.partitions)
    rounds = run(taking_part, size, given.runs)
    found = rows(taking_part, rounds)
    versions = {"broker": broker_version()}
    versions |= {each.name: each.version(cache_folder()) for each in taking_part}
    say(table(found, given.runs))
    say("\n".join(["", *(f"{name}: {version}" for name, version in versions.items())]))
    say(f"{machine()}\n{asdict(size)}")
    if given.json is not None:
        whole = {"machine": machine(), "versions": versions, "size": asdict(size), "rows": found,
                 "runs": [[asdict(each) for each in results] for results in rounds]}  # fmt: skip
        given.json.write_bytes(orjson.dumps(whole, option=orjson.OPT_INDENT_2))
    if any(each.faults for results in rounds for each in results):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
