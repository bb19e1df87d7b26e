"""What the rooms hand to the rulebook, so that it can check what they will run.

The rulebook knows no node, no sink and no script engine: wiring fills a `Catalogue` with their
models and checks. What a check finds is a `Problem`: at a path inside the document, since a room
knows nothing of files and lines.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from pipeline.integrations.dialect import Dialect
from pipeline.ports import Script

if TYPE_CHECKING:
    from pipeline.rulebook.connections.connection_config import ConnectionConfig


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong inside a document.

    `path` leads to the value: keys of mappings and indexes of lists. Where a key is unknown, the
    path ends in that key; where one is missing, it ends at the mapping that lacks it. `offset`
    counts characters inside the scalar that `path` leads to (for expressions); None is the start.
    `warns`: it can run, but hardly does what was meant.
    """

    path: tuple[str | int, ...]
    message: str
    suggestion: str = ""
    offset: int | None = None
    warns: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a document may refer to: all that the folder has, faulty files included, so
    that one fault does not cause others.
    """

    sinks: frozenset[str] = frozenset()
    converters: frozenset[str] = frozenset()
    integrations: frozenset[str] = frozenset()
    chains: frozenset[str] = frozenset()
    # What chains may take from files: entries by key of each table, and scripts by file.
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)


class ScriptProblem(Protocol):
    """One thing wrong in a script. Lines and columns count from 1; 0 is unknown."""

    @property
    def line(self) -> int: ...  # noqa: D102 - the class says it
    @property
    def column(self) -> int: ...  # noqa: D102
    @property
    def message(self) -> str: ...  # noqa: D102


class ScriptFindings(Protocol):
    """What a check of one script found; `functions` are the names that it defines at its top."""

    @property
    def problems(self) -> Sequence[ScriptProblem]: ...  # noqa: D102
    @property
    def functions(self) -> Collection[str]: ...  # noqa: D102


ParseChain = Callable[[Mapping[str, Any], Known], tuple[Any | None, Sequence[Problem]]]
"""A chain's document → (route's config, or None where it has faults, and what is wrong)."""

CheckChains = Callable[[Mapping[str, Any]], Mapping[str, Sequence[Problem]]]
"""All configs by chain name → what is wrong between chains (cycles), by chain name."""

CheckTests = Callable[[Any, Known], Sequence[Problem]]
"""A document of chain tests → all that is wrong with it."""

CheckScript = Callable[[Script], ScriptFindings]
"""Compiles a script without calling its functions."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that a `rules/` folder may use, handed in by wiring."""

    dialects: Mapping[str, Dialect]
    sinks: Mapping[str, type[BaseModel]]  # transport name → the model of its config
    parse_chain: ParseChain
    check_script: CheckScript | None = None
    # Is told, before all else, in which languages there are scripts to be checked.
    expect_scripts: Callable[[Collection[str]], None] | None = None
    check_chains: CheckChains | None = None
    # Gives the JSON Schema of a chain; making it takes longer than all else that a check does.
    chain_schema: Callable[[], Mapping[str, Any]] | None = None
    check_tests: CheckTests | None = None
    test_model: type[BaseModel] | None = None  # of a file of chain tests
    # Codecs that need no script: name → its pydantic model, which also says its `contract`, and
    # of a config whether it `decodes` and `encodes`.
    codecs: Mapping[str, Any] = field(default_factory=dict)
    # How messages come where they are not posted: transport name → the model of `connection:`.
    transports: Mapping[str, type[ConnectionConfig]] = field(default_factory=dict)
    # Templates of sinks that come with Funicular: name → YAML; a folder's own count more.
    templates: Mapping[str, bytes] = field(default_factory=dict)


def suggest(wrong: str, names: Iterable[str]) -> str:
    """Return `did you mean …?` for the nearest of `names`, or "" where none is near."""
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(wrong.lower(), list(by_lower), n=1, cutoff=0.6)
    return f"did you mean `{by_lower[near[0]]}`?" if near else ""
