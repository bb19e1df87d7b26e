"""Bytes as people write them in YAML: text, or `{hex: 0d0a}`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

OCTETS_MAX = 256


def parse_octets(value: Any) -> bytes:
    """Return the bytes: text as UTF-8. ValueError: it is neither, empty, or too long."""
    if isinstance(value, dict) and list(value) == ["hex"]:
        found = _from_hex(str(value["hex"]))
    elif isinstance(value, str):
        found = value.encode()
    elif isinstance(value, bytes):
        found = value
    else:
        raise ValueError('must be text, or bytes as `{hex: "0d0a"}`')
    if not 1 <= len(found) <= OCTETS_MAX:
        raise ValueError(f"must have 1 to {OCTETS_MAX} bytes")
    return found


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f'`{text[:40]}` is not hexadecimal, as `{{hex: "0d0a"}}`') from None


Octets = Annotated[
    bytes,
    BeforeValidator(parse_octets),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": OCTETS_MAX},
                {
                    "type": "object",
                    "properties": {"hex": {"type": "string"}},
                    "required": ["hex"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]
"""A field of bytes that takes what `parse_octets` takes."""
