"""The tests of chains, run: each a Result.

A test goes the whole way: a request at the door, converter, chains, downlink, answer, on the real
stages in memory. Tests share the compiled chains and the script processes, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

from pydantic import BaseModel

from pipeline.ports import ScriptPort
from pipeline.rehearse.chain_test_config import ThenConfig
from pipeline.rehearse.chain_test_files import ChainTest, load_chain_tests
from pipeline.rehearse.compare import differences, shown
from pipeline.rehearse.harness import START_MS, Rehearsal, Stages
from pipeline.rehearse.observe import Observed, answer
from pipeline.rehearse.perform import Performer
from pipeline.rehearse.result import Difference, Path, Result
from pipeline.rehearse.uplinks import StepError
from pipeline.route.chain import Watch
from pipeline.rulebook.book import Rulebook

__all__ = ["ChainTest", "load_chain_tests", "run_chain_tests"]


def run_chain_tests(
    book: Rulebook,
    scripts: ScriptPort,
    *,
    only: Sequence[str] = (),
    tests: Sequence[ChainTest] | None = None,
    watch: Watch | None = None,
) -> list[Result]:
    """Run the tests of all chains, of those named by `only`, or just `tests`, in order; return a
    Result each. `watch` is given every node, as `Route` does: see `coverage`. Not inside a running
    event loop: there, await `run_chain_test`.

    ConfigError: every fault of every test file; nothing has run. RetryableError: the script
    engine does not start on this machine.
    """
    if tests is None:
        tests = load_chain_tests(book, only=only)
    return asyncio.run(_run_all(_StagesByChains(book, scripts, watch), tests))


async def _run_all(choices: _StagesByChains, tests: Sequence[ChainTest]) -> list[Result]:
    return [await run_chain_test(choices.of(test), test) for test in tests]


class _StagesByChains:
    """The stages by which chains run, made once for each such choice."""

    def __init__(self, book: Rulebook, scripts: ScriptPort, watch: Watch | None) -> None:
        self._book = book
        self._scripts = scripts
        self._watch = watch
        self._made: dict[frozenset[str] | None, Stages] = {}

    def of(self, test: ChainTest) -> Stages:
        stages = self._made.get(test.chains)
        if stages is None:
            book = self._book
            if test.chains is not None:
                kept = {name: book.chains[name] for name in sorted(test.chains)}
                book = replace(book, chains=kept)
            stages = self._made[test.chains] = Stages(book, self._scripts, watch=self._watch)
        return stages


async def run_chain_test(stages: Stages, test: ChainTest) -> Result:
    """Run one test on `stages`, whose rulebook has the chains that the test is to run."""
    begun = perf_counter()
    found = await _differences(stages, test)
    placed = tuple(
        replace(each, line=each.line or test.line(each.path) if each.path else each.line)
        for each in found
    )
    return Result(
        kind="chain",
        name=f"{test.chain}: {test.name}",
        file=test.file,
        line=test.line(),
        differences=placed,
        duration_s=perf_counter() - begun,
    )


async def _differences(stages: Stages, test: ChainTest) -> list[Difference]:
    start_ms = START_MS if test.given.time is None else test.given.time
    rehearsal = Rehearsal(stages, now_ms=start_ms)
    performer = Performer(rehearsal)
    path: Path = ("given",)
    try:
        await performer.give(test.given)
        observed = Observed(rehearsal)
        for number, step in enumerate(test.config.when):
            path = ("when", number, step.kind)
            await performer.do(step)
    except StepError as error:
        return [Difference(path, message=error.message)]
    except RuntimeError as error:  # of the engine: rules that feed themselves
        return [Difference(path, message=f"it does not end: {error}")]
    devices = {name: await performer.twin(name) for name in test.config.then.devices or ()}
    if test.config.then.attributes is not None and performer.device is not None:
        devices.setdefault(performer.device, await performer.twin(performer.device))
    return _judge(test.config.then, observed, performer, devices)


def _judge(
    then: ThenConfig, observed: Observed, performer: Performer, devices: dict[str, dict[str, Any]]
) -> list[Difference]:
    """Compare what `then` names; with `exact` also the lists that it does not name."""
    answers = [answer(response) for response in performer.answers]
    lists: list[tuple[str, Sequence[BaseModel] | None, list[dict[str, Any]]]] = [
        ("answers", then.answers, answers),
        ("dead_letters", then.dead_letters, observed.dead_letters()),
        ("downlinks", then.downlinks, observed.downlinks()),
        ("deliveries", then.deliveries, observed.deliveries()),
        ("calls", then.calls, observed.calls()),
        ("logs", then.logs, observed.logs()),
    ]
    found: list[Difference] = []
    for name, expected, got in lists:
        if expected is not None:
            found += _compare_lists(expected, got, ("then", name), exact=then.exact)
        elif name == "answers":
            found += _refused(got)
        elif name == "calls":
            continue  # they are among the deliveries
        elif then.exact or name == "dead_letters":
            found += [
                Difference(("then", name), message=f"nobody expected {shown(each)}") for each in got
            ]
    if then.attributes is not None:
        twin = devices.get(performer.device or "", {})
        kept = {scope: each for scope, each in twin.get("attributes", {}).items() if each}
        got_scopes = {scope: {} for scope in then.attributes} | kept
        found += differences(
            then.attributes, got_scopes, exact=then.exact, path=("then", "attributes")
        )
    for name, expected_twin in (then.devices or {}).items():
        found += differences(expected_twin, devices[name], path=("then", "devices", name))
    return found


def _refused(answers: Sequence[dict[str, Any]]) -> Iterator[Difference]:
    """An uplink that was refused without the test saying so never reached the rules."""
    for number, each in enumerate(answers, start=1):
        if each["status"] >= 400:
            message = f"uplink {number} was refused: {each['status']} {each['text']}"
            yield Difference(("when",), message=message)


def _compare_lists(
    expected: Sequence[BaseModel], got: Sequence[dict[str, Any]], path: Path, *, exact: bool
) -> list[Difference]:
    """Compare entry by entry: of each what the test names, the JSON in it whole where `exact`."""
    found: list[Difference] = []
    for number in range(max(len(expected), len(got))):
        here = (*path, number)
        if number >= len(got):
            found.append(Difference(here, shown(_said(expected[number])), "nothing"))
        elif number >= len(expected):
            found.append(Difference(here, "nothing", shown(_without_empty(got[number]))))
        else:
            said = _said(expected[number])
            for key, value in said.items():
                came = got[number].get(key)
                if key == "message" and isinstance(came, str) and str(value) in came:
                    continue
                found += differences(value, came, exact=exact, path=(*here, key))
    return found


def _said(expected: BaseModel) -> dict[str, Any]:
    """Return what an entry of `then` names, as JSON; bytes in hexadecimal."""
    said = {}
    for name, field in type(expected).model_fields.items():
        if name in expected.model_fields_set:
            value = getattr(expected, name)
            said[field.alias or name] = value.hex(" ") if isinstance(value, bytes) else value
    return said


def _without_empty(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if value not in (None, "", {}, False)}
