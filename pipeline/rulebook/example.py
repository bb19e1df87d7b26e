"""An example of a converter as it is written → what goes into the script, and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from pydantic import Field

from pipeline.part import Part
from pipeline.ports import Contract
from pipeline.rulebook.book import Routine
from pipeline.rulebook.catalogue import Problem


class ExampleConfig(Part):
    """One example. `normalizedOutput` is what the script's `normalizeUplink` must give."""

    description: str = ""
    input: Annotated[dict[str, Any], Field(description="what goes into the script")]
    output: Annotated[
        dict[str, Any] | list[Any], Field(description="what must come out of the script")
    ]
    normalizedOutput: dict[str, Any] | None = None  # noqa: N815 - the layout's own spelling


def example_input(
    example: ExampleConfig,
    operation: Routine,
    contract: Contract | None,
    path: tuple[str | int, ...],
) -> tuple[dict[str, Any], list[Problem]]:
    """Return the example's input with its payload as `bytes`, and what is wrong with it."""
    made = dict(example.input)
    if operation == "encode_downlink":
        problems = _check_bytes(example.output, (*path, "output"))
        if "data" not in made and contract != "thingsboard":
            hint = "write what the rule sends under `data:`"
            problems.append(Problem((*path, "input"), "`data` is missing", hint))
        return made, problems
    if "bytes" not in made and contract != "lorawan":
        if isinstance(made.get("text"), str):
            made["bytes"] = list(made.pop("text").encode())
        elif "json" in made:
            made["bytes"] = list(msgspec.json.encode(made.pop("json")))
    if "bytes" not in made:
        hint = "write the payload as a list of bytes: `bytes: [1, 2]`"
        return made, [Problem((*path, "input"), "`bytes` is missing", hint)]
    return made, _check_bytes(made, (*path, "input"))


def _check_bytes(holder: Any, path: tuple[str | int, ...]) -> list[Problem]:
    if not isinstance(holder, dict) or "bytes" not in holder:
        return []  # an example may expect `errors`, or ThingsBoard's `data`
    value = holder["bytes"]
    if not isinstance(value, list):
        return [Problem((*path, "bytes"), "must be a list of bytes", "like `[1, 2]`", 0)]
    return list(_check_each(value, (*path, "bytes")))


def _check_each(value: list[Any], path: tuple[str | int, ...]) -> Iterator[Problem]:
    for index, byte in enumerate(value):
        if isinstance(byte, bool) or not isinstance(byte, int) or not 0 <= byte <= 255:
            yield Problem((*path, index), "a byte is a whole number from 0 to 255")
            return
