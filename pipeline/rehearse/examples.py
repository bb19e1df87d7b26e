"""The examples of converters, run: each a Result.

Scripts are called in one batch, as the stages call them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

from pipeline.errors import ScriptError
from pipeline.ports import ScriptCall, ScriptPort
from pipeline.rehearse.calls import call_of, given_text
from pipeline.rehearse.compare import differences, shown, without_normalized
from pipeline.rehearse.result import Difference, Result
from pipeline.rulebook.book import Converter, Example, Rulebook

_WORDS = {
    "decode_uplink": "decode uplink",
    "encode_downlink": "encode downlink",
    "decode_downlink": "decode downlink",
}


def run_examples(book: Rulebook, scripts: ScriptPort, *, only: Sequence[str] = ()) -> list[Result]:
    """Run every example of every converter (or of those named by `only`), in order of name.

    An example expects all that its script returns; where it leaves out `warnings` or `errors`,
    there must be none. An example may expect `errors`, the script's own words, and with
    `normalizedOutput` what the script's normalizer makes of the data.
    """
    places: list[tuple[Converter, Example]] = []
    calls: list[ScriptCall] = []
    for name, converter in sorted(book.converters.items()):
        if only and name not in only:
            continue
        for example in converter.examples:
            places.append((converter, example))
            calls.append(call_of(book, converter, example.routine, example.input))
    if not calls:
        return []
    begun = perf_counter()
    values = scripts.call(calls)
    each_s = (perf_counter() - begun) / len(calls)
    return [
        Result(
            kind="example",
            name=_name(converter, example, number),
            file=converter.file,
            line=example.line,
            differences=tuple(_judge(example, value)),
            duration_s=each_s,
            given=given_text(example.routine, example.input),
        )
        for number, ((converter, example), value) in enumerate(
            zip(places, values, strict=True), start=1
        )
    ]


def _name(converter: Converter, example: Example, number: int) -> str:
    what = example.description or f"example {number}"
    return f"{converter.name}: {_WORDS[example.routine]}: {what}"


def _judge(example: Example, value: Any) -> list[Difference]:
    expected = example.output
    wanted = expected.get("errors") if isinstance(expected, dict) else None
    if isinstance(value, ScriptError):
        if value.code != "script_errors":
            return [Difference(message=value.message)]
        said = _own_words(value)
        if isinstance(wanted, list) and ", ".join(map(str, wanted)) == said:
            return []
        return [Difference(("errors",), _listed(wanted), said)]
    if wanted:
        return [Difference(("errors",), _listed(wanted), "no error")]
    found = differences(
        _without_empty(expected), _without_empty(without_normalized(value)), exact=True
    )
    if example.normalized is not None:
        found += _judge_normalized(example.normalized, value)
    return found


def _judge_normalized(wanted: Mapping[str, Any], value: Any) -> list[Difference]:
    """Compare what the normalizer made; one measurement is a list of one."""
    got = value.get("normalized") if isinstance(value, dict) else None
    if got is None:
        said = next((each for each in value["warnings"] if "ormalize" in each), "nothing")
        return [Difference(("normalizedOutput",), shown(dict(wanted)), said)]
    expected = dict(wanted)
    if isinstance(expected.get("data"), Mapping):
        expected["data"] = [expected["data"]]
    found = differences(_without_empty(expected), _without_empty(got), exact=True)
    return [
        Difference(("normalizedOutput", *each.path), each.expected, each.got, each.message)
        for each in found
    ]


def _own_words(error: ScriptError) -> str:
    """Return what the script itself said; the engine puts the script's path before it."""
    path = str(error.detail.get("script", ""))
    return error.message.removeprefix(f"{path}: ")


def _listed(errors: Any) -> str:
    if not errors:
        return "no error"
    return ", ".join(map(str, errors)) if isinstance(errors, list) else str(errors)


def _without_empty(value: Any) -> Any:
    """Leave out warnings and errors where there are none: the same as not naming them."""
    if not isinstance(value, dict):
        return list(value) if isinstance(value, tuple) else value
    return {
        key: inner
        for key, inner in value.items()
        if not (key in ("warnings", "errors") and not inner)
    }
