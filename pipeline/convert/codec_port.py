"""The script port, with codecs that need no script: calls of language `codec` are run here, in this
process; all others go on to the engines.

To whoever calls, such a codec is a script whose source is its configuration as JSON. Results have
the shapes that scripts give.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import orjson
from pydantic import ValidationError

from pipeline.convert.codecs.codec import Codec, Encoded, Given, codec_models
from pipeline.errors import MessageError, ScriptError
from pipeline.ports import ScriptCall, ScriptPort

CODECS_MAX = 1_000
"""Codecs that are kept built; the least recently used is dropped."""


class CodecPort:
    """Implements `ports.ScriptPort` in front of another. Thread-safe."""

    def __init__(self, scripts: ScriptPort) -> None:
        self.scripts = scripts

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """See `ports.ScriptPort`. Of a codec, errors have the code `codec`."""
        others = [call for call in calls if call.script.language != "codec"]
        if len(others) == len(calls):
            return self.scripts.call(calls)
        found = iter(self.scripts.call(others) if others else ())
        return [
            self._run(call) if call.script.language == "codec" else next(found) for call in calls
        ]

    def close(self) -> None:
        """See `ports.ScriptPort`."""
        self.scripts.close()

    @staticmethod
    def _run(call: ScriptCall) -> Any:
        try:
            codec = _build(call.script.source)
            if call.operation == "decode_uplink":
                return codec.decode(_given(call.argument))
            if call.operation == "encode_downlink":
                return _encoded(call, codec)
            raise MessageError(f"a codec without a script has no {call.operation}", code="codec")
        except MessageError as fault:
            path = call.script.path
            return ScriptError(
                f"{path}: {fault.message}",
                code="script_result" if fault.code == "expression" else fault.code,
                **{**fault.detail, "script": path},
            )


@lru_cache(CODECS_MAX)
def _build(source: str) -> Codec:
    try:
        written = orjson.loads(source)
        return codec_models()[written.pop("codec")].model_validate(written).build()
    except (orjson.JSONDecodeError, ValidationError, KeyError, AttributeError) as error:
        raise MessageError(f"the codec cannot be built: {error}", code="codec") from None


def _given(argument: dict[str, Any]) -> Given:
    """Return what either contract hands in."""
    metadata = argument.get("metadata") or {}
    time = argument.get("recvTime")
    return Given(
        payload=b64decode(argument.get("payload") or argument.get("bytes") or ""),
        f_port=argument.get("fPort", metadata.get("fPort")),
        time_ms=_milliseconds(time),
        metadata=metadata,
    )


def _milliseconds(time: Any) -> int | None:
    if time is None or isinstance(time, int):
        return time
    return round(datetime.fromisoformat(time).timestamp() * 1000)


def _encoded(call: ScriptCall, codec: Codec) -> Any:
    argument = call.argument
    if call.contract == "lorawan":
        made = codec.encode(argument.get("data") or {}, argument.get("fPort"))
        return {
            "bytes": list(made.payload),
            "fPort": made.f_port,
            "warnings": list(made.warnings),
        }
    return _message(codec.encode(argument.get("msg") or {}, None))


def _message(made: Encoded) -> dict[str, Any]:
    metadata = {} if made.f_port is None else {"fPort": made.f_port}
    if made.text:
        return {"contentType": "JSON", "data": made.payload.decode(), "metadata": metadata}
    return {
        "contentType": "BINARY",
        "data": b64encode(made.payload).decode(),
        "metadata": metadata,
    }
