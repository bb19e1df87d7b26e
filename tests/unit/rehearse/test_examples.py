"""Examples of converters, run with scripts that are Python functions."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ScriptError
from pipeline.rehearse.examples import run_examples


def converter(examples: str, contract: str = "lorawan", way: str = "uplinkDecoder") -> str:
    """The text of a converter with these examples."""
    return f"contract: {contract}\n{way}:\n  fileName: sensor.js\n  examples: {examples}\n"


def one(rules: Any, scripts: Any, text: str) -> Any:
    rules.write("converters/acme/sensor.yaml", text)
    (result,) = run_examples(rules.book(), scripts, only=["acme/sensor"])
    return result


def test_an_example_that_holds(book: Any, scripts: Any) -> None:
    """A result has the example's name and place; the script got what the example says."""
    (result,) = run_examples(book, scripts)

    assert result.ok
    assert (result.kind, result.name) == ("example", "acme/sensor: decode uplink: warm")
    assert (result.file, result.line) == ("converters/acme/sensor.yaml", 4)
    (call,) = scripts.calls
    assert call.tenant == "acme"
    assert call.argument == {
        "bytes": "GQ==",
        "fPort": 1,
        "recvTime": "2026-01-01T00:00:00.000Z",
        "variables": {},
    }


def test_an_example_that_does_not_hold(rules: Any, scripts: Any) -> None:
    """What differs is said by its path."""
    text = converter("[{input: {bytes: [25]}, output: {data: {temperature: 24}}}]")

    assert [str(each) for each in one(rules, scripts, text).differences] == [
        "data.temperature: expected 24, got 25"
    ]


def test_nothing_unexpected_may_come(rules: Any, scripts: Any) -> None:
    """An example is whole: a value that it does not name is a difference, and so is a warning."""
    scripts.functions["sensor"] = lambda *_: {"data": {"a": 1, "b": 2}, "warnings": ["low"]}
    text = converter("[{input: {bytes: [25]}, output: {data: {a: 1}}}]")

    assert [str(each) for each in one(rules, scripts, text).differences] == [
        "data.b: expected nothing, got 2",
        'warnings: expected nothing, got ["low"]',
    ]


@pytest.mark.parametrize(
    ("expected", "differing"),
    [
        ('{errors: ["one byte is needed"]}', []),
        ('{errors: ["two"]}', ["errors: expected two, got one byte is needed"]),
        ("{data: {}}", ["errors: expected no error, got one byte is needed"]),
    ],
)
def test_a_script_that_refuses(
    rules: Any, scripts: Any, expected: str, differing: list[str]
) -> None:
    """An example may expect the script's own errors, and in its own words."""
    text = converter(f"[{{input: {{bytes: [1, 2]}}, output: {expected}}}]")

    assert [str(each) for each in one(rules, scripts, text).differences] == differing


def test_errors_that_do_not_come(rules: Any, scripts: Any) -> None:
    """An example that expects errors fails where the script takes the payload."""
    text = converter('[{input: {bytes: [1]}, output: {errors: ["no"]}}]')

    assert [str(each) for each in one(rules, scripts, text).differences] == [
        "errors: expected no, got no error"
    ]


def test_a_script_that_fails(rules: Any, scripts: Any) -> None:
    """What the engine says of a script, line and all, is the difference."""
    said = "converters/acme/sensor.js:3:1: x is not defined"
    scripts.functions["sensor"] = lambda *_: ScriptError(said, code="script_threw")
    text = converter('[{input: {bytes: [1]}, output: {errors: ["x is not defined"]}}]')

    assert [str(each) for each in one(rules, scripts, text).differences] == [said]


def test_an_encoders_example(rules: Any, scripts: Any) -> None:
    """The bytes and the port are compared; a port that the example does not name is too much."""
    text = converter(
        "[{input: {data: {cooling: true}, fPort: 3}, output: {bytes: [1]}}]", way="downlinkEncoder"
    )

    assert [str(each) for each in one(rules, scripts, text).differences] == [
        "fPort: expected nothing, got 10"
    ]
    assert scripts.calls[0].argument == {"data": {"cooling": True}, "fPort": 3, "variables": {}}


def test_the_contract_of_thingsboard(rules: Any, scripts: Any) -> None:
    """Payload and metadata go in; a list of devices may come out."""
    scripts.functions["sensor"] = lambda _, argument: [argument, argument]
    given = "{bytes: [1], metadata: {site: A}}"
    whole = "{payload: AQ==, metadata: {site: A}}"
    text = converter(f"[{{input: {given}, output: [{whole}, {whole}]}}]", "thingsboard")

    assert one(rules, scripts, text).ok


def test_no_examples(rules: Any, scripts: Any) -> None:
    """Without examples no script is called."""
    assert run_examples(rules.book(), scripts, only=["acme/meter"]) == []
    assert scripts.calls == []


@pytest.mark.parametrize(
    ("result", "differing"),
    [
        ({"normalized": {"data": [{"air": 25}], "warnings": []}}, []),
        (
            {"normalized": {"data": [{"air": 26}], "warnings": []}},
            ["normalizedOutput.data[0].air: expected 25, got 26"],
        ),
        (
            {"warnings": ["normalizeUplink: Error: no (line 2)"]},
            [
                (
                    'normalizedOutput: expected {"data":{"air":25}},'
                    " got normalizeUplink: Error: no (line 2)"
                ),
            ],
        ),
    ],
)
def test_what_the_normalizer_makes(
    rules: Any, scripts: Any, result: dict[str, Any], differing: list[str]
) -> None:
    """An example's normalizedOutput holds for what the normalizer made of the decoded data."""
    scripts.functions["sensor"] = lambda *_: {"data": {"t": 25}, "warnings": [], **result}
    text = converter(
        "[{input: {bytes: [25]}, output: {data: {t: 25}}, normalizedOutput: {data: {air: 25}}}]"
    )
    assert [str(each) for each in one(rules, scripts, text).differences] == differing
