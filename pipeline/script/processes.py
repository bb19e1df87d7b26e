"""The script port: calls come in, a value or a ScriptError each goes out; the scripts run in
child processes, in batches.

The calls of a batch are grouped by tenant, script and operation; each group is a request to the
tenant's child. When a child dies, the calls that it had not answered run again one by one in a new
child, so that the one which kills it stands alone and is the only one that is lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson

from pipeline.errors import ScriptError
from pipeline.metrics import Registry
from pipeline.ports import Script, ScriptCall
from pipeline.script.limits import ScriptLimits
from pipeline.script.process import ChildLostError
from pipeline.script.seats import Seat, Seats

# How often a call may be running when its child is killed from outside, before it is taken for
# the cause (the kernel kills a process for want of memory so).
_KILLS_MAX = 3
_CODES = frozenset(
    {
        "script_threw",
        "script_time",
        "script_memory",
        "script_result",
        "script_syntax",
        "script_missing",
        "script_errors",
    }
)
Console = Callable[[Script, Sequence[str]], None]
"""Takes the lines that one call of a script said, from the thread that called; must not block."""

_GroupKey = tuple[str, Script, str, str]


@dataclass(slots=True)
class _Budget:
    """What is left for a group's calls."""

    until: float
    overruns: int
    result_bytes: int

    def is_spent(self) -> bool:
        return self.overruns <= 0 or self.result_bytes <= 0 or monotonic() >= self.until


@dataclass(frozen=True, slots=True)
class _Group:
    """What calls of one request have in common."""

    script: Script
    source: bytes
    operation: str
    contract: str


class ScriptProcesses:
    """Implements `ports.ScriptPort`. Thread-safe; starts no process before the first call.

    Above the port's codes: `script_budget`, where one tenant's scripts have used up `batch_ms_max`
    or `batch_result_bytes_max` in one batch, or one script was stopped for time `overruns_max`
    times in it.

    `console` is given what a call said on its console (in Lua by `print`), where it said something;
    without it, consoles are silent and cost nothing.
    """

    def __init__(
        self, settings: ScriptLimits, metrics: Registry, console: Console | None = None
    ) -> None:
        self._limits = settings
        self._console = console
        self._seats = Seats(settings, metrics)

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """See `ports.ScriptPort`. RetryableError: the engine does not start on this machine."""
        results: list[Any] = [None] * len(calls)
        groups: dict[_GroupKey, list[int]] = defaultdict(list)
        for index, call in enumerate(calls):
            groups[call.tenant, call.script, call.operation, call.contract].append(index)
        used_s: dict[str, float] = defaultdict(float)
        used_bytes: dict[str, int] = defaultdict(int)
        for (tenant, script, operation, contract), indexes in groups.items():
            source = self._source(script)
            if isinstance(source, ScriptError):
                for index in indexes:
                    results[index] = source
                continue
            group = _Group(script, source, operation, contract)
            with self._seats.take((tenant, script.language)) as seat:
                begun = monotonic()
                budget = self._budget(begun - used_s[tenant], used_bytes[tenant])
                given_bytes = budget.result_bytes
                self._call_group(seat, group, [(i, calls[i]) for i in indexes], budget, results)
                used_s[tenant] += monotonic() - begun
                used_bytes[tenant] += given_bytes - budget.result_bytes
        return results

    def check(self, script: Script) -> tuple[frozenset[str], ScriptError | None]:
        """Compile a script and run its top: the functions that it defines, or what is wrong."""
        results: list[Any] = [None]
        source = self._source(script)
        if isinstance(source, ScriptError):
            return frozenset(), source
        group = _Group(script, source, "check", "lorawan")
        with self._seats.take(("", script.language)) as seat:
            self._run(seat, group, [(0, b"null")], self._budget(monotonic(), 0), results)
        if isinstance(results[0], ScriptError):
            return frozenset(), results[0]
        return frozenset(map(str, results[0])), None

    def close(self) -> None:
        """See `ports.ScriptPort`."""
        self._seats.close()

    def _call_group(
        self,
        seat: Seat,
        group: _Group,
        calls: list[tuple[int, ScriptCall]],
        budget: _Budget,
        results: list[Any],
    ) -> None:
        """Send calls in requests of a limited size."""
        waiting: list[tuple[int, bytes]] = []
        size = 0
        for index, call in calls:
            try:
                argument = orjson.dumps(call.argument)
            except TypeError as error:
                message = f"the input cannot be written as JSON: {error}"
                results[index] = _error(group.script, "script_result", message)
                continue
            if waiting and size + len(argument) > self._limits.request_bytes_max:
                self._run(seat, group, waiting, budget, results)
                waiting, size = [], 0
            waiting.append((index, argument))
            size += len(argument)
        self._run(seat, group, waiting, budget, results)

    def _source(self, script: Script) -> bytes | ScriptError:
        try:
            source = script.source.encode()
        except UnicodeEncodeError as error:
            line = script.source.count("\n", 0, error.start) + 1
            return _error(script, "script_syntax", "the script is not Unicode text", line)
        if len(source) > self._limits.source_bytes_max:
            limit = self._limits.source_bytes_max
            message = f"the script has {len(source)} bytes; at most {limit} are allowed"
            return _error(script, "script_syntax", message, 1)
        return source

    def _run(
        self,
        seat: Seat,
        group: _Group,
        waiting: list[tuple[int, bytes]],
        budget: _Budget,
        results: list[Any],
    ) -> None:
        """Run calls of one request's size until each has its result, whatever becomes of the
        child.
        """
        careful = False
        kills = 0
        while waiting:
            if budget.is_spent():
                self._spend(group, waiting, results)
                return
            done = 0
            try:
                process = seat.process()
                for outcomes in process.run(
                    self._header(group, len(waiting), careful=careful),
                    group.source,
                    b"[" + b",".join([argument for _, argument in waiting]) + b"]",
                ):
                    budget.result_bytes -= process.frame_bytes
                    for outcome in outcomes:
                        result = results[waiting[done][0]] = _result(group.script, outcome)
                        budget.overruns -= _is_overrun(result)
                        if self._console is not None:
                            _listen(group.script, outcome.get("console"), self._console)
                        done += 1
                    if budget.is_spent() and done < len(waiting):
                        break
            except ChildLostError as lost:
                seat.lose(lost)
                if done:
                    kills = 0
                kills += lost.reason in {"killed", "stalled"}
                if (careful or len(waiting) == 1) and (
                    lost.reason in {"time", "crashed"} or kills >= _KILLS_MAX
                ):
                    results[waiting[done][0]] = self._blame(group.script, lost)
                    budget.overruns -= lost.reason == "time"
                    done += 1
                    kills = 0
                careful = True
            waiting = waiting[done:]

    def _budget(self, since: float, used_bytes: int) -> _Budget:
        limits = self._limits
        return _Budget(
            until=since + limits.batch_ms_max / 1000,
            overruns=limits.overruns_max,
            result_bytes=limits.batch_result_bytes_max - used_bytes,
        )

    def _header(self, group: _Group, count: int, *, careful: bool) -> dict[str, Any]:
        return {
            "operation": group.operation,
            "contract": group.contract,
            "count": count,
            "careful": careful,
            "console": self._console is not None,
        }

    def _blame(self, script: Script, lost: ChildLostError) -> ScriptError:
        if lost.reason == "time":
            limit = self._limits.call_ms
            return _error(script, "script_time", f"stopped after more than {limit} ms")
        return _error(script, "script_crashed", "the script's process died while it ran")

    def _spend(self, group: _Group, waiting: list[tuple[int, bytes]], results: list[Any]) -> None:
        limits = self._limits
        message = (
            f"not tried: in this batch the tenant's scripts have used up {limits.batch_ms_max} ms"
            f" or gave {limits.batch_result_bytes_max} bytes of results, or this one was stopped"
            f" {limits.overruns_max} times"
        )
        for index, _ in waiting:
            results[index] = _error(group.script, "script_budget", message)


def _is_overrun(result: Any) -> bool:
    return isinstance(result, ScriptError) and result.code == "script_time"


def _listen(script: Script, said: Any, console: Console) -> None:
    if isinstance(said, list) and said:
        console(script, [str(line) for line in said])


def _result(script: Script, outcome: dict[str, Any]) -> Any:
    """Return the value, or the ScriptError. The child may be a stranger's by now: no trust."""
    error = outcome.get("error")
    if error is None:
        return outcome.get("value")
    if not isinstance(error, dict) or error.get("code") not in _CODES:
        return _error(script, "script_crashed", "the script's process answered nonsense")
    line, column = error.get("line"), error.get("column")
    return _error(
        script,
        error["code"],
        str(error.get("message")),
        line if isinstance(line, int) else 0,
        column if isinstance(column, int) else 0,
    )


def _error(script: Script, code: str, message: str, line: int = 0, column: int = 0) -> ScriptError:
    """Return the error; its text says the place too, where one is known."""
    detail: dict[str, Any] = {"script": script.path}
    place = script.path
    if line > 0:
        detail["line"] = line
        place += f":{line}"
        if column > 0:
            detail["column"] = column
            place += f":{column}"
    return ScriptError(f"{place}: {message}", code=code, **detail)
