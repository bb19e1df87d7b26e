"""The layout of chirpstack-device-profiles: `<vendor>/codecs/<codec>.js` with
`test_decode_<codec>.json` and `test_encode_<codec>.json` → cases.

A test file is a list of `{name, input: {bytes, fPort, recvTime, variables} | {data}, expected}`.
Its reader there is JavaScript: some of these files have hexadecimal numbers, comments and commas
too many. Such a file is read by the script engine, behind its walls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from pipeline.errors import ScriptError
from pipeline.ports import Operation, Script, ScriptCall, ScriptPort
from pipeline.rehearse.library_case import TENANT, Case, Piece, Unrunnable
from pipeline.rehearse.library_lorawan_devices import argument_of

PREFIXES: Mapping[str, Operation] = {
    "test_decode_": "decode_uplink",
    "test_encode_": "encode_downlink",
}
_WORDS = {"test_decode_": "decode uplink", "test_encode_": "encode downlink"}


def is_test(name: str) -> bool:
    """Return whether a file is one of these tests, by its name."""
    return name.endswith(".json") and name.startswith(tuple(PREFIXES))


def cases(folder: Path, names: Sequence[str], shown: str, scripts: ScriptPort) -> Iterator[Piece]:
    """Yield the cases of a folder's test files; `shown` is how reports name the folder."""
    resolved = folder.resolve()
    vendor = resolved.parent.name if resolved.name == "codecs" else resolved.name
    for name in names:
        prefix = next(prefix for prefix in PREFIXES if name.startswith(prefix))
        codec = name.removeprefix(prefix).removesuffix(".json")
        file = f"{shown}/{name}"
        try:
            text = (folder / name).read_text(encoding="utf-8-sig")
            source = (folder / f"{codec}.js").read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            yield Unrunnable(vendor, file, f"there is no {codec}.js beside it")
            continue
        except (OSError, UnicodeDecodeError) as error:
            yield Unrunnable(vendor, file, f"cannot be read: {error}")
            continue
        tests = _tests(text, file, scripts)
        if isinstance(tests, str):
            yield Unrunnable(vendor, file, tests)
            continue
        script = Script(path=f"{shown}/{codec}.js", language="javascript", source=source)
        places = _Lines(text)
        for number, test in enumerate(tests, start=1):
            given = test.get("input") if isinstance(test, dict) else None
            if not isinstance(given, dict) or "expected" not in test:
                yield Unrunnable(vendor, file, f"test {number} has no `input` or no `expected`")
                continue
            argument = argument_of(PREFIXES[prefix], given)
            if isinstance(argument, str):
                yield Unrunnable(vendor, file, f"test {number}: {argument}")
                continue
            title = str(test.get("name") or f"test {number}")
            yield Case(
                vendor=vendor,
                name=f"{vendor}/{codec}: {_WORDS[prefix]}: {title}",
                file=file,
                line=places.of(title),
                call=ScriptCall(TENANT, script, PREFIXES[prefix], argument),
                expected=test["expected"],
            )


class _Lines:
    """Finds tests by their names: what reads these files keeps no lines."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def of(self, title: str) -> int:
        found = self._text.find(orjson.dumps(title).decode(), self._at)
        if found < 0:
            return 0
        self._at = found + 1
        return self._text.count("\n", 0, found) + 1


def _tests(text: str, file: str, scripts: ScriptPort) -> list[Any] | str:
    """Return the tests of a file, or why it has none that can be read."""
    try:
        tests = orjson.loads(text)
    except orjson.JSONDecodeError:
        source = f"function decodeUplink() {{ return {{data: {{tests:\n{text}\n}}}} }}"
        script = Script(path=file, language="javascript", source=source)
        (value,) = scripts.call([ScriptCall(TENANT, script, "decode_uplink", {"bytes": ""})])
        if isinstance(value, ScriptError):
            return f"neither JSON nor JavaScript that gives a list: {value.message}"
        tests = value["data"]["tests"]
    return tests if isinstance(tests, list) else "is no list of tests"
