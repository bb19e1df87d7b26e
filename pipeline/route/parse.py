"""Checks chains before they run: a document in, its config and all that is wrong with it out.

Problems have a path inside the document; the rulebook makes file, line and column of it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.route.chain import NODES_MAX, ChainConfig, On, target_of
from pipeline.route.fields import FieldFault
from pipeline.route.limits import Limits
from pipeline.route.message import ATTRIBUTES_UPDATED, TOLD
from pipeline.route.node import STOP, Node, example, nodes
from pipeline.rulebook.catalogue import Known, Problem, suggest
from pipeline.rulebook.validation import validate

MESSAGE_TYPES = ("uplink", "join", "location", "service_data", "status", ATTRIBUTES_UPDATED, TOLD)
"""What enters chains: `model.uplink.MessageType`, changes of attributes, what devices tell."""

_TARGET_KEYS = ("then", "otherwise", "on_failure")
_BESIDE = ("name", *_TARGET_KEYS)
Path = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class _Head(ChainConfig):
    """A chain's document without its nodes, which are read one by one."""

    nodes: Any = ()


def parse_chain(
    document: Mapping[str, Any], known: Known
) -> tuple[ChainConfig | None, list[Problem]]:
    """Return a chain's config, None where it has faults, and every problem found."""
    head, problems = _validate(_Head, dict(document), ())
    on = head.on if isinstance(head, _Head) else None
    problems += _check_on(on, known)
    written = document.get("nodes")
    if not isinstance(written, list) or not written:
        message = "`nodes` is missing" if written is None else "must be a list of nodes"
        return None, [*problems, Problem(("nodes",) if written is not None else (), message)]
    if len(written) > NODES_MAX:
        return None, [*problems, Problem(("nodes",), f"must have at most {NODES_MAX} nodes")]
    found: dict[int, Node] = {}
    for number, item in enumerate(written):
        node, wrong = _parse_node(item, ("nodes", number), known)
        problems += wrong
        if node is not None:
            found[number] = node
    problems += _check_names(written)
    names = {item.get("name") for item in written if isinstance(item, dict)}
    ways = _check_targets(found, written, {name for name in names if isinstance(name, str)})
    problems += ways
    if len(found) == len(written) and not ways:
        problems += _check_ways(list(found.values()))
        problems += _check_ends(list(found.values()))
    if not isinstance(head, _Head) or not all(problem.warns for problem in problems):
        return None, problems
    made = ChainConfig(chain=head.chain, about=head.about, on=on, nodes=tuple(found.values()))
    return made, problems


def check_chains(configs: Mapping[str, ChainConfig]) -> dict[str, list[Problem]]:
    """Return what is wrong between chains: circles, too deep, never run; by chain name."""
    called = {call for config in configs.values() for call in config.calls()}
    problems = {name: found for name in configs if (found := _unheard(name, configs))}
    depth_max = Limits().chain_depth_max
    for name, config in configs.items():
        for number, node in enumerate(config.nodes):
            for call in node.calls():
                way = _way_back(name, call, configs)
                if way:
                    circle = " → ".join(f"`{each}`" for each in (name, *way))
                    text = f"chains run each other in a circle: {circle}"
                    path: Path = ("nodes", number, node.verb)
                    problems.setdefault(name, []).append(Problem(path, text))
        if config.on is None and name not in called:
            problems.setdefault(name, []).append(
                Problem((), "nothing runs this chain", "say which messages enter it: `on:`")
            )
    if all(problem.warns for each in problems.values() for problem in each):
        for name in configs:
            depth = _depth(name, configs, {})
            if depth > depth_max:
                text = f"chains run each other {depth} deep; at most {depth_max}"
                problems.setdefault(name, []).append(Problem(("nodes",), text))
    return problems


def _unheard(name: str, configs: Mapping[str, ChainConfig]) -> list[Problem]:
    """Find outputs that a chain waits for and that the chain it runs never hands back."""
    problems = []
    for number, node in enumerate(configs[name].nodes):
        for call, output in node.awaits():
            handed = configs[call].hands_back() if call in configs else frozenset()
            if output not in handed:
                hint = suggest(output, handed) or "write an `output` node there"
                text = f"the chain `{call}` never hands back `{output}`"
                path: Path = ("nodes", number, "outputs", output)
                problems.append(Problem(path, text, hint, warns=True))
    return problems


def chain_schema() -> dict[str, Any]:
    """Return the JSON Schema of a chain's file, for editors.

    A node's verb says which schema the node has to fit (`if` and `then`, not one choice of all), so
    that an editor says what is wrong with this node, and offers the verbs with their descriptions.
    """
    schema = ChainConfig.model_json_schema(by_alias=True)
    definitions = schema.setdefault("$defs", {})
    verbs: dict[str, Any] = {}
    keys: set[str] = set()
    for verb, model in nodes().items():
        inner = model.model_json_schema(by_alias=True)
        definitions.update(inner.pop("$defs", {}))
        about = (model.__doc__ or "").partition("- name:")[0]
        shown = f"{inspect.cleandoc(about)}\n\n```yaml\n{example(model).rstrip()}\n```"
        inner["description"] = shown
        definitions[f"node_{verb}"] = inner
        keys |= inner["properties"].keys()
        # Editors of the YAML language server show the Markdown, others the description.
        verbs[verb] = {"description": shown, "markdownDescription": shown}
    definitions.pop("Node", None)
    schema["properties"]["nodes"]["items"] = {
        "type": "object",
        "description": "A node: its `name`, what it does, and where messages go from it.",
        "required": ["name"],
        "properties": {"name": {"description": "The node's name, by which outlets lead to it."}}
        | verbs,
        "propertyNames": {"enum": sorted(keys)},
        "anyOf": [{"required": [verb]} for verb in verbs],
        "allOf": [
            {"if": {"required": [verb]}, "then": {"$ref": f"#/$defs/node_{verb}"}} for verb in verbs
        ],
    }
    types = definitions["On"]["properties"]["messages"]
    types["anyOf"] = [
        {"enum": list(MESSAGE_TYPES)},
        {"type": "array", "items": {"enum": list(MESSAGE_TYPES)}, "minItems": 1},
    ]
    return schema


def _validate(model: type[Model], value: Any, path: Path) -> tuple[Model | None, list[Problem]]:
    """Return what `validate` does, with the exact places of faults inside expressions."""
    made, problems = validate(model, value, path)
    if made is not None or not isinstance(value, dict):
        return made, problems
    exact: dict[Path, list[Problem]] = {}
    try:
        model.model_validate(value)
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False):
            fault = details.get("ctx", {}).get("error")
            if isinstance(fault, FieldFault):
                place = (*path, *details["loc"])
                exact[place] = [
                    Problem((*place, *one.path), one.message, one.suggestion, one.offset)
                    for one in (fault, *fault.more)
                ]
    return None, [each for one in problems for each in exact.get(one.path, [one])]


def _parse_node(item: Any, path: Path, known: Known) -> tuple[Node | None, list[Problem]]:
    if not isinstance(item, dict):
        return None, [Problem(path, "must be a mapping with `name` and what the node does")]
    verbs = sorted(key for key in item if key not in _BESIDE and key in nodes())
    if len(verbs) > 1:
        listed = " and ".join(f"`{verb}`" for verb in verbs)
        return None, [
            Problem((*path, verbs[1]), f"a node does one thing, not {listed}", "write two nodes")
        ]
    if not verbs:
        return None, _unknown_verb(item, path)
    model = nodes()[verbs[0]]
    item, missing = model.filled(item, known)
    if missing:
        return None, [replace(problem, path=(*path, *problem.path)) for problem in missing]
    node, problems = _validate(model, item, path)
    if node is not None:
        problems += [
            Problem((*path, *problem.path), problem.message, problem.suggestion, problem.offset)
            for problem in node.check(known)
        ]
    return node, problems


def _unknown_verb(item: dict[Any, Any], path: Path) -> list[Problem]:
    odd = [key for key in item if key not in _BESIDE]
    listed = f"nodes are {', '.join(f'`{verb}`' for verb in nodes())}"
    if not odd:
        return [Problem(path, "the node does nothing", listed)]
    return [
        Problem((*path, key), f"unknown node `{key}`", suggest(str(key), nodes()) or listed)
        for key in odd
    ]


def _check_on(on: On | None, known: Known) -> list[Problem]:
    if on is None:
        return []
    wrong = [
        (("on", "messages"), f"there are no messages `{name}`", name, MESSAGE_TYPES)
        for name in on.messages
        if name not in MESSAGE_TYPES
    ] + [
        (
            ("on", "integration"),
            f"there is no integration `{name}`",
            name,
            tuple(known.integrations),
        )
        for name in on.integration
        if name not in known.integrations
    ]
    return [
        Problem(path, text, suggest(name, choice) or f"one of {', '.join(sorted(choice))}")
        for path, text, name, choice in wrong
    ]


def _check_names(written: Sequence[Any]) -> list[Problem]:
    first: dict[str, int] = {}
    problems = []
    for number, item in enumerate(written):
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            continue
        if name in first:
            text = f"two nodes are called `{name}`: this and number {first[name] + 1}"
            problems.append(Problem(("nodes", number, "name"), text))
        else:
            first[name] = number
    return problems


def _check_targets(
    found: Mapping[int, Node], written: Sequence[Any], names: set[str]
) -> list[Problem]:
    """Find outlets that lead nowhere, also of nodes with other faults."""
    links: list[tuple[Path, str]] = []
    for number, item in enumerate(written):
        if number in found:
            links += [
                (("nodes", number, *link.path), link.target)
                for link in found[number].links()
                if link.target is not None
            ]
        elif isinstance(item, dict):
            targets = ((key, item.get(key)) for key in _TARGET_KEYS)
            links += [(("nodes", number, key), to) for key, to in targets if isinstance(to, str)]
    return [
        Problem(path, f"there is no node `{target}`", suggest(target, {*names, STOP}))
        for path, target in links
        if target != STOP and target not in names
    ]


def _check_ways(found: Sequence[Node]) -> list[Problem]:
    """Find nodes that nothing leads to, and circles. All targets are known to be there."""
    positions = {node.name: number for number, node in enumerate(found)}
    ways: list[list[int]] = []
    for number, node in enumerate(found):
        ends = [target_of(len(found), number, link.outlet, link.target) for link in node.links()]
        ways.append([positions[end] if isinstance(end, str) else end for end in ends])
    state = [0] * len(found)  # 0: not seen, 1: on the way to here, 2: done
    problems: list[Problem] = []
    stack: list[tuple[int, int]] = [(0, 0)]
    state[0] = 1
    while stack:
        number, turn = stack[-1]
        if turn == len(ways[number]):
            state[number] = 2
            stack.pop()
            continue
        stack[-1] = (number, turn + 1)
        target = ways[number][turn]
        if target < 0 or state[target] == 2:
            continue
        if state[target] == 1:
            trail = [place for place, _ in stack]
            circle = [*trail[trail.index(target) :], target]
            listed = " → ".join(f"`{found[place].name}`" for place in circle)
            problems.append(Problem(("nodes", number), f"nodes go in a circle: {listed}"))
            continue
        state[target] = 1
        stack.append((target, 0))
    problems += [
        Problem(("nodes", number, "name"), f"no way leads to the node `{found[number].name}`")
        for number, seen in enumerate(state)
        if not seen
    ]
    return problems


def _check_ends(found: Sequence[Node]) -> list[Problem]:
    """Find nodes that do nothing but send messages on, and send them nowhere."""
    problems = []
    for number, node in enumerate(found):
        ends = [target_of(len(found), number, link.outlet, link.target) for link in node.links()]
        if not node.acts and all(isinstance(end, int) and end < 0 for end in ends):
            text = f"what leaves `{node.name}` goes nowhere, so that it is for nothing"
            hint = "write a node after it, as `send`"
            problems.append(Problem(("nodes", number, node.verb), text, hint, warns=True))
    return problems


def _way_back(name: str, start: str, configs: Mapping[str, ChainConfig]) -> tuple[str, ...] | None:
    """Return the chains from `start` back to `name`, None where none leads there."""
    trails: list[tuple[str, ...]] = [(start,)]
    seen = {start}
    while trails:
        trail = trails.pop(0)
        if trail[-1] == name:
            return trail
        config = configs.get(trail[-1])
        for call in sorted(config.calls()) if config else ():
            if call not in seen:
                seen.add(call)
                trails.append((*trail, call))
    return None


def _depth(name: str, configs: Mapping[str, ChainConfig], depths: dict[str, int]) -> int:
    if name not in depths:
        config = configs.get(name)
        calls = config.calls() if config else ()
        depths[name] = 1 + max((_depth(call, configs, depths) for call in calls), default=-1)
    return depths[name]
