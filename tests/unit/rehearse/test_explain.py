"""One message explained: what each node saw, decided and changed, and why."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline.errors import UsageError
from pipeline.rehearse.chain_test_config import GivenConfig, StepConfig
from pipeline.rehearse.explain import explain
from pipeline.rehearse.explain_text import lines
from pipeline.rehearse.explanation import Explanation
from pipeline.rehearse.harness import START_MS, Rehearsal, Stages
from pipeline.rehearse.messages import read_messages
from pipeline.rehearse.trace import ChainRun, ScriptRun
from tests.unit.rehearse.recorded_engine import EngineRecords

WARM = b'{"uplink": {"integration": "stack", "device_id": "a", "bytes": "1e", "f_port": 7}}'


def run(rules: Any, scripts: Any, message: bytes = WARM, **given: Any) -> Explanation:
    entries = read_messages(message, "m")
    return explain(rules.book(), scripts, entries, now_ms=START_MS, **given)


def runs(explanation: Explanation) -> list[ChainRun]:
    return [told for told in explanation.told if isinstance(told, ChainRun)]


def text(explanation: Explanation) -> str:
    return "\n".join(line.text for line in lines(explanation))


def test_whole_way(rules: Any, scripts: Any) -> None:
    """Converter, nodes, the chain that a changed attribute runs, and the encoder, in order."""
    told = run(rules, scripts)

    assert [type(each) for each in told.told] == [ScriptRun, ChainRun, ChainRun, ScriptRun]
    first, second = runs(told)
    assert [(step.node, [out.to for out in step.exits]) for step in first.steps] == [
        ("which", ["keep"]),
        ("keep", ["warm"]),
        ("warm", ["remember"]),
        ("remember", ["end"]),
    ]
    assert [step.node for step in second.steps] == ["which", "tell", "note"]
    assert first.message["telemetry"] == {"temperature": 30}


def test_why(rules: Any, scripts: Any) -> None:
    """A decision is told with the values of its expression, and only what was evaluated."""
    first, _ = runs(run(rules, scripts))

    (evaluation,) = first.steps[2].evaluations
    assert evaluation.text == "telemetry.temperature (30) > 20"
    assert evaluation.result is True
    assert evaluation.values == {"telemetry.temperature": 30}


def test_changes(rules: Any, scripts: Any) -> None:
    """What nodes changed and asked for stands at them; a downlink with its bytes in the text."""
    told = run(rules, scripts)
    first, second = runs(told)

    assert [(c.what, c.name) for c in first.steps[1].changes] == [("delivery", "out")]
    (change,) = first.steps[3].changes
    assert (change.what, change.name, change.before, change.after) == (
        "attribute",
        "shared.cooling",
        None,
        True,
    )
    assert [c.what for c in second.steps[1].changes] == ["downlink"]
    assert [c.what for c in second.steps[2].changes] == ["log"]
    said = text(told)
    assert 'asks for a downlink: {"cooling":true} = bytes 01; sent' in said
    assert "attribute shared.cooling: true  (new)" in said
    assert "logs (info): told sample-app:a" in said


def test_message_and_timer(rules: Any, scripts: Any) -> None:
    """A changed message is told leaf by leaf; a timer with when it is due, and its firing."""
    rules.write(
        "chains/cool.yaml",
        """
        chain: cool
        on: {messages: uplink}
        nodes:
          - name: shape
            set: {fields: {telemetry.f: "${telemetry.temperature * 2}", metadata.a.b: x}}
          - name: later
            delay: 5m
          - name: keep
            send: {to: out}
        """,
    )
    told = run(rules, scripts, WARM + b'\n{"wait": "6m"}')
    before, after = runs(told)

    assert [(c.name, c.after) for c in before.steps[0].changes] == [
        ("telemetry.f", 60),
        ("metadata.a", {"b": "x"}),
    ]
    assert [(c.what, c.after) for c in before.steps[1].changes] == [
        ("memory", {"number": 1, "of": "delay"}),
        ("timer", "2026-01-01T00:05:00.000Z"),
    ]
    assert [(step.node, step.by) for step in after.steps] == [("later", "timer"), ("keep", "")]


def test_sub_chain(rules: Any, scripts: Any) -> None:
    """Nodes of a chain that a chain runs stand deeper, and their effects at them alone."""
    rules.write(
        "chains/cool.yaml",
        "chain: cool\non: {messages: uplink}\nnodes:\n  - {name: go, chain: other}\n",
    )
    rules.write("chains/other.yaml", "chain: other\nnodes:\n  - {name: keep, send: {to: out}}\n")
    (only,) = runs(run(rules, scripts))

    assert [(s.chain, s.node, s.depth, len(s.changes)) for s in only.steps] == [
        ("cool", "go", 0, 0),
        ("other", "keep", 1, 1),
    ]


def test_script(rules: Any, scripts: Any) -> None:
    """A script's call and result are told; a turn that is taken again for it is told once."""
    rules.write(
        "chains/cool.yaml",
        """
        chain: cool
        on: {messages: uplink}
        nodes:
          - name: keep
            send: {to: out}
          - name: shape
            script: {file: shape.js}
        """,
    )
    rules.write("chains/shape.js", "// stands for the function `shape`")
    scripts.functions["shape"] = lambda _operation, _argument: {"telemetry": {"x": 1}}
    told = run(rules, scripts)
    (only,) = runs(told)

    assert [step.node for step in only.steps] == ["keep", "shape"]
    assert len([each for each in told.told if isinstance(each, ScriptRun)]) == 2
    assert "script chains/shape.js" in text(told)


def test_failure(rules: Any, scripts: Any) -> None:
    """A node that fails says why; what is undone, and its dead letter, are told."""
    rules.write(
        "chains/cool.yaml",
        """
        chain: cool
        on: {messages: uplink}
        nodes:
          - name: keep
            send: {to: out}
          - name: fails
            filter: telemetry.humidity > 1
        """,
    )
    told = run(rules, scripts)
    (only,) = runs(told)

    assert only.undone is not None
    assert only.steps[1].evaluations[0].error.startswith("no such key: humidity")
    assert told.effects.deliveries == []
    (letter,) = told.effects.dead_letters
    assert letter.shown["detail"]["node"] == "fails"
    assert "dead letter of route at cool/fails" in text(told)
    assert "all that the chain did is undone" in text(told)


def test_failure_that_is_taken(rules: Any, scripts: Any) -> None:
    """A failure that a node takes is an exit as any other, and nothing is undone."""
    rules.write(
        "chains/cool.yaml",
        """
        chain: cool
        on: {messages: uplink}
        nodes:
          - name: fails
            filter: telemetry.humidity > 1
            on_failure: keep
            then: stop
          - name: keep
            send: {to: out}
        """,
    )
    (only,) = runs(run(rules, scripts))

    assert only.undone is None
    assert [(out.outlet, out.to) for out in only.steps[0].exits] == [("failure", "keep")]


def test_chains_that_do_not_take_it(rules: Any, scripts: Any) -> None:
    """Each chain that a message did not enter is named, with the reason."""
    message = b'{"uplink": {"integration": "bare", "body": {"device": "x"}}}'
    told = run(rules, scripts, message)

    assert runs(told) == []
    (untaken,) = told.untaken
    assert untaken.why == ("it takes devices of type `sensor` or `meter`, and this is a `bare`")
    assert text(told).endswith('answer 202 {"accepted":true}')


def test_given(rules: Any, scripts: Any) -> None:
    """What is given is there before, is told as such, and enters no chain."""
    given = GivenConfig.model_validate(
        {"device": "sample-app:a", "attributes": {"shared": {"cooling": True}}}
    )
    told = run(rules, scripts, given=given)

    assert told.start.kind == "given"
    assert told.before == {"acme/sample-app:a": {"attributes": {"shared": {"cooling": True}}}}
    (only,) = runs(told)
    assert only.steps[-1].changes == []


async def test_today(rules: Any, scripts: Any) -> None:
    """Today's state of the device, found by the rules' own names, is where it begins."""
    from asyncio import to_thread

    rehearsal = Rehearsal(Stages(rules.book(), scripts))
    await rehearsal.ask("PATCH", "sample-app:a", "attributes/shared", body=b'{"cooling": true}')
    told = await to_thread(run, rules, scripts, recorded=EngineRecords(rehearsal))

    assert told.start.kind == "today"
    assert "acme/sample-app:a" in told.start.text
    assert told.before["acme/sample-app:a"]["attributes"] == {"shared": {"cooling": True}}


def test_slip(rules: Any, scripts: Any) -> None:
    """A step that cannot be done is the user's mistake, said with its number."""
    with pytest.raises(UsageError, match="message 1: says no device"):
        run(rules, scripts, b'{"uplink": {"integration": "stack", "bytes": "00"}}')


def test_json(rules: Any, scripts: Any) -> None:
    """An explanation is plain JSON, and holds no secret of the device's link."""
    said = msgspec.json.encode(run(rules, scripts)).decode()

    assert '"what":"chain"' in said
    assert "down-secret" not in said


def test_texts_cannot_steer_the_terminal(rules: Any, scripts: Any) -> None:
    """What devices say is printed, not obeyed."""
    step = StepConfig.model_validate(
        {"message": {"device": "a", "device_type": "sensor", "telemetry": {"x": "\x1b[31m"}}}
    )
    told = explain(rules.book(), scripts, [step], now_ms=START_MS)

    assert "\x1b" not in text(told)
