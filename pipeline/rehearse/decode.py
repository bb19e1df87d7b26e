"""One payload through a converter's decoder: what `funicular decode` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.errors import ScriptError
from pipeline.ports import ScriptPort
from pipeline.rehearse.calls import RECEIVED, call_of, converter_of
from pipeline.rulebook.book import Rulebook


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the script made of the bytes.

    `data` is the telemetry; of a converter in the contract of ThingsBoard, all that it returned.
    """

    converter: str
    script: str
    data: Any
    warnings: tuple[str, ...] = ()


def decode(
    book: Rulebook,
    scripts: ScriptPort,
    converter: str,
    payload: bytes,
    *,
    f_port: int | None = None,
    received: str = RECEIVED,
    variables: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    routine: Literal["decode_uplink", "decode_downlink"] = "decode_uplink",
) -> Decoded:
    """Decode `payload`. `converter` is its name, or an integration's; `received` is RFC 3339.

    UsageError: there is no such converter, or it has no decoder. ScriptError: the script refused
    the payload or failed; its text has file, line and column where they are known.
    """
    chosen = converter_of(book, converter)
    given = {
        "bytes": payload,
        "fPort": f_port or 0,
        "recvTime": received,
        "variables": dict(variables or {}),
        "metadata": dict(metadata or {}),
    }
    call = call_of(book, chosen, routine, given)
    (value,) = scripts.call([call])
    if isinstance(value, ScriptError):
        raise value
    if call.contract == "thingsboard" and routine == "decode_uplink":
        return Decoded(chosen.name, call.script.path, value)
    return Decoded(
        chosen.name, call.script.path, value.get("data"), tuple(value.get("warnings") or ())
    )
