"""An export's graph → chains of ours: each outlet has one target, and reading goes downwards.

There a way may lead to several nodes, which all get the message. Here those that end there follow
one after the other, and of several that go on, all but one become chains of their own, which the
node `chain` runs on the message as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pipeline.rehearse.thingsboard import carry_shape, carry_ways, carry_work
from pipeline.rehearse.thingsboard.carry_ways import TYPES, Carry
from pipeline.rehearse.thingsboard.export import Export
from pipeline.rehearse.thingsboard.piece import SUCCESS, THEN, Needed, Piece, lost, slug

CARRY: Mapping[str, Carry] = {**carry_ways.CARRY, **carry_shape.CARRY, **carry_work.CARRY}
"""How each of ThingsBoard's nodes is carried over, by its class."""

_STOP = "stop"
_NAME_LENGTH_MAX = 64
_RESERVED = frozenset({"stop", "then", "otherwise", "failure"})
_METADATA = {
    "deviceName": "${device.name}",
    "deviceType": "${device.type}",
    "ts": "${string(int(message.time) * 1000)}",
}
Acts = Callable[[str], bool]
"""Whether a node of this verb does anything but send messages on."""


@dataclass(slots=True)
class Draft:
    """A chain in the making. `comments`: by node, what stands above it."""

    name: str
    on: list[str] | None
    nodes: list[dict[str, Any]] = field(default_factory=list)
    comments: dict[str, list[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Woven:
    """What becomes of one export. `lost`: by ThingsBoard's node, what could not be carried over."""

    chains: list[Draft]
    lost: list[tuple[str, str]]


def weave(export: Export, name: str, needed: Needed, acts: Acts, *, called: bool) -> Woven:
    """Return the chains of an export, the first called `name`. `called`: another chain runs it."""
    return _Weaver(export, needed, acts).weave(name, called=called)


class _Weaver:
    def __init__(self, export: Export, needed: Needed, acts: Acts) -> None:
        self._export = export
        self._needed = needed
        self._acts = acts
        self._pieces: dict[int, Piece] = {}
        self._made: dict[int, str] = {}  # chains of their own, by their first node
        self._under_way: set[int] = set()
        self.chains: list[Draft] = []
        self.lost: list[tuple[str, str]] = []

    def weave(self, name: str, *, called: bool) -> Woven:
        first = self._export.first
        main = self._draft(first, name, None if called else self._types(first))
        if self._needed.metadata and main.nodes:
            fields = {f"metadata.{key}": _METADATA[key] for key in sorted(self._needed.metadata)}
            before = {"name": "as in ThingsBoard", "set": {"fields": fields}}
            main.nodes.insert(0, before)
            main.comments["as in ThingsBoard"] = ["What scripts look for in the metadata."]
        unseen = set(range(len(self._export.nodes))) - set(self._pieces)
        for index in sorted(unseen):
            self._say(index, "no message that there is here comes to it")
        for index in sorted(self._export.elsewhere):
            self._say(index, "a way from it into another chain: draw it again by a `rule chain`")
        for draft in self.chains:
            _tidy(draft)
        return Woven([draft for draft in self.chains if draft.nodes], self.lost)

    def _types(self, first: int) -> list[str]:
        """Return which messages enter: those that the first node tells apart, else uplinks."""
        node = self._export.nodes[first]
        said = list(self._export.ways.get(first, {}))
        if node.kind == "TbMsgTypeFilterNode":
            said = list(node.config.get("messageTypes") or ())
        return sorted({TYPES[each] for each in said if each in TYPES}, reverse=True) or ["uplink"]

    def _draft(self, first: int, name: str, on: list[str] | None) -> Draft:
        draft = Draft(name, on)
        self.chains.append(draft)
        self._under_way.add(first)
        entry = _Thread(self, draft).enter(first)
        self._under_way.discard(first)
        _prune(draft, self._acts, lambda node: self.lost.append((node, "nothing comes after it")))
        if draft.nodes and entry != draft.nodes[0]["name"]:
            # What comes first has become nothing, and two nodes stood after it.
            draft.nodes.sort(key=lambda node: node["name"] != entry)
        return draft

    def chain_of(self, index: int) -> str | None:
        """Return the chain that begins with a node; None: it is being made, so it leads back."""
        if index in self._under_way:
            return None
        if index not in self._made:
            main = self.chains[0].name
            taken = {draft.name for draft in self.chains} | set(self._needed.chains.values())
            name = base = slug(f"{main}-{self._export.nodes[index].name}")
            number = 1
            while name in taken:
                number += 1
                name = f"{base}-{number}"
            self._made[index] = name
            if not self._draft(index, name, None).nodes:
                self._made[index] = ""
        return self._made[index]

    def piece(self, index: int) -> Piece:
        """Return what becomes of a node; what is lost is noted once."""
        found = self._pieces.get(index)
        if found is None:
            node = self._export.nodes[index]
            relations = tuple(self._export.ways.get(index, {}))
            carry = CARRY.get(node.kind)
            if carry is None:
                found = lost(f"there is nothing like a {node.kind} here")
            else:
                found = carry(node, self._needed, relations)
            self._pieces[index] = found
            for note in found.notes:
                self._say(index, note)
            for relation in relations:
                known = relation in found.ways or relation == "Failure" or not found.nodes
                if not known and not any(relation in note for note in found.notes):
                    self._say(index, f"its way `{relation}` has no like")
        return found

    def ways(self, index: int) -> Mapping[str, tuple[int, ...]]:
        return self._export.ways.get(index, {})

    def called(self, index: int) -> str:
        return self._export.nodes[index].name

    def _say(self, index: int, note: str) -> None:
        self.lost.append((self.called(index), note))

    def back(self, index: int) -> None:
        self._say(index, "a way leads back to it; circles are left out")


class _Thread:
    """Puts the nodes of one chain in order, from its first on."""

    def __init__(self, weaver: _Weaver, draft: Draft) -> None:
        self._weaver = weaver
        self._draft = draft
        self._entries: dict[int, str] = {}
        self._rows: dict[tuple[int, ...], str] = {}
        self._open: set[int] = set()
        self._names: set[str] = set()

    def enter(self, index: int) -> str:
        """Return the name of the node by which a node of ThingsBoard begins."""
        if index in self._open:
            self._weaver.back(index)
            return _STOP
        if index not in self._entries:
            self._open.add(index)
            self._entries[index] = self._enter(index)
            self._open.discard(index)
        return self._entries[index]

    def _enter(self, index: int) -> str:
        piece, ways = self._weaver.piece(index), self._weaver.ways(index)
        if not piece.nodes:
            onward = self._onward(index)
            entry = self._all(ways[onward]) if onward else _STOP
            if entry != _STOP and piece.notes:
                said = [f"({self._weaver.called(index)}) {note}" for note in piece.notes]
                comments = self._draft.comments
                comments[entry] = said + comments.get(entry, [])
            return entry
        nodes = self._append(index, piece)
        last = nodes[-1]
        targets: dict[tuple[str, ...], tuple[int, ...]] = {}
        for relation, path in piece.ways.items():
            ends = targets.get(path, ())
            targets[path] = (*ends, *(end for end in ways.get(relation, ()) if end not in ends))
        # Downwards by `then`, and what is left over comes last.
        for path, ends in sorted(targets.items(), key=lambda each: each[0] == ("otherwise",)):
            if ends or path == ("then",):
                _put(last, path, self._all(ends))
        if "Failure" in ways:
            failed = self._all(ways["Failure"])
            if failed != _STOP:
                for node in nodes:
                    node["on_failure"] = failed
        return str(nodes[0]["name"])

    def _append(self, index: int, piece: Piece) -> list[dict[str, Any]]:
        nodes = []
        for number, made in enumerate(piece.nodes):
            name = self._name(self._weaver.called(index), number)
            nodes.append({"name": name, **_copied(made)})
        for node, following in pairwise(nodes):
            node["then"] = following["name"]
        self._draft.nodes += nodes
        if piece.notes:
            self._draft.comments[str(nodes[0]["name"])] = list(piece.notes)
        return nodes

    def _all(self, ends: tuple[int, ...]) -> str:
        """Return where a way to several nodes begins."""
        ends = tuple(end for end in ends if self._does(end, frozenset()))
        if len(ends) < 2:
            return self.enter(ends[0]) if ends else _STOP
        key = tuple(sorted(ends))
        if key not in self._rows:
            self._rows[key] = self._row(ends)
        return self._rows[key]

    def _row(self, ends: tuple[int, ...]) -> str:
        short = [end for end in ends if self._is_short(end)]
        long = [end for end in ends if end not in short and self._weaver.piece(end).nodes]
        # One that has become nothing leads on itself.
        long += [end for end in ends if end not in short and end not in long]
        row: list[dict[str, Any]] = []
        for end in short:
            row += self._append(end, self._weaver.piece(end))
        for end in long[:-1]:
            chain = self._weaver.chain_of(end)
            if chain is None:
                self._weaver.back(end)
            elif chain:
                name = self._name(self._weaver.called(end), 0)
                row.append({"name": name, "chain": chain})
                self._draft.nodes.append(row[-1])
        for node, following in pairwise(row):
            node["then"] = following["name"]
        rest = self.enter(long[-1]) if long else _STOP
        if not row:
            return rest
        row[-1]["then"] = rest
        return str(row[0]["name"])

    def _does(self, index: int, seen: frozenset[int]) -> bool:
        """Return whether anything is left of a node, or of those that it leads to."""
        if self._weaver.piece(index).nodes:
            return True
        ends = self._weaver.ways(index).get(self._onward(index) or "", ())
        return any(end not in seen and self._does(end, seen | {index}) for end in ends)

    def _onward(self, index: int) -> str | None:
        """Return the relation by which messages leave a node of which nothing is left."""
        ways = self._weaver.ways(index)
        return next((each for each in (SUCCESS, "True", "default") if each in ways), None)

    def _is_short(self, index: int) -> bool:
        """Return whether a node does something, lets the message be, and is the end of its way."""
        piece = self._weaver.piece(index)
        return not self._weaver.ways(index) and len(piece.nodes) == 1 and piece.ways is THEN

    def _name(self, wanted: str, number: int) -> str:
        plain = "".join(each if each.isprintable() and each != "/" else " " for each in wanted)
        base = " ".join(plain.split())[: _NAME_LENGTH_MAX - 4] or "node"
        if base in _RESERVED:
            base = f"{base} it"
        number += 1
        name = base if number == 1 else f"{base} {number}"
        while name in self._names:
            number += 1
            name = f"{base} {number}"
        self._names.add(name)
        return name


def _copied(made: dict[str, Any]) -> dict[str, Any]:
    """Return a copy whose targets can be set; what is shared is not changed."""
    copied = dict(made)
    for verb in ("script", "match_type", "outputs"):
        if isinstance(copied.get(verb), dict):
            copied[verb] = dict(copied[verb])
    if "switch" in copied:
        copied["switch"] = [dict(case) for case in copied["switch"]]
    return copied


def _put(node: dict[str, Any], path: tuple[str, ...], target: str) -> None:
    inner: Any = node
    for key in path[:-1]:
        inner = inner[int(key)] if isinstance(inner, list) else inner.setdefault(key, {})
    inner[path[-1]] = target


def _targets(node: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Return where the names of a node's targets stand: mappings and keys."""
    found = [(node, key) for key, value in node.items() if key not in ("name", "chain", "output")
             and isinstance(value, str) and key in _OUTLETS]  # fmt: skip
    for holder in (node.get("match_type", {}), node.get("outputs", {})):
        found += [(holder, key) for key in holder]
    if isinstance(node.get("script"), dict):
        outlets = node["script"].get("outlets", {})
        found += [(outlets, key) for key in outlets]
    found += [(case, "to") for case in node.get("switch", ())]
    return found


_OUTLETS = frozenset(
    {"then", "otherwise", "on_failure", "created", "updated", "entered", "left", "dwelled",
     "unplaced"}
)  # fmt: skip


def _prune(draft: Draft, acts: Acts, say: Callable[[str], None]) -> None:
    """Take nodes out that only send messages on, and send them nowhere; again and again."""
    while True:
        idle = next((node for node in draft.nodes if _is_idle(node, acts)), None)
        if idle is None:
            return
        draft.nodes.remove(idle)
        draft.comments.pop(idle["name"], None)
        say(idle["name"])
        for node in draft.nodes:
            for holder, key in _targets(node):
                if holder[key] == idle["name"]:
                    holder[key] = _STOP


def _is_idle(node: dict[str, Any], acts: Acts) -> bool:
    verb = next(key for key in node if key != "name")
    return not acts(verb) and all(holder[key] == _STOP for holder, key in _targets(node))


def _tidy(draft: Draft) -> None:
    """Leave out what goes without saying: `then` to the next node, all others to `stop`."""
    names = [node["name"] for node in draft.nodes]
    for number, node in enumerate(draft.nodes):
        following = names[number + 1] if number + 1 < len(names) else _STOP
        if node.get("then") == following:
            del node["then"]
        for key in _OUTLETS - {"then", "created", "updated", "unplaced"}:
            if node.get(key) == _STOP:
                del node[key]
        if node.get("unplaced") == _STOP:
            del node["unplaced"]
