"""`converters/<vendor>/<model>.yaml`, in the layout of TheThingsNetwork/lorawan-devices → a
Converter: its scripts, and its examples.

An uplink example of contract `thingsboard` may give its payload as `text:` or `json:` in place of
`bytes:`; it becomes bytes here, so that whoever runs the example sees one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from posixpath import dirname, join, normpath
from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.part import Part
from pipeline.ports import Contract, Operation, Script
from pipeline.rulebook.book import Converter, Example, Routine
from pipeline.rulebook.catalogue import Problem, suggest
from pipeline.rulebook.choosing import CHOICES_MAX, DevicesConfig
from pipeline.rulebook.codec_converter import CODEC, parse_codec_converter
from pipeline.rulebook.example import ExampleConfig, example_input
from pipeline.rulebook.validation import validate

LANGUAGES: Mapping[str, Literal["javascript", "lua", "tbel"]] = {
    ".js": "javascript",
    ".lua": "lua",
    ".tbel": "tbel",  # ThingsBoard's own language
}

# The names by which the engines know a routine; the older ones are TTN v2's and ThingsBoard's, then
# ChirpStack v3's.
FUNCTIONS: Mapping[tuple[str, Operation], tuple[str, ...]] = {
    ("javascript", "decode_uplink"): ("decodeUplink", "Decoder", "Decode"),
    ("javascript", "encode_downlink"): ("encodeDownlink", "Encoder", "Encode"),
    ("javascript", "decode_downlink"): ("decodeDownlink",),
    ("javascript", "normalize_uplink"): ("normalizeUplink",),
    ("tbel", "decode_uplink"): ("Decoder",),
    ("tbel", "encode_downlink"): ("Encoder",),
    ("tbel", "decode_downlink"): ("decodeDownlink",),
    ("lua", "decode_uplink"): ("decode_uplink",),
    ("lua", "encode_downlink"): ("encode_downlink",),
    ("lua", "decode_downlink"): ("decode_downlink",),
    ("lua", "normalize_uplink"): ("normalize_uplink",),
}


class RoutineConfig(Part):
    """One way of the codec: the script's file beside this one, and examples."""

    fileName: Annotated[  # noqa: N815
        str, Field(description="the script's file, `.js`, `.lua` or `.tbel`, beside this one")
    ]
    examples: list[ExampleConfig] = []


class ConverterConfig(Part):
    """What a user writes in `converters/<vendor>/<model>.yaml`."""

    contract: Literal["lorawan", "thingsboard"] | None = None
    devices: Annotated[
        list[DevicesConfig],
        Field(max_length=CHOICES_MAX, description="which it is for, in any integration"),
    ] = []
    uplinkDecoder: RoutineConfig | None = None  # noqa: N815
    downlinkEncoder: RoutineConfig | None = None  # noqa: N815
    downlinkDecoder: RoutineConfig | None = None  # noqa: N815


ROUTINES: Mapping[str, Routine] = {
    "uplinkDecoder": "decode_uplink",
    "downlinkEncoder": "encode_downlink",
    "downlinkDecoder": "decode_downlink",
}


@dataclass(frozen=True, slots=True)
class Use:
    """A script, and what it must be able to do; `path` is where the converter names it."""

    script: Script
    operation: Operation
    path: tuple[str | int, ...]


def parse_converter(
    document: Mapping[str, Any],
    *,
    name: str,
    file: str,
    scripts: Mapping[str, str],
    line_of: Callable[[tuple[str | int, ...]], int],
    codecs: Mapping[str, Any],
    schemas: Mapping[str, bytes],
) -> tuple[Converter | None, list[Use], list[Problem]]:
    """Return the converter, or None, the uses of scripts that can be checked, and all that is
    wrong. `scripts` are the sources by path; `line_of` gives the line of a path in the document;
    `codecs` are the models of those that need no script, and `schemas` their files by path.
    """
    if CODEC in document:
        converter, wrong = parse_codec_converter(
            document, name=name, file=file, codecs=codecs, schemas=schemas, line_of=line_of
        )
        return converter, [], wrong
    config, problems = validate(ConverterConfig, document)
    if config is None:
        return None, [], problems
    if not any(getattr(config, key) for key in ROUTINES):
        hint = f"write {', '.join(f'`{key}`' for key in ROUTINES)}, or `codec`"
        return None, [], [Problem((), "has no script", hint)]
    uses: dict[Operation, Use] = {}
    examples: list[Example] = []
    for key, operation in ROUTINES.items():
        routine: RoutineConfig | None = getattr(config, key)
        if routine is None:
            continue
        use = _use(routine.fileName, operation, file, scripts, (key, "fileName"))
        if isinstance(use, Problem):
            problems.append(use)
        else:
            uses[operation] = use
        for index, example in enumerate(routine.examples):
            path = (key, "examples", index)
            made, wrong = example_input(example, operation, config.contract, path)
            problems.extend(wrong)
            examples.append(
                Example(
                    operation,
                    example.description,
                    made,
                    example.output,
                    line_of(path),
                    example.normalizedOutput,
                )
            )
    if problems:
        return None, list(uses.values()), problems
    contract = config.contract
    if contract is None and any(use.script.language == "tbel" for use in uses.values()):
        contract = "thingsboard"
    converter = _made(name, file, contract, uses, examples)
    devices = tuple(each.pattern() for each in config.devices)
    return replace(converter, devices=devices), list(uses.values()), []


def _made(
    name: str,
    file: str,
    contract: Contract | None,
    uses: Mapping[Operation, Use],
    examples: Sequence[Example],
) -> Converter:
    def script(operation: Operation) -> Script | None:
        use = uses.get(operation)
        return None if use is None else use.script

    return Converter(
        name=name,
        file=file,
        contract=contract,
        decoder=script("decode_uplink"),
        encoder=script("encode_downlink"),
        downlink_decoder=script("decode_downlink"),
        examples=tuple(examples),
    )


def _use(
    file_name: str,
    operation: Operation,
    file: str,
    scripts: Mapping[str, str],
    path: tuple[str | int, ...],
) -> Use | Problem:
    wanted = normpath(join(dirname(file), file_name))
    source = scripts.get(wanted)
    if source is not None:
        language = LANGUAGES[wanted[wanted.rindex(".") :]]
        return Use(Script(path=wanted, language=language, source=source), operation, path)
    if not file_name.endswith(tuple(LANGUAGES)):
        return Problem(
            path, f"`{file_name}` is no script", "name a `.js`, `.lua` or `.tbel` file", 0
        )
    if not wanted.startswith("converters/"):
        return Problem(path, f"`{file_name}` is outside of converters/", "move it there", 0)
    beside = [script.rsplit("/", 1)[1] for script in scripts if dirname(script) == dirname(file)]
    return Problem(path, f"there is no script {wanted}", suggest(file_name, beside), 0)
