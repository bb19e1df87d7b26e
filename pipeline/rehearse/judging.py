"""What an example of a codec says of errors and of normalized data, against what the script gave.

The shapes are The Things Network's: `{data, warnings, errors}`, of a normalizer a list of `data`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import ScriptError
from pipeline.rehearse.compare import differences
from pipeline.rehearse.result import Difference


def judge_error(wanted: Any, error: ScriptError) -> list[Difference]:
    """Compare the errors that an example wants with those that a script returned. What it threw
    is none of these.
    """
    if error.code != "script_errors":
        return [Difference(message=error.message)]
    # The script's own words; the engine puts its path before them.
    said = error.message.removeprefix(f"{error.detail.get('script', '')}: ")
    if wanted and _listed(wanted) == said:
        return []
    return [Difference(("errors",), _listed(wanted), said)]


def no_error(wanted: Any) -> list[Difference]:
    """Return the difference where an example wants errors, and there are none."""
    return [Difference(("errors",), _listed(wanted), "no error")]


def judge_normalized(wanted: Mapping[str, Any], got: Any) -> list[Difference]:
    """Compare what a normalizer made; one measurement is a list of one."""
    expected = dict(wanted)
    if isinstance(expected.get("data"), Mapping):
        expected["data"] = [expected["data"]]
    found = differences(without_empty(expected), without_empty(got), exact=True)
    return [
        Difference(("normalizedOutput", *each.path), each.expected, each.got, each.message)
        for each in found
    ]


def without_empty(value: Any) -> Any:
    """Leave out warnings and errors where there are none: the same as not naming them."""
    if not isinstance(value, dict):
        return list(value) if isinstance(value, tuple) else value
    return {
        key: inner
        for key, inner in value.items()
        if not (key in ("warnings", "errors") and not inner)
    }


def _listed(errors: Any) -> str:
    if not errors:
        return "no error"
    return ", ".join(map(str, errors)) if isinstance(errors, list) else str(errors)
