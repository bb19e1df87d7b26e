"""Every example and every chain test in `rules/`, the same as `funicular test`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from pipeline.metrics import Registry
from pipeline.rehearse.chain_tests import ChainTest, load_chain_tests, run_chain_tests
from pipeline.rehearse.examples import run_examples
from pipeline.rehearse.result import Result
from pipeline.rulebook.book import Rulebook
from pipeline.script import ScriptLimits, ScriptProcesses
from pipeline.wiring import load_rules

FOLDER = Path(__file__).parents[2] / "rules"


@cache
def book() -> Rulebook:
    """The folder, as it starts without any environment."""
    (loaded,) = load_rules([FOLDER], None, {}).values()
    return loaded


@cache
def chain_tests() -> list[ChainTest]:
    return load_chain_tests(book())


def examples() -> list[str]:
    return [
        f"{converter.file}:{example.line}"
        for converter in book().converters.values()
        for example in converter.examples
    ]


@pytest.fixture(scope="module")
def scripts() -> Iterator[ScriptProcesses]:
    processes = ScriptProcesses(ScriptLimits(), Registry())
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def example_results(scripts: ScriptProcesses) -> dict[str, Result]:
    return {f"{result.file}:{result.line}": result for result in run_examples(book(), scripts)}


@pytest.mark.parametrize("place", examples())
def test_example(place: str, example_results: dict[str, Result]) -> None:
    """A converter gives what its example says."""
    result = example_results[place]

    assert result.ok, "\n".join(map(str, result.differences))


@pytest.mark.parametrize("test", chain_tests(), ids=lambda test: f"{test.chain}: {test.name}")
def test_chain(test: ChainTest, scripts: ScriptProcesses) -> None:
    """A chain does what its test says, from the door to the answer."""
    (result,) = run_chain_tests(book(), scripts, tests=[test])

    assert result.ok, "\n".join(map(str, result.differences))


def test_each_chain_has_tests_for_what_it_does_and_what_goes_wrong() -> None:
    """The example chains show how to test: none is without, and each has a failure in it."""
    tested = {test.chain for test in chain_tests()}
    failing = {
        test.chain
        for test in chain_tests()
        if test.config.then.dead_letters
        or any(downlink.state == "failed" for downlink in test.config.then.downlinks or ())
    }

    assert tested == failing == set(book().chains)
