"""Services that chains ask, played: what comes of each answer, and when."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ConfigError, UsageError
from pipeline.rehearse.chain_test_config import GivenConfig, StepConfig
from pipeline.rehearse.chain_test_files import load_chain_tests
from pipeline.rehearse.chain_tests import run_chain_tests
from pipeline.rehearse.explain import explain

URL = "http://service.example"
CHAIN = """
chain: ask
on: {messages: uplink}
nodes:
  - name: ask
    remote_call: {to: service, body: {n: "${telemetry.n}", of: "${device.name}"}, timeout: 10s}
    failed: bad
    timeout: late
  - name: good
    send: {to: out, body: "${metadata.reply}"}
    then: stop
  - name: bad
    log: {level: warning, message: "bad: ${metadata.reply.reason}"}
    then: stop
  - name: late
    log: {level: warning, message: "late: ${metadata.reply.reason}"}
"""
ASK = "{message: {device: a, telemetry: {n: 1}}}"
ASK_2 = "{message: {device: a, telemetry: {n: 2}}}"


@pytest.fixture
def rules(rules: Any) -> Any:
    """The folder with a chain that asks a service, and its sink."""
    rules.write("sinks/service.yaml", f"{{transport: http, url: '{URL}', timeout: 3s}}\n")
    rules.write("chains/ask.yaml", CHAIN)
    return rules


def run(rules: Any, scripts: Any, services: str, when: str, then: str) -> list[str]:
    """What differs in a test of these steps and this expectation."""
    text = f"""
chains: [ask]
tests:
  - name: a
    given: {{services: {services}}}
    when: [{when}]
    then: {then}
"""
    rules.write("chains/ask_test.yaml", text)
    (result,) = run_chain_tests(rules.book(), scripts)
    return [str(each) for each in result.differences]


@pytest.mark.parametrize(
    ("services", "when", "then"),
    [
        (
            "{service: {body: {owner: you}}}",
            ASK,
            """{exact: true, calls: [{to: service, device: a, body: {n: 1, of: a},
            ended: replied, tries: 1}], deliveries: [{to: service, body: {n: 1, of: a}},
            {to: out, body: {status: 200, body: {owner: you}}}]}""",
        ),
        (
            "{service: {status: 201, body: not JSON}}",
            ASK,
            "{deliveries: [{to: service}, {body: {status: 201, body: not JSON}}]}",
        ),
        ("{service: {}}", ASK, "{deliveries: [{}, {body: {status: 200, body: null}}]}"),
        (
            "{service: [{body: 1}, {body: 2}]}",
            f"{ASK}, {ASK}, {ASK}",
            "{deliveries: [{}, {body: {body: 1}}, {}, {body: {body: 2}}, {}, {body: {body: 2}}]}",
        ),
        (
            "{service: {status: 404, body: {why: x}}}",
            ASK,
            '{calls: [{ended: failed, tries: 1}], logs: [{message: "bad: rejected"}]}',
        ),
        (
            "{service: {is_away: true}}",
            f"{ASK}, {{wait: 1h}}",
            '{calls: [{ended: timeout, tries: 4}], logs: [{message: "late: timeout"}]}',
        ),
        ("{service: {is_away: true}}", ASK, "{calls: [{ended: null, tries: 1}], logs: []}"),
        # Tried at once, after 1 s, and 2 s later.
        (
            "{service: [{status: 503}, {is_away: true}, {body: 5}]}",
            f"{ASK}, {{wait: 2999ms}}",
            "{calls: [{ended: null, tries: 2}], logs: []}",
        ),
        (
            "{service: [{status: 503}, {is_away: true}, {body: 5}]}",
            f"{ASK}, {{wait: 3s}}",
            "{calls: [{ended: replied, tries: 3}], deliveries: [{}, {body: {body: 5}}]}",
        ),
        (
            "{service: {after: 2s}}",
            f"{ASK}, {{wait: 1999ms}}",
            "{calls: [{ended: null, tries: 1}]}",
        ),
        ("{service: {after: 2s}}", f"{ASK}, {{wait: 2s}}", "{calls: [{ended: replied}]}"),
        # The sink itself waits for 3 s, and then tries again a second later.
        (
            "{service: [{after: 5s}, {}]}",
            f"{ASK}, {{wait: 3999ms}}",
            "{calls: [{ended: null, tries: 1}]}",
        ),
        (
            "{service: [{after: 5s}, {}]}",
            f"{ASK}, {{wait: 4s}}",
            "{calls: [{ended: replied, tries: 2}]}",
        ),
        # 410 of an address that all devices share: no more requests.
        (
            "{service: {status: 410}}",
            f"{ASK}, {{wait: 1h}}",
            "{calls: [{ended: timeout, tries: 1}]}",
        ),
        # A sink keeps a device's order, of different devices it knows none.
        (
            "{service: [{after: 2s, body: 1}, {body: 2}]}",
            f"{ASK}, {ASK_2}",
            "{calls: [{ended: null, tries: 1}, {ended: null, tries: 0}]}",
        ),
        (
            "{service: [{after: 2s, body: 1}, {body: 2}]}",
            f"{ASK}, {ASK_2}, {{wait: 2s}}",
            "{deliveries: [{}, {}, {body: {body: 1}}, {body: {body: 2}}]}",
        ),
        (
            "{service: [{after: 2s, body: 1}, {body: 2}]}",
            f"{ASK}, {{message: {{device: b, telemetry: {{n: 2}}}}}}",
            "{calls: [{device: a, ended: null}, {device: b, ended: replied}]}",
        ),
        ("{}", f"{ASK}, {{wait: 10s}}", "{calls: [{ended: timeout, tries: 0}]}"),
    ],
)
def test_what_comes_of_an_answer(
    rules: Any, scripts: Any, services: str, when: str, then: str
) -> None:
    """Each answer leads the message where the sink's real answer would, at the same time."""
    assert run(rules, scripts, services, when, then) == []


def test_a_sink_that_gives_up(rules: Any, scripts: Any) -> None:
    """Its own `retry` says for how long it is tried; then the call has failed."""
    rules.write(
        "sinks/service.yaml",
        f"transport: http\nurl: {URL}\nretry: {{waits: [2s], give_up_after: 3s}}\n",
    )
    then = '{calls: [{ended: failed, tries: 3}], logs: [{message: "bad: given_up"}]}'

    assert run(rules, scripts, "{service: {is_away: true}}", f"{ASK}, {{wait: 5s}}", then) == []


@pytest.mark.parametrize(
    ("services", "then", "said"),
    [
        ("{service: {}}", "{calls: []}", "then.calls[0]: expected nothing"),
        ("{service: {}}", "{calls: [{ended: failed}]}", 'expected "failed", got "replied"'),
        ("{service: {}}", "{calls: [{body: {n: 2}}]}", "then.calls[0].body.n: expected 2, got 1"),
        ("{service: {}}", "{calls: [{}, {}]}", "then.calls[1]: expected {}, got nothing"),
        ("{out: {}}", "{calls: []}", "given: `services`: the sink `out` is of transport file"),
    ],
)
def test_what_fails(rules: Any, scripts: Any, services: str, then: str, said: str) -> None:
    """A call that is not as expected fails the test, and so does a sink that cannot answer."""
    (found,) = run(rules, scripts, services, ASK, then)

    assert said in found


@pytest.mark.parametrize(
    ("services", "then", "said"),
    [
        ("{servce: {}}", "{calls: []}", "no sink `servce` (did you mean `service`?)"),
        ("{service: []}", "{calls: []}", "must not be empty"),
        ("{service: {state: 200}}", "{calls: []}", "unknown key `state` (did you mean `status`?)"),
        ("{service: [{}, {status: 99}]}", "{calls: []}", "200"),
        ("{service: {is_away: true, status: 200}}", "{calls: []}", "`is_away` stands alone"),
        ("{service: {after: soon}}", "{calls: []}", "must be a duration like"),
        ("{}", "{calls: [{to: servce}]}", "no sink `servce` (did you mean `service`?)"),
        ("{}", "{calls: [{ended: reply}]}", "did you mean `replied`?"),
    ],
)
def test_what_check_says(rules: Any, services: str, then: str, said: str) -> None:
    """A slip in either is one fault, at its line."""
    rules.write(
        "chains/ask_test.yaml",
        f"given: {{services: {services}}}\n"
        f"tests:\n  - name: a\n    when: [{ASK}]\n    then: {then}\n",
    )

    with pytest.raises(ConfigError) as caught:
        load_chain_tests(rules.book())

    (fault,) = caught.value.faults
    assert said in str(fault)
    assert f"_test.yaml:{5 if services == '{}' else 1}:" in str(fault)


def explained(rules: Any, scripts: Any, services: dict[str, Any]) -> str:
    """What `explain` shows of one message, as text."""
    step = StepConfig.model_validate({"message": {"device": "a", "telemetry": {"n": 1}}})
    given = GivenConfig.model_validate({"services": services})
    return str(explain(rules.book(), scripts, [step], now_ms=0, given=given))


def test_explain_shows_the_way_with_the_answer(rules: Any, scripts: Any) -> None:
    """With an answer the message is seen at the nodes behind the call, without one it is not."""
    answered = explained(rules, scripts, {"service": {"body": {"owner": "you"}}})

    assert "'good'" in answered
    assert "'owner': 'you'" in answered
    assert "'good'" not in explained(rules, scripts, {})


def test_explain_of_a_sink_that_is_not_there(rules: Any, scripts: Any) -> None:
    """It is the user's mistake, said with the name."""
    with pytest.raises(UsageError, match="there is no sink `nowhere`"):
        explained(rules, scripts, {"nowhere": {}})
