"""The worked examples, as a user who copied one would run them: `funicular check` and `test`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.metrics import Registry
from pipeline.ports import ScriptPort
from pipeline.rehearse.chain_tests import load_chain_tests, run_chain_tests
from pipeline.rehearse.examples import run_examples
from pipeline.rulebook.book import Rulebook
from pipeline.script import ScriptLimits
from pipeline.wiring import load_rules, script_port
from tests.rules.folders import EXAMPLES


@pytest.fixture(scope="module")
def scripts() -> Iterator[ScriptPort]:
    port = script_port(ScriptLimits(), Registry())
    yield port
    port.close()


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.name)
def book(request: pytest.FixtureRequest, scripts: ScriptPort) -> Rulebook:
    """One of the examples, without any environment."""
    (loaded,) = load_rules([request.param], scripts, {}).values()
    return loaded


def test_check_finds_nothing(book: Rulebook) -> None:
    """There is neither a fault nor a warning in it."""
    assert book.warnings == ()


def test_it_does_what_it_says(book: Rulebook, scripts: ScriptPort) -> None:
    """Every example of its converters and every test of its chains passes."""
    results = [*run_examples(book, scripts), *run_chain_tests(book, scripts)]

    assert len(results) > 20
    assert [str(each) for result in results for each in result.differences] == []


def test_everything_in_it_is_tried(book: Rulebook) -> None:
    """Each chain has tests, among them some from an uplink's bytes to a downlink's; each converter
    has examples.
    """
    tests = load_chain_tests(book)

    assert {test.chain for test in tests} == set(book.chains)
    assert any(
        step.uplink and downlink.bytes
        for test in tests
        for step in test.config.when
        for downlink in test.config.then.downlinks or ()
    )
    for converter in book.converters.values():
        assert converter.examples, converter.name


def test_everything_in_it_is_used(book: Rulebook) -> None:
    """No converter and no sink stands there for nothing, and it says what it is."""
    text = "".join((book.folder / chain.file).read_text() for chain in book.chains.values())

    assert {each.converter for each in book.integrations.values()} == set(book.converters)
    assert [name for name in book.sinks if f"to: {name}" not in text] == []
    assert (book.folder / "README.md").read_text().startswith("# ")


def test_no_secret_is_written_down(book: Rulebook) -> None:
    """Keys come from the environment; what stands in the files says that it must be changed."""
    for path in book.folder.glob("[is]*/*.yaml"):
        for line in path.read_text().splitlines():
            if any(word in line for word in ("value:", "bearer:", "password:", "api_key:")):
                assert "${env:" in line, f"{path}: {line}"
