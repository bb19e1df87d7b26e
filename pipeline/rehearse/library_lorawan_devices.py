"""The layout of TheThingsNetwork/lorawan-devices: `vendor/<vendor>/<codec>.yaml` → cases.

    uplinkDecoder: {fileName: x.js, examples: [{description: …, input: {fPort: 1, bytes: [1]},
      output: {data: {…}, warnings: [], errors: []}, normalizedOutput: {data: [{…}]}}]}

and `downlinkEncoder`, `downlinkDecoder` likewise. Other files of that folder describe devices.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Any

from pipeline.ports import Operation, Script, ScriptCall
from pipeline.rehearse.calls import RECEIVED
from pipeline.rehearse.library_case import FILE_BYTES_MAX, TENANT, Case, Piece, Unrunnable
from pipeline.rulebook.converter import LANGUAGES, ROUTINES
from pipeline.rulebook.reader import Document, Limits, read_document

_LIMITS = Limits(file_bytes_max=FILE_BYTES_MAX, values_max=1_000_000)
_IS_CODEC = re.compile(rb"^(?:uplinkDecoder|downlinkEncoder|downlinkDecoder)\s*:", re.MULTILINE)
_KNOWN = frozenset({"bytes", "data", "fPort", "recvTime", "variables"})
_WORDS: Mapping[Operation, str] = {
    "decode_uplink": "decode uplink",
    "encode_downlink": "encode downlink",
    "decode_downlink": "decode downlink",
}


def cases(file: Path, shown: str) -> Iterator[Piece]:
    """Yield the cases of one YAML file, `shown` in reports; none where it is no codec."""
    raw = file.read_bytes()
    if not _IS_CODEC.search(raw):
        return
    vendor = file.resolve().parent.name
    document, faults = read_document(shown, raw, limits=_LIMITS)
    if document is None or not isinstance(document.value, dict):
        said = "; ".join(f"line {fault.line}: {fault.message}" for fault in faults)
        yield Unrunnable(vendor, shown, f"no YAML that can be read: {said or 'no mapping'}")
        return
    scripts: dict[str, Script | str] = {}
    for key, operation in ROUTINES.items():
        routine = document.value.get(key)
        if routine is None:
            continue
        name = routine.get("fileName") if isinstance(routine, dict) else None
        if not isinstance(name, str):
            yield Unrunnable(vendor, shown, f"`{key}` has no `fileName`")
            continue
        if name not in scripts:
            library = file.resolve().parent.parent
            scripts[name] = _script(file.parent / name, shown, name, library)
        script = scripts[name]
        if isinstance(script, str):
            yield Unrunnable(vendor, shown, f"`{key}`: {script}")
            continue
        yield from _examples(document, key, operation, script, vendor)


def _script(file: Path, shown: str, name: str, library: Path) -> Script | str:
    """Return the script, or why there is none; it may lie deeper, or beside its vendor's folder."""
    if not file.resolve().is_relative_to(library):
        return f"`{name}` is outside of the library"
    language = LANGUAGES.get(file.suffix)
    if language is None:
        return f"`{name}` is no script that can be run"
    try:
        source = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return f"there is no script `{name}`"
    except (OSError, UnicodeDecodeError) as error:
        return f"`{name}` cannot be read: {error}"
    path = normpath(join(dirname(shown), name))
    return Script(path=path, language=language, source=source)


def _examples(
    document: Document, key: str, operation: Operation, script: Script, vendor: str
) -> Iterator[Piece]:
    examples = document.value[key].get("examples") or []
    if not isinstance(examples, list):
        yield Unrunnable(vendor, document.file, f"`{key}.examples` is no list")
        return
    for index, example in enumerate(examples):
        path = (key, "examples", index)
        given = example.get("input") if isinstance(example, dict) else None
        if not isinstance(given, dict) or "output" not in example:
            where = f"line {document.line(path)}"
            yield Unrunnable(vendor, document.file, f"{where}: has no `input` or no `output`")
            continue
        argument = argument_of(operation, given)
        if isinstance(argument, str):
            yield Unrunnable(vendor, document.file, f"line {document.line(path)}: {argument}")
            continue
        codec = document.file.removesuffix(".yaml").rsplit("/", 1)[-1]
        what = example.get("description") or f"example {index + 1}"
        yield Case(
            vendor=vendor,
            name=f"{vendor}/{codec}: {_WORDS[operation]}: {what}",
            file=document.file,
            line=document.line(path),
            call=ScriptCall(TENANT, script, operation, argument),
            expected=example["output"],
            normalized=example.get("normalizedOutput") if operation == "decode_uplink" else None,
        )


def argument_of(operation: Operation, given: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return the argument of a call from what an example gives, or what is wrong with it.

    What else an example gives goes along: the library's own runner hands its input in as it is.
    """
    more = {name: value for name, value in given.items() if name not in _KNOWN}
    variables = given.get("variables") or {}
    f_port = given.get("fPort")
    if isinstance(f_port, float) and f_port.is_integer():
        f_port = int(f_port)
    if operation == "encode_downlink":
        return {**more, "data": given.get("data", {}), "fPort": f_port, "variables": variables}
    try:
        payload = bytes(given.get("bytes") or ())
    except (TypeError, ValueError):
        return "`bytes` is no list of whole numbers from 0 to 255"
    return {
        **more,
        "bytes": b64encode(payload).decode(),
        "fPort": 0 if f_port is None else f_port,
        "recvTime": given.get("recvTime") or RECEIVED,
        "variables": variables,
    }
