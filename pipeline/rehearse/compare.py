"""What was expected against what came: JSON both, differences out.

Numbers are equal as in JSON (21 is 21.0), to a part in 10⁹; null is the same as missing.
Lists are compared whole. A map is compared by the keys that are expected, with `exact` by all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import orjson

from pipeline.rehearse.result import Difference, Path

DIFFERENCES_MAX = 20
"""Of one test; what is wrong after these is a consequence of them, as a rule."""
TEXT_MAX = 300
"""Characters of a value in a difference."""
_NORMALIZER = ("normalizeUplink: ", "normalize_uplink: ")
"""How the warning begins that says why a normalizer failed."""
RELATIVE = 1e-9
"""How far floats may lie apart: converters compute in other orders than people."""


def differences(
    expected: Any, got: Any, *, exact: bool = False, path: Path = ()
) -> list[Difference]:
    """Return what differs, the first DIFFERENCES_MAX of it."""
    found: list[Difference] = []
    for difference in _compare(expected, got, exact, path):
        if len(found) == DIFFERENCES_MAX:
            found.append(Difference(path, message="… and more"))
            break
        found.append(difference)
    return found


def without_normalized(value: Any) -> Any:
    """Return a decoder's result without what its normalizer made of it, or failed to."""
    if not isinstance(value, dict) or "warnings" not in value:
        return value
    warnings = [each for each in value["warnings"] if not str(each).startswith(_NORMALIZER)]
    kept = {key: item for key, item in value.items() if key != "normalized"}
    return {**kept, "warnings": warnings}


def shown(value: Any) -> str:
    """Return a value as JSON, shortened; `nothing` for null, as it is the same as missing."""
    if value is None:
        return "nothing"
    try:
        text = orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:
        text = repr(value)
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}…"


def _compare(expected: Any, got: Any, exact: bool, path: Path) -> Iterator[Difference]:
    if isinstance(expected, dict) and isinstance(got, dict):
        keys = list(expected)
        if exact:
            keys += [key for key in got if key not in expected]
        for key in keys:
            yield from _compare(expected.get(key), got.get(key), exact, (*path, key))
    elif isinstance(expected, list) and isinstance(got, list):
        for index in range(max(len(expected), len(got))):
            here = (*path, index)
            if index >= len(got):
                yield Difference(here, shown(expected[index]), "nothing")
            elif index >= len(expected):
                yield Difference(here, "nothing", shown(got[index]))
            else:
                yield from _compare(expected[index], got[index], exact, here)
    elif not _equal(expected, got):
        yield Difference(path, shown(expected), shown(got))


def _equal(expected: Any, got: Any) -> bool:
    if isinstance(expected, bool) or isinstance(got, bool):
        return expected is got
    if isinstance(expected, int | float) and isinstance(got, int | float):
        return expected == got or math.isclose(expected, got, rel_tol=RELATIVE)
    return bool(expected == got)
