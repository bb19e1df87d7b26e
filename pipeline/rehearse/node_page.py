"""The page of nodes, `docs/nodes.md`, made from the nodes' own files.

    python -m pipeline.rehearse.node_page docs/nodes.md

In: each node's docstring, model and outlets; the limits; how ThingsBoard's nodes are done here.
Out: Markdown. A test holds the page to this.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.rehearse.thingsboard.counterparts import COUNTERPARTS
from pipeline.route.fields import NAMES
from pipeline.route.limits import Limits
from pipeline.route.node import Node, example, nodes

_INTRO = """\
# Rule nodes

<!-- Made by `python -m pipeline.rehearse.node_page docs/nodes.md` from the nodes' files. -->

A node is an entry of `nodes:` in `rules/chains/<name>.yaml`: its `name`, one verb, and where
messages go from it. A message leaves by an outlet; `then` leads to the next node unless it says
another one, any other outlet leads nowhere unless it is named. `stop` ends the way. Each node also
has `on_failure`: where a message goes that the node fails on, with `metadata.failure` (`node`,
`reason`, `message`). Without it nothing of the chain happens for that message, which is kept in
`dead.letter`.

Values are literals; `${ … }` holds a [CEL](https://cel.dev) expression. Conditions (`filter`,
`when`, `restart`, …) are expressions without the braces. They speak of
%(names)s.

A chain's messages (`on: {messages: …}`) are `uplink`, `join`, `location`, `service_data`, `status`
from network servers, `attributes_updated` when an attribute has changed, and `told` when another
device has told something.
"""
_NO_OUTLETS = "_Its outlets are called as the nodes that they lead to._"
_PLAIN = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no"}
_DURATION = "([0-9]+(\\.[0-9]+)?(ms|s|m|h|d) ?)+"


def page() -> str:
    """Return the whole page."""
    names = ", ".join(f"`{name}`" for name in sorted(NAMES))
    verbs = nodes()
    parts = [_INTRO % {"names": names}]
    parts.append(" · ".join(f"[`{verb}`](#{verb})" for verb in verbs) + "\n")
    parts += [section(verb, node) for verb, node in verbs.items()]
    parts += [_limits(), _counterparts()]
    return "\n".join(parts)


def section(verb: str, node: type[Node]) -> str:
    """Return one node's part of the page: what it does, its options, outlets and example."""
    about = inspect.cleandoc((node.__doc__ or "").partition("- name:")[0]).strip()
    lines = [f"## {verb}", "", about, ""]
    schema = node.model_json_schema(by_alias=True)
    options = list(_options(verb, schema, node.outlets))
    lines += ["| option | default | what |", "|---|---|---|"]
    lines += [f"| {name} | {default} | {what} |" for name, default, what in options]
    lines += ["", *_outlets(node), "", "```yaml", example(node).rstrip(), "```", ""]
    return "\n".join(lines)


def _options(
    verb: str, schema: dict[str, Any], outlets: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    """Yield name, default and meaning of the verb's own value and of each key in it."""
    definitions = schema.get("$defs", {})
    properties = schema["properties"]
    field = properties.pop(verb)
    yield f"`{verb}`", "", _what(field, definitions)
    for name in sorted(properties.keys() - {"name", "on_failure", *outlets}):
        each = properties[name]
        yield f"`{name}` (beside it)", _default(each), _what(each, definitions)
    for inner in _models(field, definitions):
        required = inner.get("required", ())
        for name, each in inner.get("properties", {}).items():
            default = "" if name in required else _default(each)
            yield f"`{verb}.{name}`", default, _what(each, definitions)


def _models(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the mappings of named keys that a value may be, or be a list of."""
    if "$ref" in schema:
        found = definitions[schema["$ref"].rpartition("/")[2]]
        if "properties" in found:
            yield found
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from _models(choice, definitions)
    if isinstance(schema.get("items"), dict):
        yield from _models(schema["items"], definitions)


def _what(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    kind = _kind(schema, definitions)
    said = schema.get("description", "")
    return _cell(f"{kind}. {said}" if said and said.rstrip(".") != kind else f"{kind}.")


def _kind(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        found = definitions[schema["$ref"].rpartition("/")[2]]
        return "mapping" if "properties" in found else _kind(found, definitions)
    values = schema.get("enum") or [schema[key] for key in ("const",) if key in schema]
    if values:
        return ", ".join(f"`{value}`" for value in values)
    if any(_is_duration(choice) for choice in schema.get("anyOf", ())):
        return "duration"
    choices = [choice for choice in schema.get("anyOf", ()) if choice.get("type") != "null"]
    if choices:
        return " or ".join(dict.fromkeys(_kind(choice, definitions) for choice in choices))
    return _single(schema, definitions)


def _single(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return the kind of a value that is of one type, or of a list of types."""
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(_PLAIN.get(each, str(each)) for each in kind)
    if kind == "array":
        items = schema.get("items")
        return f"list of {_kind(items, definitions)}" if isinstance(items, dict) else "list"
    if kind == "object":
        return "mapping"
    if schema.get("format") == "cel":
        return "expression"
    if str(schema.get("pattern", "")).startswith("^(telemetry"):
        return "place in the message"
    bounds = _bounds(schema)
    return f"{_PLAIN[kind]}{bounds}" if kind in _PLAIN else "any value"


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low:,} to {high:,}"
    return f" from {low:,}" if low is not None else ""


def _is_duration(schema: dict[str, Any]) -> bool:
    return _DURATION in schema.get("pattern", "")


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    if value in (None, "", [], {}):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and any(_is_duration(each) for each in schema.get("anyOf", ())):
        return f"`{value / 1_000:g}s`"
    if isinstance(value, list | tuple) and schema.get("pattern", "").startswith("^(telemetry"):
        root, names = value
        return f"`{'.'.join((root, *names))}`"
    return f"`{value}`"


def _outlets(node: type[Node]) -> list[str]:
    if not node.outlets:
        return [_NO_OUTLETS]
    lines = ["| outlet | leads by default to | when |", "|---|---|---|"]
    for outlet in node.outlets:
        field = node.model_fields[outlet]
        said = field.description or ""
        if outlet == "then" and said.startswith("The node to go on with"):
            said = ""
        default = "the next node" if outlet == "then" else "the end"
        if outlet in node.failing:
            default = "the node's failure"
        lines.append(f"| `{outlet}` | {default} | {_cell(said)} |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _limits() -> str:
    lines = [
        "## Limits",
        "",
        "What one message, one device and one batch may ask of the rules. Over a limit a message",
        "becomes a dead letter, unless it says otherwise here.",
        "",
        "| limit | default | what |",
        "|---|---|---|",
    ]
    said = ""
    for line in inspect.getsource(Limits).splitlines():
        text, _, comment = line.strip().partition("# ")
        name = text.partition(":")[0]
        if not text and comment:
            said = f"{said} {comment}".strip()
        elif name in Limits.__dataclass_fields__:
            default = Limits.__dataclass_fields__[name].default
            lines.append(f"| `{name}` | {default:,} | {_cell(comment or said)} |")
            said = ""
    return "\n".join([*lines, ""])


def _counterparts() -> str:
    count = sum(map(len, COUNTERPARTS.values()))
    lines = [
        "## ThingsBoard's nodes",
        "",
        f"The {count} rule nodes of ThingsBoard's community edition, and how each is done here:",
        "by a node, by a sink, built in, or not (and why).",
        "",
        "| ThingsBoard | here | how |",
        "|---|---|---|",
    ]
    for category, rows in COUNTERPARTS.items():
        lines += [f"| {row.name} ({category.lower()}) | {row.kind} | {row.how} |" for row in rows]
    return "\n".join([*lines, ""])


def main(arguments: list[str]) -> int:
    """Write the page to the file that is named, else to standard output; 2: more was named."""
    if len(arguments) > 1:
        sys.stderr.write("usage: python -m pipeline.rehearse.node_page [FILE]\n")
        return 2
    if arguments:
        Path(arguments[0]).write_text(page(), encoding="utf-8")
    else:
        sys.stdout.write(page())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
