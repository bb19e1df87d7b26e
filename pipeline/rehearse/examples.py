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
from pipeline.rehearse.judging import judge_error, judge_normalized, no_error, without_empty
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
        return judge_error(wanted, value)
    if wanted:
        return no_error(wanted)
    found = differences(
        without_empty(expected), without_empty(without_normalized(value)), exact=True
    )
    if example.normalized is not None:
        found += _judge_normalized(example.normalized, value)
    return found


def _judge_normalized(wanted: Mapping[str, Any], value: Any) -> list[Difference]:
    got = value.get("normalized") if isinstance(value, dict) else None
    if got is None:
        said = next((each for each in value["warnings"] if "ormalize" in each), "nothing")
        return [Difference(("normalizedOutput",), shown(dict(wanted)), said)]
    return judge_normalized(wanted, got)
