"""A request's body → a JSON object; what is wrong with it is said so that it can be mended."""

from __future__ import annotations

import re
from typing import Any

import orjson

from pipeline.errors import MessageError

DEPTH_MAX = 32
"""Of objects and lists in a value."""

_TEXT_OR_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])')


def json_object(body: bytes) -> dict[str, Any]:
    """Return the body's JSON object.

    MessageError: it is none (`json`; `json_comma` where only commas too many are wrong), or is
    nested too deep (`json_depth`).
    """
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _no_json(body, error) from None
    if not isinstance(value, dict):
        raise MessageError("the body is not a JSON object", code="json")
    _check_depth(value)
    return value


def _no_json(body: bytes, error: orjson.JSONDecodeError) -> MessageError:
    """Return what is wrong; a trailing comma, as The Things Stack's own page has, by its name."""
    text = body.decode(errors="replace")
    commas = [found.start() for found in _TEXT_OR_COMMA.finditer(text) if found[0] == ","]
    if commas:
        line = text.count("\n", 0, commas[0]) + 1
        column = commas[0] - text.rfind("\n", 0, commas[0])
        said = f"line {line} column {column} has a comma after the last member, which JSON forbids"
        return MessageError(f"the body is not JSON: {said}; remove it", code="json_comma")
    return MessageError(f"the body is not JSON: {error}", code="json")


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    depth = 0
    while level:
        depth += 1
        if depth > DEPTH_MAX:
            raise MessageError(f"the body is nested deeper than {DEPTH_MAX}", code="json_depth")
        members = [
            member
            for container in level
            for member in (container.values() if isinstance(container, dict) else container)
        ]
        level = [member for member in members if isinstance(member, dict | list)]
