"""What a codec without a script is, and which there are.

A codec's file has `CODEC`, the pydantic model of what a user writes beside `codec: <name>`; the
folder is scanned. Pure: bytes and what is known of them go in, a result goes out, in the shapes
that scripts give (`ports.ScriptPort`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Protocol

from pipeline.errors import MessageError
from pipeline.part import Part
from pipeline.ports import Contract
from pipeline.scan import Parts

FIELDS_MAX = 5_000
"""Values that one payload may hold; repeated groups could make any number of them."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a codec decodes. `metadata` is what the network server said, where the contract has it.

    `time_ms` is when it was received, None where that is not known.
    """

    payload: bytes
    f_port: int | None = None
    time_ms: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What a codec encoded; `f_port` None: it does not say one. `text`: the payload is JSON."""

    payload: bytes
    f_port: int | None = None
    warnings: tuple[str, ...] = ()
    text: bool = False


class Codec(Protocol):
    """A codec as it runs. MessageError: this payload, or these fields, cannot be converted."""

    def decode(self, given: Given) -> Any:
        """Return `{"data": {…}, "warnings": […]}`; of contract `thingsboard`, its shape."""
        ...

    def encode(self, fields: Mapping[str, Any], f_port: int | None) -> Encoded:
        """Return the bytes of a downlink."""
        ...


class CodecConfig(Part):
    """What a user writes of a codec. `contract` is the shape of its results, and `decodes`,
    `encodes` what it can do as it is written.
    """

    contract: ClassVar[Contract] = "lorawan"

    @property
    def decodes(self) -> bool:
        """Whether it decodes uplinks."""
        return True

    @property
    def encodes(self) -> bool:
        """Whether it encodes downlinks."""
        return True

    def build(self) -> Codec:
        """Return the codec, ready to run."""
        raise NotImplementedError


def bad(message: str, **detail: Any) -> MessageError:
    """Return the error of a payload, or of fields, that do not fit the codec."""
    return MessageError(message, code="codec", **detail)


@cache
def codec_models() -> Mapping[str, type[CodecConfig]]:
    """Return the model of each codec by its name: the files of this folder."""
    return Parts("pipeline.convert.codecs", "CODEC")
