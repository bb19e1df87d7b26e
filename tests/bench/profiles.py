"""Where the time goes: the main job under py-spy, as text, by thread and stage.

    python -m tests.bench.profiles [--uplinks 30000] [--log embedded|kafka] [--top 15] [--rate 250]
                                   [--gil]

In: `main_job` as it stands (embedded), or the stages on a Kafka broker of its own. Out, for each
stage and for the threads that commit: its share of all samples that did something, the functions
in which the time went, and those under which it did. Needs py-spy. Idle threads do not count; with
`--gil` those alone count that hold the interpreter's lock: on Kafka threads wait in librdkafka
where py-spy does not see it. Imports are left out. Profiles of the figures: docs/figures.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LINE = re.compile(r":\d+\)$")
# A sample belongs to the first of these that stands in its stack.
PARTS = {
    "convert": "Convert.handle (",
    "route": "Route.handle (",
    "downlink": "DownlinkStage.handle (",
    "committer (SQLite)": "Committer._",
    "engine (SQLite): read, encode, state": "(pipeline/stream/runner.py",
    "engine (Kafka): read, write, transactions": "(pipeline/stream/kafka_",
}
# Where a thread stands that waits, though py-spy takes it for busy.
_WAITING = (
    "wait (threading.py",
    "_worker (concurrent/futures",
    "_wait (pipeline/script",
    "_take (pipeline/stream/committer",
)


_IMPORTS = "(<frozen importlib"


def record(program: Iterable[str], rate: int, raw: Path, *, gil: bool) -> None:
    """Run a program under py-spy; its stacks go to `raw`."""
    command = [
        *("py-spy", "record", "--rate", str(rate), "--format", "raw", "--output", str(raw)),
        *(["--gil"] if gil else []),
        "--",
        *(sys.executable, "-m", *program),
    ]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=1_800)


def samples(raw: str) -> Iterator[tuple[list[str], int]]:
    """Yield each stack, its functions without lines, and how often it was seen."""
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_LINE.sub(")", frame) for frame in stack.split(";")]
        if not any(waiting in frames[-1] for waiting in _WAITING):
            yield frames, int(count)


def part_of(frames: list[str]) -> str | None:
    """Return the part that a stack belongs to, None for the bench's own and for imports."""
    if any(_IMPORTS in frame for frame in frames):
        return None
    for part, place in PARTS.items():
        if any(place in frame for frame in frames):
            return part
    return None


def report(raw: str, top: int) -> Iterator[str]:
    """Yield the profile as lines."""
    own: dict[str, Counter[str]] = defaultdict(Counter)
    under: dict[str, Counter[str]] = defaultdict(Counter)
    totals: Counter[str] = Counter()
    for frames, count in samples(raw):
        part = part_of(frames)
        if part is not None:
            totals[part] += count
            own[part][frames[-1]] += count
            under[part].update(dict.fromkeys(frames, count))
    whole = totals.total()
    for part, total in totals.most_common():
        yield f"{total / whole:6.1%}  {part}"
        everywhere = {name for name, count in under[part].items() if count > 0.98 * total}
        for title, found in (("in", own[part]), ("under", under[part])):
            yield f"        {title}:"
            shown = [each for each in found.most_common() if each[0] not in everywhere][:top]
            for name, count in shown:
                yield f"        {count / whole:6.1%}  {name}"


def main() -> None:
    """Record and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--uplinks", type=int, default=30_000)
    parser.add_argument("--log", choices=("embedded", "kafka"), default="embedded")
    parser.add_argument("--top", type=int, default=15)
    parser.add_argument("--rate", type=int, default=250, help="samples a second")
    parser.add_argument("--gil", action="store_true", help="only who holds the interpreter's lock")
    chosen = parser.parse_args()
    program = "tests.bench.main_job" if chosen.log == "embedded" else "tests.bench.kafka_job"
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "stacks.txt"
        load = ["--uplinks", str(chosen.uplinks), "--runs", "1"]
        record([program, *load], chosen.rate, raw, gil=chosen.gil)
        for line in report(raw.read_text(encoding="utf-8"), chosen.top):
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
