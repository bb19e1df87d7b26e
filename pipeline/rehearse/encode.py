"""One downlink through a converter's encoder: what `funicular encode` shows."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ScriptError
from pipeline.ports import ScriptPort
from pipeline.rehearse.calls import call_of, converter_of
from pipeline.rulebook.book import Rulebook


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the script made of the fields; `f_port` None: neither it nor the caller names one."""

    converter: str
    script: str
    payload: bytes
    f_port: int | None
    warnings: tuple[str, ...] = ()


def encode(
    book: Rulebook,
    scripts: ScriptPort,
    converter: str,
    fields: Mapping[str, Any],
    *,
    f_port: int | None = None,
    variables: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Encoded:
    """Encode `fields`. `converter` is its name, or an integration's; `metadata` is what a
    converter in the contract of ThingsBoard is told of the device.

    UsageError: there is no such converter, or it has no encoder. ScriptError: the script refused
    the fields or failed; its text has file, line and column where they are known.
    """
    chosen = converter_of(book, converter)
    given = {
        "data": dict(fields),
        "fPort": f_port,
        "variables": dict(variables or {}),
        "metadata": dict(metadata or {}),
    }
    call = call_of(book, chosen, "encode_downlink", given)
    (value,) = scripts.call([call])
    if isinstance(value, ScriptError):
        raise value
    if call.contract == "thingsboard":
        payload = _thingsboard(value, call.script.path)
        return Encoded(chosen.name, call.script.path, payload, f_port)
    return Encoded(
        chosen.name,
        call.script.path,
        bytes(value["bytes"]),
        value.get("fPort") if f_port is None else f_port,
        tuple(value.get("warnings") or ()),
    )


def _thingsboard(value: Any, script: str) -> bytes:
    """Return the bytes of `{contentType, data}`, as the downlink stage reads it."""
    data = value.get("data") if isinstance(value, dict) else None
    content_type = value.get("contentType") if isinstance(value, dict) else None
    if not isinstance(data, str) or content_type not in ("JSON", "TEXT", "BINARY"):
        raise ScriptError(
            f"{script}: the result needs contentType (JSON, TEXT or BINARY) and data, a text",
            code="script_result",
            script=script,
        )
    if content_type != "BINARY":
        return data.encode()
    try:
        return b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise ScriptError(
            f"{script}: data is not base64, as contentType BINARY says",
            code="script_result",
            script=script,
        ) from None
