"""A public library of codecs, as it lies on the disk → a report a vendor: which examples pass.

Known are the layouts of TheThingsNetwork/lorawan-devices, of chirpstack-device-profiles and of
ThingsBoard's converter library; they are told by the files in a folder, so that the path may lead
to a whole library, to one vendor, or to one codec's folder. Nothing is written.
"""

from __future__ import annotations

import os
import re
from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

from pipeline.errors import ScriptError, UsageError
from pipeline.ports import ScriptCall, ScriptPort
from pipeline.rehearse import library_chirpstack, library_lorawan_devices, library_thingsboard
from pipeline.rehearse.calls import given_text
from pipeline.rehearse.compare import differences, without_normalized
from pipeline.rehearse.judging import judge_error, judge_normalized, no_error, without_empty
from pipeline.rehearse.library_case import TENANT, Case, Piece, Unrunnable
from pipeline.rehearse.result import Difference, Result

FOLDERS_MAX = 100_000
_OF_ITS_DAY = "its codec reads the clock, so its expectation held on the day it was written only"
_RESULT = frozenset({"data", "bytes", "fPort", "warnings", "errors"})
_READS_CLOCK = re.compile(r"\bnew\s+Date\s*(?:\(\s*\)|[;,)])|\bDate\s*\.\s*now\b")
_TIME = re.compile(r'"?(?:\d{4}-\d\d-\d\dT[\d:.]+Z|1\d{9}|1\d{12})"?')


@dataclass(frozen=True, slots=True)
class VendorReport:
    """What the examples of one vendor came to."""

    vendor: str
    results: tuple[Result, ...]
    unrunnable: tuple[Unrunnable, ...] = ()

    @property
    def passed(self) -> int:
        """How many examples are as they say."""
        return sum(result.ok for result in self.results)

    @property
    def failed(self) -> int:
        """How many are not."""
        return len(self.results) - self.passed


def is_library(path: Path) -> bool:
    """Return whether there is anything below `path` that `run_library` would run."""
    return next(_pieces(path, None), None) is not None


def run_library(path: Path, scripts: ScriptPort, *, only: Sequence[str] = ()) -> list[VendorReport]:
    """Run every example below `path`, or those of the vendors in `only`; reports by vendor.

    The libraries' own runners allow a script one second: give `scripts` as much. UsageError: there
    is no such folder, or nothing in it that could be run.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is no folder", code="no_library")
    results: dict[str, list[Result]] = defaultdict(list)
    unrunnable: dict[str, list[Unrunnable]] = defaultdict(list)
    cases = []
    for piece in _pieces(path, scripts):
        if only and piece.vendor not in only:
            continue
        if isinstance(piece, Unrunnable):
            unrunnable[piece.vendor].append(piece)
        else:
            cases.append(piece)
    for _, group in groupby(cases, key=lambda case: case.call.script.path):
        for case, result in _run(list(group), scripts):
            if _is_of_its_day(case, result):
                unrunnable[case.vendor].append(
                    Unrunnable(case.vendor, f"{case.file}:{case.line}", _OF_ITS_DAY)
                )
            else:
                results[case.vendor].append(result)
    if not results and not unrunnable:
        raise UsageError(
            f"{path} has no codec with examples in a layout that is known (lorawan-devices,"
            " chirpstack-device-profiles, ThingsBoard's converters)",
            code="no_library",
        )
    return [
        VendorReport(vendor, tuple(results[vendor]), tuple(unrunnable[vendor]))
        for vendor in sorted({*results, *unrunnable}, key=str.lower)
    ]


def _pieces(path: Path, scripts: ScriptPort | None) -> Iterator[Piece]:
    """Yield all that there is; without `scripts`, of files that need no engine to be read."""
    for count, (folder, folders, names) in enumerate(os.walk(path)):
        if count >= FOLDERS_MAX:
            raise UsageError(f"{path} has more than {FOLDERS_MAX:,} folders", code="no_library")
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        names.sort()
        here = Path(folder)
        shown = here.relative_to(path).as_posix() if here != path else path.name
        if library_thingsboard.CONVERTER in names:
            yield from library_thingsboard.cases(here, names, shown)
        tests = [name for name in names if library_chirpstack.is_test(name)]
        if tests:
            if scripts is None:
                yield Unrunnable("", shown, "not asked for")
            else:
                yield from library_chirpstack.cases(here, tests, shown, scripts)
        for name in names:
            if name.endswith(".yaml"):
                yield from library_lorawan_devices.cases(here / name, f"{shown}/{name}")


def _run(cases: Sequence[Case], scripts: ScriptPort) -> Iterator[tuple[Case, Result]]:
    """Yield the results of one script's cases."""
    begun = perf_counter()
    values = scripts.call([case.call for case in cases])
    found = [_judge(case, value) for case, value in zip(cases, values, strict=True)]
    asked = [
        index
        for index, case in enumerate(cases)
        if case.normalized is not None and isinstance(values[index], dict)
    ]
    normalized = scripts.call(
        [
            ScriptCall(
                TENANT,
                cases[index].call.script,
                "normalize_uplink",
                {"data": values[index]["data"]},
            )
            for index in asked
        ]
    )
    for index, value in zip(asked, normalized, strict=True):
        found[index] += _judge_normalized(cases[index], value)
    each_s = (perf_counter() - begun) / len(cases)
    for case, wrong in zip(cases, found, strict=True):
        yield (
            case,
            Result("example", case.name, case.file, case.line, tuple(wrong), each_s, _given(case)),
        )


def _given(case: Case) -> str:
    argument = case.call.argument
    if case.call.operation == "encode_downlink":
        return given_text("encode_downlink", argument)
    raw = b64decode(argument.get("bytes") or argument.get("payload") or "")
    return given_text("decode_uplink", {"bytes": raw, "fPort": argument.get("fPort")})


def _is_of_its_day(case: Case, result: Result) -> bool:
    """Return whether an example fails by nothing but times, of a script that reads the clock."""
    return (
        not result.ok
        and _READS_CLOCK.search(case.call.script.source) is not None
        and all(
            _TIME.fullmatch(each.expected) and _TIME.fullmatch(each.got)
            for each in result.differences
        )
    )


def _judge(case: Case, value: Any) -> list[Difference]:
    expected = case.expected
    if case.whole:
        if isinstance(value, ScriptError):
            return [Difference(message=value.message)]
        return differences(expected, value, exact=True)
    wanted = expected.get("errors") if isinstance(expected, dict) else None
    if isinstance(value, ScriptError):
        return judge_error(wanted, value)
    if wanted:
        return no_error(wanted)
    got = without_empty(without_normalized(value))
    if isinstance(expected, dict):
        # Keys that the contract does not have: no network server hands them on.
        expected = {key: item for key, item in expected.items() if key in _RESULT}
    # The older encoders cannot say a port: it is the one that they were asked for.
    if isinstance(got, dict) and "bytes" in got and got.get("fPort") is None:
        got["fPort"] = case.call.argument.get("fPort") if "fPort" in expected else None
    return differences(without_empty(expected), got, exact=True)


def _judge_normalized(case: Case, value: Any) -> list[Difference]:
    wanted = case.normalized if isinstance(case.normalized, dict) else {}
    if isinstance(value, ScriptError):
        return judge_error(wanted.get("errors"), value)
    return judge_normalized(wanted, value)
