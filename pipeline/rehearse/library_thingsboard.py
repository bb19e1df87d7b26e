"""The layout of ThingsBoard's converter library: `<Vendor>/<Model>/<integration>/uplink/` with
`converter.json`, `metadata.json`, `payload.json`, `result.json`, `payload_01.json`, … → cases.

As its own validator does, a payload is read and written again as JSON before it goes into the
converter, and the result is compared whole.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.ports import Script, ScriptCall
from pipeline.rehearse.library_case import FILE_BYTES_MAX, TENANT, Case, Piece, Unrunnable

CONVERTER = "converter.json"
_PAYLOAD = re.compile(r"payload(?:_(\d+))?\.json")
_KEYS: Mapping[tuple[str, str], str] = {
    ("JS", "UPLINK"): "decoder",
    ("JS", "DOWNLINK"): "encoder",
    ("TBEL", "UPLINK"): "tbelDecoder",
    ("TBEL", "DOWNLINK"): "tbelEncoder",
}
_LANGUAGES: Mapping[str, Literal["javascript", "tbel"]] = {"JS": "javascript", "TBEL": "tbel"}


class _Unreadable(Exception):  # noqa: N818 - becomes an Unrunnable
    pass


def cases(folder: Path, names: Sequence[str], shown: str) -> Iterator[Piece]:
    """Yield the cases of one converter's folder; `shown` is how reports name it."""
    parts = folder.resolve().parts
    vendor = parts[-4] if len(parts) > 4 else folder.name
    try:
        converter = _read(folder, CONVERTER)
        metadata = _texts(_read(folder, "metadata.json") if "metadata.json" in names else {})
        script, way = _script(converter, f"{shown}/{CONVERTER}")
    except _Unreadable as error:
        yield Unrunnable(vendor, f"{shown}/{CONVERTER}", str(error))
        return
    codec = "/".join(parts[-3:])
    for name in sorted(names):
        found = _PAYLOAD.fullmatch(name)
        if found is None:
            continue
        result = f"result_{found[1]}.json" if found[1] else "result.json"
        if result not in names:
            yield Unrunnable(vendor, f"{shown}/{name}", f"there is no {result}")
            continue
        try:
            payload, expected = _read(folder, name), _read(folder, result)
        except _Unreadable as error:
            yield Unrunnable(vendor, f"{shown}/{name}", str(error))
            continue
        yield Case(
            vendor=vendor,
            name=f"{vendor}/{codec}: {name.removesuffix('.json')}",
            file=f"{shown}/{name}",
            line=1,
            call=_call(script, way, payload, metadata),
            expected=expected,
            whole=True,
        )


def _read(folder: Path, name: str) -> Any:
    file = folder / name
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise _Unreadable(f"{name} has more than {FILE_BYTES_MAX:,} bytes")
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise _Unreadable(f"{name} cannot be read: {error}") from None


def _texts(metadata: Any) -> dict[str, str]:
    """Return metadata as ThingsBoard has it: all values are texts."""
    if not isinstance(metadata, dict):
        raise _Unreadable("metadata.json is no object")
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in metadata.items()
    }


def _script(converter: Any, path: str) -> tuple[Script, str]:
    configuration = converter.get("configuration") if isinstance(converter, dict) else None
    if not isinstance(configuration, dict):
        raise _Unreadable(f"{CONVERTER} has no configuration")
    way = converter.get("type")
    language = configuration.get("scriptLang") or "JS"
    key = _KEYS.get((language, way))
    if key is None:
        raise _Unreadable(f"{CONVERTER} is {way!r} in {language!r}, which is not known")
    source = configuration.get(key)
    if not isinstance(source, str) or not source.strip():
        raise _Unreadable(f"{CONVERTER} has no `{key}`")
    return Script(path=path, language=_LANGUAGES[language], source=source), way


def _call(script: Script, way: str, payload: Any, metadata: Any) -> ScriptCall:
    if way == "UPLINK":
        raw = json.dumps(payload).encode()
        return ScriptCall(
            TENANT,
            script,
            "decode_uplink",
            {"payload": b64encode(raw).decode(), "metadata": metadata},
            contract="thingsboard",
        )
    argument = {
        "msg": payload,
        "metadata": metadata,
        "msgType": "POST_TELEMETRY_REQUEST",
        "integrationMetadata": {},
    }
    return ScriptCall(TENANT, script, "encode_downlink", argument, contract="thingsboard")
