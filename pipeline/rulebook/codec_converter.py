"""A converter that needs no script: `codec: <name>` and what that codec wants to know → a
Converter whose scripts are the codec's configuration, for whoever runs codecs behind the script
port. Examples stand where a script's would, without `fileName`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from posixpath import dirname
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from pipeline.errors import MessageError
from pipeline.part import Part
from pipeline.ports import Script
from pipeline.rulebook.book import Converter, Example, Routine
from pipeline.rulebook.catalogue import Problem, suggest
from pipeline.rulebook.choosing import CHOICES_MAX, DevicesConfig
from pipeline.rulebook.example import ExampleConfig, example_input
from pipeline.rulebook.validation import validate

CODEC = "codec"
_ROUTINES: Mapping[str, Routine] = {
    "uplinkDecoder": "decode_uplink",
    "downlinkEncoder": "encode_downlink",
}


class ExamplesConfig(Part):
    """Examples of one way of the codec."""

    examples: list[ExampleConfig] = []


class CodecConverterConfig(Part):
    """What stands beside a codec's own keys."""

    codec: str
    contract: Literal["lorawan", "thingsboard"] | None = None
    devices: Annotated[list[DevicesConfig], Field(max_length=CHOICES_MAX)] = []
    uplinkDecoder: ExamplesConfig | None = None  # noqa: N815 - the layout's own spelling
    downlinkEncoder: ExamplesConfig | None = None  # noqa: N815


def parse_codec_converter(
    document: Mapping[str, Any],
    *,
    name: str,
    file: str,
    codecs: Mapping[str, Any],
    schemas: Mapping[str, bytes],
    line_of: Callable[[tuple[str | int, ...]], int],
) -> tuple[Converter | None, list[Problem]]:
    """Return the converter, or None, and all that is wrong with the document. `schemas` are the
    files by path that a codec may need beside its own.
    """
    chosen = document.get(CODEC)
    model = codecs.get(chosen) if isinstance(chosen, str) else None
    if model is None:
        hint = suggest(str(chosen), codecs) or f"there are {', '.join(sorted(codecs)) or 'none'}"
        return None, [Problem((CODEC,), f"there is no codec `{chosen}`", hint, 0)]
    beside = {key: document[key] for key in CodecConverterConfig.model_fields if key in document}
    own = {key: value for key, value in document.items() if key not in beside}
    config, problems = validate(CodecConverterConfig, beside)
    reads_files = getattr(model, "reads_files", False)
    if reads_files:
        own["files"] = _beside(file, schemas)
    codec, wrong = validate(model, own)
    problems.extend(wrong)
    if reads_files and codec is not None:
        problems.extend(_build_fault(codec))
    if config is None or codec is None:
        return None, problems
    if config.contract not in (None, codec.contract):
        hint = f"leave it out; it is `{codec.contract}`"
        problems.append(Problem(("contract",), f"is not that of the codec {chosen}", hint))
    examples, wrong = _examples(config, codec, line_of)
    problems.extend(wrong)
    if problems:
        return None, problems
    source = orjson.dumps({CODEC: chosen, **own}, option=orjson.OPT_NON_STR_KEYS).decode()
    script = Script(path=file, language="codec", source=source)
    return Converter(
        name=name,
        file=file,
        contract=codec.contract,
        decoder=script if codec.decodes else None,
        encoder=script if codec.encodes else None,
        examples=tuple(examples),
        devices=tuple(each.pattern() for each in config.devices),
    ), []


def _beside(file: str, schemas: Mapping[str, bytes]) -> dict[str, str]:
    """Return the files of the converter's folder in base64, by name within it."""
    folder = f"{dirname(file)}/"
    return {
        path.removeprefix(folder): b64encode(raw).decode()
        for path, raw in schemas.items()
        if path.startswith(folder)
    }


def _build_fault(codec: Any) -> list[Problem]:
    """Return what shows only when the codec's files are read."""
    try:
        codec.build()
    except MessageError as fault:
        return [Problem((fault.detail.get("key", CODEC),), fault.message, "", 0)]
    return []


def _examples(
    config: CodecConverterConfig, codec: Any, line_of: Callable[[tuple[str | int, ...]], int]
) -> tuple[list[Example], list[Problem]]:
    examples: list[Example] = []
    problems: list[Problem] = []
    able = {"decode_uplink": codec.decodes, "encode_downlink": codec.encodes}
    for key, routine in _ROUTINES.items():
        part: ExamplesConfig | None = getattr(config, key)
        if part is None:
            continue
        if not able[routine]:
            what = "uplink" if routine == "decode_uplink" else "downlink"
            problems.append(Problem((key,), f"the codec has no `{what}`", f"write `{what}:`"))
        for index, example in enumerate(part.examples):
            path = (key, "examples", index)
            made, wrong = example_input(example, routine, codec.contract, path)
            problems.extend(wrong)
            examples.append(
                Example(routine, example.description, made, example.output, line_of(path))
            )
    return examples, problems
