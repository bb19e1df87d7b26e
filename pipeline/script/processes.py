"""The script port: calls come in, a value or a ScriptError each goes out; the scripts run in
child processes, in batches.

The calls of a batch are grouped by tenant, script and operation; each group is a request to the
tenant's child. When a child dies, the calls that it had not answered run again one by one in a new
child, so that the one which kills it stands alone and is the only one that is lost.

A batch's results leave together, so a tenant whose scripts are slow holds up all others that are in
it. Hence each tenant has a budget of its child's CPU time in a batch, and all of them together have
one; of that, none can take another's share. What is over goes back as `script_budget`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
from pipeline.script.tables import Part

_CHECKED = ""
"""Whose scripts those are that are only compiled: no tenant's."""
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

_GroupKey = tuple[Script, str, str]


@dataclass(slots=True)
class _Budget:
    """What is left for a tenant's calls of one batch: CPU time of its children, bytes of results;
    and, should a child hang or lie about its time, the time by the clock.
    """

    given_s: float
    cpu_s: float
    until: float
    result_bytes: int

    def is_spent(self) -> bool:
        return self.cpu_s <= 0 or self.result_bytes <= 0 or monotonic() >= self.until


@dataclass(slots=True)
class _Group:
    """What calls of one request have in common. `overruns`: how many of them may yet be stopped
    for time. `calls` and `results` are the whole batch's.
    """

    calls: Sequence[ScriptCall]
    results: list[Any]
    script: Script
    source: bytes
    operation: str
    contract: str
    budget: _Budget
    overruns: int

    def is_spent(self) -> bool:
        return self.overruns <= 0 or self.budget.is_spent()


class ScriptProcesses:
    """Implements `ports.ScriptPort`. Thread-safe; starts no process before the first call, or
    before it is told to expect some.

    Above the port's codes: `script_budget`, where one tenant's scripts have used up their CPU time
    (`batch_ms_max`, beside others `batch_beside_ms_max`, or its share of `batch_all_ms_max`) or
    `batch_result_bytes_max` in one batch, or one script was stopped for time `overruns_max` times
    in it.

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
        tenants = _grouped(calls)
        limits = self._limits
        most_ms = limits.batch_ms_max if len(tenants) == 1 else limits.batch_beside_ms_max
        left_s = limits.batch_all_ms_max / 1000
        overruns = limits.overruns_max
        for place, tenant in enumerate(sorted(tenants, key=lambda each: _size(tenants[each]))):
            share_s = left_s / (len(tenants) - place)
            budget = self._budget(max(min(share_s, most_ms / 1000), limits.call_ms / 1000))
            for (script, operation, contract), indexes in tenants[tenant].items():
                source = self._source(script)
                if isinstance(source, ScriptError):
                    for index in indexes:
                        results[index] = source
                    continue
                group = _Group(
                    calls, results, script, source, operation, contract, budget, overruns
                )
                with self._seats.take((tenant, script.language)) as seat:
                    for part, text in self._requests(group, indexes):
                        self._run(seat, group, part, text)
            left_s = max(0.0, left_s - (budget.given_s - budget.cpu_s))
        return results

    def check(self, script: Script) -> tuple[frozenset[str], ScriptError | None]:
        """Compile a script and run its top: the functions that it defines, or what is wrong."""
        results: list[Any] = [None]
        source = self._source(script)
        if isinstance(source, ScriptError):
            return frozenset(), source
        budget = self._budget(self._limits.batch_ms_max / 1000)
        asked = [ScriptCall("", script, "decode_uplink", {})]
        group = _Group(asked, results, script, source, "check", "lorawan", budget, 1)
        with self._seats.take((_CHECKED, script.language)) as seat:
            self._run(seat, group, [0], b"[{}]")
        if isinstance(results[0], ScriptError):
            return frozenset(), results[0]
        return frozenset(map(str, results[0])), None

    def expect(self, languages: Iterable[str]) -> None:
        """Begin to start a process for each language: scripts in it will be checked soon."""
        for language in languages:
            self._seats.expect((_CHECKED, language))

    def rest(self) -> None:
        """End the processes that scripts were checked in; the next check starts others."""
        self._seats.leave(_CHECKED)

    def close(self) -> None:
        """See `ports.ScriptPort`."""
        self._seats.close()

    def _requests(self, group: _Group, indexes: list[int]) -> Iterator[tuple[list[int], bytes]]:
        """Yield calls with their arguments as JSON, in parts of a limited size."""
        try:
            text = _arguments(group.calls, indexes)
        except TypeError as error:
            if len(indexes) == 1:
                message = f"the input cannot be written as JSON: {error}"
                group.results[indexes[0]] = _error(group.script, "script_result", message)
                return
        else:
            if len(indexes) == 1 or len(text) <= self._limits.request_bytes_max:
                yield indexes, text
                return
        middle = len(indexes) // 2
        yield from self._requests(group, indexes[:middle])
        yield from self._requests(group, indexes[middle:])

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

    def _run(self, seat: Seat, group: _Group, waiting: list[int], text: bytes) -> None:
        """Run calls of one request's size until each has its result, whatever becomes of the
        child.
        """
        careful = False
        kills = 0
        while waiting:
            if group.is_spent():
                self._spend(group, waiting)
                return
            done = 0
            begun = monotonic()
            try:
                process = seat.process()
                header = self._header(group, len(waiting), careful=careful)
                for part in process.run(header, group.source, text):
                    group.budget.result_bytes -= process.frame_bytes
                    group.budget.cpu_s -= process.frame_cpu_s
                    self._take(group, waiting[done : done + len(part.values)], part)
                    done += len(part.values)
                    begun = monotonic()
                    if group.is_spent() and done < len(waiting):
                        break
            except ChildLostError as lost:
                seat.lose(lost)
                group.budget.cpu_s -= min(monotonic() - begun, self._limits.hard_s)
                if done:
                    kills = 0
                kills += lost.reason in {"killed", "stalled"}
                if (careful or len(waiting) == 1) and (
                    lost.reason in {"time", "crashed"} or kills >= _KILLS_MAX
                ):
                    group.results[waiting[done]] = self._blame(group.script, lost)
                    group.overruns -= lost.reason == "time"
                    done += 1
                    kills = 0
                careful = True
            waiting = waiting[done:]
            if waiting:
                text = _arguments(group.calls, waiting)

    def _take(self, group: _Group, indexes: list[int], part: Part) -> None:
        results = group.results
        for index, value in zip(indexes, part.values, strict=True):
            results[index] = value
        for place, outcome in part.others:
            if "error" in outcome:
                result = results[indexes[place]] = _result(group.script, outcome)
                group.overruns -= _is_overrun(result)
            if self._console is not None:
                _listen(group.script, outcome.get("console"), self._console)

    def _budget(self, cpu_s: float) -> _Budget:
        limits = self._limits
        return _Budget(
            given_s=cpu_s,
            cpu_s=cpu_s,
            until=monotonic() + limits.batch_wall_ms_max / 1000,
            result_bytes=limits.batch_result_bytes_max,
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

    def _spend(self, group: _Group, waiting: list[int]) -> None:
        limits = self._limits
        if group.overruns <= 0:
            why = f"in this batch the script was stopped for time {limits.overruns_max} times"
        elif group.budget.result_bytes <= 0:
            why = (
                f"in this batch the tenant's scripts gave {limits.batch_result_bytes_max} bytes of"
                " results"
            )
        else:
            why = (
                "in this batch the tenant's scripts have used up their time"
                f" ({group.budget.given_s * 1000:.0f} ms of CPU)"
            )
        for index in waiting:
            group.results[index] = _error(group.script, "script_budget", f"not tried: {why}")


def _grouped(calls: Sequence[ScriptCall]) -> dict[str, dict[_GroupKey, list[int]]]:
    """Return the calls' indexes by tenant, then by what calls of one request have in common."""
    tenants: dict[str, dict[_GroupKey, list[int]]] = {}
    before: ScriptCall | None = None
    indexes: list[int] = []
    for index, call in enumerate(calls):
        if (
            before is None
            or call.script is not before.script
            or call.tenant != before.tenant
            or call.operation != before.operation
            or call.contract != before.contract
        ):
            groups = tenants.setdefault(call.tenant, {})
            indexes = groups.setdefault((call.script, call.operation, call.contract), [])
            before = call
        indexes.append(index)
    return tenants


def _size(groups: dict[_GroupKey, list[int]]) -> int:
    return sum(map(len, groups.values()))


def _arguments(calls: Sequence[ScriptCall], indexes: list[int]) -> bytes:
    return orjson.dumps([calls[index].argument for index in indexes])


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
