"""How fast the script engines are, what they hold, and why JavaScript runs on quickjs-ng.

Run: `python -m tests.bench.script_engines [--seconds 1]`. Prints two tables: the two JavaScript
engines by themselves, each measure in a process of its own; and both of our engines as a stage
sees them, child process and all.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 500
MEMORY = 64 << 20
TIME_S = 0.05

JAVASCRIPT = """function decodeUplink(input) {
  var b = input.bytes;
  var t = (b[0] << 8 | b[1]);
  if (t > 0x7fff) t -= 0x10000;
  return {data: {temperature: t / 10, humidity: b[2], battery: (b[3] << 8 | b[4]) / 1000,
    flags: {door: !!(b[5] & 1), fan: !!(b[5] & 2)}, mode: 'auto'}, warnings: []};
}
"""
LUA = """function decode_uplink(input)
  local t, humidity, battery, flags = string.unpack('>i2BI2B', input.bytes)
  return {data = {temperature = t / 10, humidity = humidity, battery = battery / 1000,
    flags = {door = flags & 1 ~= 0, fan = flags & 2 ~= 0}, mode = 'auto'}, warnings = {}}
end
"""
PAYLOAD = bytes([0, 215, 40, 12, 228, 1, 7, 8, 9, 10, 11, 12])
# The same loop for both: JSON in, fresh variables a call, JSON out.
LOOP = (
    "var factory = (function () {" + JAVASCRIPT + "; return decodeUplink; });"
    "function batch(text) { return JSON.stringify(JSON.parse(text).map(function (input) {"
    "  try { return factory()(input); } catch (error) { return String(error); } })); }"
)
INPUT = {"bytes": list(PAYLOAD), "fPort": 1}


class QuickJs:
    """quickjs-ng, one context."""

    name = "quickjs-ng"

    def __init__(self) -> None:
        from _quickjs import Context  # type: ignore[import-not-found]

        self.context = Context()
        self.context.set_memory_limit(MEMORY)
        self.eval = self.context.eval

    def limited(self, code: str) -> Any:
        self.context.set_time_limit(TIME_S)
        return self.context.eval(code)

    def function(self, name: str) -> Callable[[str], str]:
        return self.context.get(name)


class V8:
    """mini-racer, one context."""

    name = "mini-racer"

    def __init__(self) -> None:
        from py_mini_racer import MiniRacer

        self.context = MiniRacer()
        self.context.set_hard_memory_limit(MEMORY)
        self.eval = self.context.eval

    def limited(self, code: str) -> Any:
        return self.context.eval(code, timeout_sec=TIME_S)

    def function(self, name: str) -> Callable[[str], str]:
        return lambda text: self.context.eval(f"{name}({json.dumps(text)})")


ENGINES = {"quickjs": QuickJs, "v8": V8}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def per_second(run: Callable[[], Any], count: int, seconds: float) -> str:
    run()
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begun)
    return f"{count / best:,.0f}"


def rss() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def start(engine: type, _: float) -> str:
    """Import, first context, first result."""
    begun = time.perf_counter()
    engine().eval("1 + 1")
    return f"{(time.perf_counter() - begun) * 1000:.1f} ms"


def another(engine: type, _: float) -> str:
    """A second context in the same process."""
    kept = [engine()]
    begun = time.perf_counter()
    kept.append(engine())
    kept[1].eval("1 + 1")
    return f"{(time.perf_counter() - begun) * 1000:.2f} ms"


def size(engine: type, _: float) -> str:
    """Resident memory and threads that the engine adds."""
    before = rss()
    kept = engine()
    kept.eval(LOOP)
    threads = len(list(Path("/proc/self/task").iterdir()))
    return f"{(rss() - before) / (1 << 20):.0f} MiB, {threads} threads"


def batches(engine: type, seconds: float) -> str:
    """Calls a second, in batches."""
    kept = engine()
    kept.eval(LOOP)
    run, text = kept.function("batch"), json.dumps([INPUT] * BATCH)
    return per_second(lambda: run(text), BATCH, seconds)


def single(engine: type, seconds: float) -> str:
    """Calls a second, one by one."""
    kept = engine()
    kept.eval(LOOP)
    run, text = kept.function("batch"), json.dumps([INPUT])
    return per_second(lambda: [run(text) for _ in range(20)], 20, seconds)


def _stopped(engine: type, code: str) -> str:
    kept = engine()
    before = rss()
    begun = time.perf_counter()
    try:
        kept.limited(code)
        how = "NOT STOPPED"
    except Exception as error:  # noqa: BLE001 - the engines share no class
        how = str(error).partition("\n")[0][:40] or type(error).__name__
    took = (time.perf_counter() - begun) * 1000
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / (1 << 20)
    try:
        usable = "usable" if kept.eval("1 + 1") == 2 else "broken"
    except Exception as error:  # noqa: BLE001 - see above
        usable = f"unusable ({type(error).__name__})"
    return f"{took:.0f} ms, +{grown:.0f} MiB, {usable}: {how}"


def loop(engine: type, _: float) -> str:
    """A loop with a limit of 50 ms."""
    return _stopped(engine, "try { while (true) {} } finally { while (true) {} }")


def regex(engine: type, _: float) -> str:
    """A catastrophic regular expression with a limit of 50 ms."""
    return _stopped(engine, "/^(a+)+$/.test('a'.repeat(40) + 'b')")


def native(engine: type, _: float) -> str:
    """A search in text that takes as long as its engine makes it, with a limit of 50 ms."""
    return _stopped(engine, "'a'.repeat(1e5).indexOf('a'.repeat(5e4) + 'b')")


def heap(engine: type, _: float) -> str:
    """Objects without end, limit 64 MiB."""
    code = "var a = []; while (true) a.push({x: a.length, y: 'z' + a.length})"
    kept = engine()
    kept.limited = kept.eval
    return _stopped(lambda: kept, code)


def buffers(engine: type, _: float) -> str:
    """Buffers of 1 GiB in sum, limit 64 MiB."""
    code = "var a = []; for (var i = 0; i < 64; i++) a.push(new Uint8Array(1 << 24).fill(1)); 0"
    kept = engine()
    kept.limited = kept.eval
    return _stopped(lambda: kept, code)


def walls(engine: type, _: float) -> str:
    """Started, then 512 MiB of address space, no threads, no files: does it go on?"""
    from pipeline.script.confinement import confine

    kept = engine()
    kept.eval(LOOP)
    confine(512 << 20, os.getppid())
    run, text = kept.function("batch"), json.dumps([INPUT] * BATCH)
    for _round in range(50):
        run(text)
    return "yes, and a new context: " + ("yes" if engine().eval("1 + 1") == 2 else "no")


MEASURES = (start, another, size, batches, single, loop, regex, native, heap, buffers, walls)


def measure(name: str, engine: str, seconds: float) -> str:
    """Run one measure in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.script_engines", "--one", name, engine]
    try:
        done = subprocess.run(
            [*command, "--seconds", str(seconds)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except subprocess.TimeoutExpired:
        return "no end within 60 s"
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [""])[-1][:60]
        return f"process died ({done.returncode}) {said}"
    return done.stdout.strip()


def as_a_stage_sees_them(seconds: float) -> None:
    """Print the second table."""
    from pipeline.metrics import Registry
    from pipeline.ports import Script, ScriptCall
    from pipeline.script import ScriptLimits, ScriptProcesses

    argument = {"bytes": base64.b64encode(PAYLOAD).decode(), "fPort": 1}
    argument["recvTime"] = "2026-11-21T09:00:00Z"
    say(
        f"\n{'':12} {'start':>9} {'a batch of 500':>16} {'one by one':>12} "
        f"{'3 tenants, 3 threads':>21}"
    )
    for language, source in (("javascript", JAVASCRIPT), ("lua", LUA)):
        scripts = ScriptProcesses(ScriptLimits(), Registry())
        script = Script("bench", language, source)  # type: ignore[arg-type]

        def calls(count: int, tenant: str = "t") -> list[ScriptCall]:
            return [ScriptCall(tenant, script, "decode_uplink", argument)] * count  # noqa: B023

        def call(count: int, tenant: str = "t") -> None:
            scripts.call(calls(count, tenant))  # noqa: B023

        begun = time.perf_counter()
        call(1)
        started = f"{(time.perf_counter() - begun) * 1000:.0f} ms"
        batch = per_second(lambda: call(BATCH), BATCH, seconds)
        one = per_second(lambda: call(1), 1, seconds)

        def together() -> None:
            threads = [threading.Thread(target=call, args=(BATCH, f"t{n}")) for n in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        three = per_second(together, 3 * BATCH, seconds)
        say(f"{language:12} {started:>9} {batch:>16} {one:>12} {three:>21}")
        scripts.close()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each speed")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, engine = options.one
        run = {function.__name__: function for function in MEASURES}[name]
        say(run(ENGINES[engine], options.seconds))
        return
    for function in MEASURES:
        say(f"{(function.__doc__ or '').partition(chr(10))[0]}")
        for engine, kind in ENGINES.items():
            say(f"    {kind.name:12} {measure(function.__name__, engine, options.seconds)}")
    as_a_stage_sees_them(options.seconds)


if __name__ == "__main__":
    main()
