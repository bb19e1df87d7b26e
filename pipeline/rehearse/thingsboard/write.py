"""Chains and sinks as data → their YAML, with comments where something was lost."""

from __future__ import annotations

from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import LiteralScalarString

from pipeline.rehearse.thingsboard.weave import Draft

_FLOW_CHARACTERS_MAX = 72
_WIDTH = 1_000  # lines are not folded


def chain_yaml(draft: Draft, about: str) -> str:
    """Return the file of a chain."""
    made = CommentedMap({"chain": draft.name, "about": about})
    if draft.on is not None:
        messages = draft.on[0] if len(draft.on) == 1 else _styled(draft.on)
        made["on"] = _styled({"messages": messages})
    nodes = CommentedSeq()
    for number, node in enumerate(draft.nodes):
        nodes.append(CommentedMap({key: _styled(value) for key, value in node.items()}))
        said = draft.comments.get(node["name"])
        if said:
            nodes.yaml_set_comment_before_after_key(number, "\n".join(said), indent=2)
    made["nodes"] = nodes
    return _text(made)


def sink_yaml(about: str, config: dict[str, Any]) -> str:
    """Return the file of a sink."""
    return f"# {about}\n" + _text(CommentedMap(config))


def _styled(value: Any) -> Any:
    """Return a value in YAML's style for it: short ones in a line, scripts as they are."""
    if isinstance(value, str):
        lines = value.replace("\r\n", "\n").replace("\t", "  ").strip("\n").split("\n")
        if len(lines) > 1:
            return LiteralScalarString("\n".join(line.rstrip() for line in lines) + "\n")
        return value
    made: CommentedMap | CommentedSeq
    if isinstance(value, dict):
        made = CommentedMap({key: _styled(item) for key, item in value.items()})
    elif isinstance(value, list):
        made = CommentedSeq([_styled(item) for item in value])
    else:
        return value
    if len(str(value)) <= _FLOW_CHARACTERS_MAX and "\n" not in str(made):
        made.fa.set_flow_style()
    return made


def _text(made: CommentedMap) -> str:
    yaml = YAML()
    yaml.width = _WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = StringIO()
    yaml.dump(made, out)
    return out.getvalue()
