"""Whether a value can be kept in the state: any JSON value in, its size out.

Engines keep parts and timers as JSON that any reader takes: whole numbers of 64 bits, text that is
Unicode, some 250 levels deep. What a device sent may be more than that.
"""

from __future__ import annotations

from typing import Any

import orjson

from pipeline.errors import MessageError


def size_of(value: Any) -> int:
    """Return how many bytes a value takes. MessageError (code `state`): it cannot be kept."""
    try:
        return len(orjson.dumps(value))
    except TypeError as error:
        raise MessageError(f"a value cannot be kept: {error}", code="state") from error
