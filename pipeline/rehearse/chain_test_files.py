"""`chains/<name>_test.yaml` → tests that can be run, or a ConfigError with every fault at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, Fault
from pipeline.rehearse.chain_test_config import (
    ChainTestConfig,
    ChainTestsConfig,
    DeviceConfig,
    GivenConfig,
    ThenConfig,
)
from pipeline.rehearse.result import Path
from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.catalogue import Known, Problem, suggest
from pipeline.rulebook.folder import Folder, read_folder
from pipeline.rulebook.reader import Document, read_once
from pipeline.rulebook.validation import validate


@dataclass(frozen=True, slots=True)
class ChainTest:
    """One test. `path` is where it stands in its document; `chains` are those that run, None: all
    of the rulebook.
    """

    name: str
    chain: str
    config: ChainTestConfig
    given: GivenConfig
    chains: frozenset[str] | None
    document: Document
    path: Path

    @property
    def file(self) -> str:
        """The test's file, relative to the rules folder."""
        return self.document.file

    def line(self, path: Path = ()) -> int:
        """Return the line of what stands at `path` in the test."""
        return self.document.place((*self.path, *path))[0]


def load_chain_tests(book: Rulebook, *, only: Iterable[str] = ()) -> list[ChainTest]:
    """Return the tests of all chains (or of those named by `only`), by chain, in their order.

    ConfigError: every fault of every test file.
    """
    folder = read_folder(book.folder)
    wanted = set(only)
    tests: list[ChainTest] = []
    faults: list[Fault] = []
    for chain, file in sorted(folder.tests.items()):
        if wanted and chain not in wanted:
            continue
        made, wrong = _read(chain, file, folder, book)
        tests += made
        faults += wrong
    if faults:
        raise ConfigError(faults)
    return tests


def check_tests(document: Any, known: Known) -> list[Problem]:
    """Return all that is wrong with a document of tests; `known` are the names it may refer to."""
    config, problems = validate(ChainTestsConfig, document)
    return problems if config is None else list(_problems(config, known))


def _read(
    chain: str, file: str, folder: Folder, book: Rulebook
) -> tuple[list[ChainTest], list[Fault]]:
    document, faults = read_once(file, folder.contents[file])
    if document is None:
        return [], faults
    config, problems = validate(ChainTestsConfig, document.value)
    if config is None:
        return [], [document.fault(problem) for problem in problems]
    faults = [document.fault(problem) for problem in _problems(config, book)]
    chains = None if config.chains is None else frozenset(config.chains)
    tests = [
        ChainTest(
            name=test.name,
            chain=chain,
            config=test,
            given=_given(config.given, test.given),
            chains=chains,
            document=document,
            path=("tests", index),
        )
        for index, test in enumerate(config.tests)
    ]
    return tests, faults


def _given(shared: GivenConfig, own: GivenConfig | None) -> GivenConfig:
    """Return what a test is given: its own, and of the file's what it does not name."""
    if own is None:
        return shared
    return shared.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def _problems(config: ChainTestsConfig, book: Rulebook | Known) -> Iterator[Problem]:
    """Yield names that are not there, and names that stand twice."""
    for index, chain in enumerate(config.chains or ()):
        if chain not in book.chains:
            yield _no("chain", chain, book.chains, ("chains", index))
    yield from _in_given(config.given, ("given",), book)
    names: dict[str, int] = {}
    for index, test in enumerate(config.tests):
        path: Path = ("tests", index)
        if test.name in names:
            first = f"tests[{names[test.name]}]"
            message = f"the name `{test.name}` stands twice"
            yield Problem((*path, "name"), message, f"first at {first}", 0)
        names.setdefault(test.name, index)
        if test.given is not None:
            yield from _in_given(test.given, (*path, "given"), book)
        for number, step in enumerate(test.when):
            asked = step.uplink or step.message or step.downlink
            if asked is not None and asked.integration is not None:
                here = (*path, "when", number, step.kind, "integration")
                yield from _in_integration(asked.integration, here, book)
        yield from _in_then(test.then, (*path, "then"), book)


def _in_given(given: GivenConfig, path: Path, book: Rulebook | Known) -> Iterator[Problem]:
    for sink in given.services:
        if sink not in book.sinks:
            yield _no("sink", sink, book.sinks, (*path, "services", sink))
    device = given.device
    if isinstance(device, DeviceConfig) and device.integration is not None:
        here = (*path, "device", "integration")
        yield from _in_integration(device.integration, here, book)


def _in_then(then: ThenConfig, path: Path, book: Rulebook | Known) -> Iterator[Problem]:
    for what in ("deliveries", "calls"):
        for number, delivery in enumerate(getattr(then, what) or ()):
            if delivery.to is not None and delivery.to not in book.sinks:
                yield _no("sink", delivery.to, book.sinks, (*path, what, number, "to"))


def _in_integration(name: str, path: Path, book: Rulebook | Known) -> Iterator[Problem]:
    if name not in book.integrations:
        yield _no("integration", name, book.integrations, path)


def _no(what: str, name: str, known: Iterable[str], path: Path) -> Problem:
    listed = ", ".join(f"`{each}`" for each in sorted(known))
    hint = suggest(name, known) or (f"there are {listed}" if listed else "")
    return Problem(path, f"there is no {what} `{name}`", hint, 0)
