"""Exported rule chains → the files of a rules folder, and a list of what was lost.

Nothing is run or asked: what ThingsBoard keeps beside its chains (profiles, customers, its
database, its queues) is not in an export.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.rehearse.thingsboard.export import Export, read_export
from pipeline.rehearse.thingsboard.piece import Needed, slug
from pipeline.rehearse.thingsboard.weave import Acts, weave
from pipeline.rehearse.thingsboard.write import chain_yaml, sink_yaml


@dataclass(frozen=True, slots=True)
class Lost:
    """What could not be carried over of a node, and why or what to do instead."""

    chain: str
    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Imported:
    """The files by their paths in a rules folder, and what was lost."""

    files: Mapping[str, str]
    lost: tuple[Lost, ...]


def import_chains(exports: Mapping[str, bytes], acts: Acts) -> Imported:
    """Return what becomes of exports, given by the names of their files; those that run each other
    belong together. `acts`: whether a node of ours does anything but send messages on.

    UsageError: one is no export, two have the same name, or nothing of one can be carried over.
    """
    read = {file: read_export(raw, file) for file, raw in exports.items()}
    names: dict[str, str] = {}
    for file, export in read.items():
        if export.name in names:
            raise UsageError(f"{file}: another chain is called `{export.name}`, too")
        names[export.name] = _free(slug(export.name), set(names.values()))
    called = {
        node.name
        for export in read.values()
        for node in export.nodes
        if node.kind == "TbRuleChainInputNode"
    }
    files: dict[str, str] = {}
    lost: list[Lost] = []
    sinks: dict[str, tuple[str, dict[str, object]]] = {}
    for file, export in read.items():
        needed = Needed(chains=names, sinks=sinks)
        woven = weave(export, names[export.name], needed, acts, called=export.name in called)
        if not woven.chains:
            why = "; ".join(f"{node}: {note}" for node, note in woven.lost[:5])
            raise UsageError(f"{file}: nothing of `{export.name}` can be carried over ({why})")
        for draft in woven.chains:
            files[f"chains/{draft.name}.yaml"] = chain_yaml(draft, _about(export))
        lost += [Lost(export.name, node, why) for node, why in woven.lost]
    for name, (about, config) in sorted(sinks.items()):
        files[f"sinks/{name}.yaml"] = sink_yaml(about, config)
    return Imported(files, tuple(dict.fromkeys(lost)))


def _about(export: Export) -> str:
    return f"Imported from ThingsBoard's rule chain `{export.name}`."


def _free(name: str, taken: set[str]) -> str:
    number, made = 1, name
    while made in taken:
        number += 1
        made = f"{name}-{number}"
    return made
