"""Chain tests, run: what makes one pass, and what each kind of slip makes of it."""

from __future__ import annotations

from textwrap import indent
from typing import Any

import pytest

from pipeline.rehearse import harness
from pipeline.rehearse.chain_tests import run_chain_tests
from pipeline.rehearse.result import Result

FOX = "device: {name: 1A2B, integration: fox}"
STACK = 'device: {name: "sample-app:a", integration: stack}'


def run(rules: Any, scripts: Any, text: str) -> list[Result]:
    rules.write("chains/cool_test.yaml", text)
    return run_chain_tests(rules.book(), scripts)


def one(rules: Any, scripts: Any, given: str, when: str, then: str) -> list[str]:
    """What differs in a test of these steps (one a line) and this expectation."""
    steps = "\n".join(f"- {step.strip()}" for step in when.strip().splitlines())
    text = (
        f"given: {{{given}}}\ntests:\n  - name: a\n    when:\n"
        f"{indent(steps, '      ')}\n    then: {then}\n"
    )
    (result,) = run(rules, scripts, text)
    assert result.ok is not bool(result.differences)
    return [str(each) for each in result.differences]


@pytest.mark.parametrize(
    ("given", "when", "then"),
    [
        (
            STACK,
            'uplink: {bytes: "1e", f_port: 7}',
            """{exact: true, answers: [{status: 202}], attributes: {shared: {cooling: true}},
            downlinks: [{bytes: "01", f_port: 10, state: sent, expires_in: 1h, queue: last,
              source: cool/tell, fields: {cooling: true}, possibly_delivered: false,
              request: {method: POST,
                url: "http://stack.example/api/v3/as/applications/sample-app/devices/a/down/push",
                json: {downlinks: [{f_port: 10, frm_payload: AQ==, priority: NORMAL,
                  correlation_ids: ["funicular:r1.0.cool-a2.cool-1"]}]}}}],
            deliveries: [{to: out, device: "sample-app:a"}],
            logs: [{level: info, message: "told sample-app:a", chain: cool, node: note}]}""",
        ),
        (
            FOX,
            'uplink: {bytes: "1e"}',
            "{answers: [{status: 200, json: {1A2B: {downlinkData: '0100000000000000'}}}]}",
        ),
        (FOX, 'uplink: {bytes: "05"}\nagain: true', "{deliveries: [{to: out}]}"),
        (
            FOX,
            "attributes: {set: {cooling: true}}\nattributes: {delete: [cooling]}",
            """{downlinks: [{bytes: [1, 0, 0, 0, 0, 0, 0, 0]}, {state: queued}],
            attributes: {shared: {cooling: null}}}""",
        ),
        (
            FOX,
            "attributes: {set: {cooling: true}}\ncancel: true",
            "{downlinks: [{state: cancelled}]}",
        ),
        (
            FOX,
            "attributes: {set: {cooling: true}}\nwait: 1h",
            "{downlinks: [{state: expired}]}",
        ),
        (
            FOX,
            'downlink: {bytes: "00 00 00 00 00 00 00 01", expires_in: 5m}',
            "{downlinks: [{state: queued, expires_in: 300s, source: local}]}",
        ),
        (FOX, 'downlink: {bytes: "00"}', "{downlinks: [{state: failed, reason: payload_length}]}"),
        (
            STACK,
            "network_server: refuses\nattributes: {set: {a: 1}}",
            "{downlinks: [{state: failed, reason: rejected, message: refused}]}",
        ),
        (
            "device: {name: b, type: sensor}",
            "message: {telemetry: {temperature: 30}}",
            """{downlinks: [{device: b, state: failed, reason: no_integration}],
            devices: {b: {type: sensor, attributes: {shared: {cooling: true}}}}}""",
        ),
        (
            "",
            "message: {device: c, integration: fox, telemetry: {temperature: 30}}",
            "{downlinks: [{device: c}], attributes: {shared: {cooling: true}}}",
        ),
        (
            "device: {name: d, type: sensor}, attributes: {shared: {cooling: true}}",
            "message: {telemetry: {temperature: 30}}",
            "{downlinks: [], deliveries: [{body: {telemetry: {temperature: 30.0}}}]}",
        ),
        (
            "",
            'uplink: {integration: web, body_bytes: "00 01 02"}',
            "{answers: [{status: 204}], devices: {page: {type: page}}}",
        ),
        (
            "",
            "uplink: {integration: bare, body: {device: e, a: 1}}",
            "{answers: [{status: 202, text: '{\"accepted\":true}'}], devices: {e: {type: bare}}}",
        ),
        (
            "",
            "uplink: {integration: bare, method: GET, query: {device: e}}",
            "{devices: {e: {type: bare}}}",
        ),
    ],
)
def test_what_passes(rules: Any, scripts: Any, given: str, when: str, then: str) -> None:
    """Each kind of step has its effect, and each kind of expectation sees it."""
    assert one(rules, scripts, given, when, then) == []


@pytest.mark.parametrize(
    ("given", "when", "then", "said"),
    [
        (FOX, 'uplink: {bytes: "1e"}', "{downlinks: []}", "then.downlinks[0]: expected nothing"),
        (
            FOX,
            'uplink: {bytes: "05"}',
            "{downlinks: [{state: sent}]}",
            'then.downlinks[0]: expected {"state":"sent"}, got nothing',
        ),
        (
            FOX,
            'uplink: {bytes: "1e"}',
            '{downlinks: [{bytes: "00 00 00 00 00 00 00 00"}]}',
            'bytes: expected "00 00 00 00 00 00 00 00", got "01 00 00 00 00 00 00 00"',
        ),
        (
            STACK,
            'uplink: {bytes: "1e"}',
            "{downlinks: [{expires_in: 2h}]}",
            "then.downlinks[0].expires_in: expected 7200.0, got 3600.0",
        ),
        (
            FOX,
            'uplink: {bytes: "1e"}',
            "{answers: [{status: 204}]}",
            "then.answers[0].status: expected 204, got 200",
        ),
        (
            FOX,
            'uplink: {bytes: "1e"}',
            "{attributes: {shared: {cooling: false}}}",
            "then.attributes.shared.cooling: expected false, got true",
        ),
        (
            FOX,
            'uplink: {bytes: "1e"}',
            "{deliveries: [{to: other}]}",
            'then.deliveries[0].to: expected "other", got "out"',
        ),
        (
            FOX,
            'uplink: {bytes: "05"}',
            "{exact: true, answers: [{}]}",
            "then.deliveries: nobody expected",
        ),
        (
            FOX,
            'uplink: {bytes: "05"}',
            "{exact: true, answers: [{}], deliveries: [{body: {type: uplink}}]}",
            "then.deliveries[0].body.id: expected nothing",
        ),
        (FOX, 'uplink: {bytes: "05"}', "{logs: [{message: told}]}", "then.logs[0]: expected"),
        (
            STACK,
            'uplink: {bytes: "01 02"}',
            "{downlinks: []}",
            "then.dead_letters: nobody expected",
        ),
        (
            STACK,
            'uplink: {bytes: "01 02"}',
            "{dead_letters: [{message: two bytes}]}",
            "then.dead_letters[0].message: expected",
        ),
        (
            "",
            "uplink: {integration: bare, body: {a: 1}}",
            "{downlinks: []}",
            "when: uplink 1 was refused: 400",
        ),
        (
            "",
            'uplink: {integration: fox, device_id: hall, bytes: "05"}',
            "{downlinks: []}",
            "when[0].uplink: the dialect sigfox has no such uplink: `device` must be up to 8",
        ),
        ("", 'uplink: {bytes: "05"}', "{downlinks: []}", "says no `integration`"),
        ("", "uplink: {integration: fox}", "{downlinks: []}", "says no device: name it by"),
        ("", "attributes: {set: {a: 1}}", "{downlinks: []}", "says no `device`"),
        ("", "again: true", "{downlinks: []}", "there is no `uplink` before it"),
        ("attributes: {shared: {a: 1}}", "wait: 1s", "{downlinks: []}", "given: `attributes` are"),
        (FOX, "uplink: {f_port: 3}", "{downlinks: []}", "sigfox has no f_port in its sample"),
        (FOX, "uplink: {merge: {device: 7}}", "{downlinks: []}", "when[0].uplink: "),
        (
            STACK,
            "uplink: {device: other}",
            "{downlinks: []}",
            "the names of its samples look like `sample-app:hall`",
        ),
        (
            'device: {name: "elsewhere:a", integration: stack}',
            "wait: 1s",
            "{downlinks: []}",
            "given: `elsewhere:a` cannot be a device of stack",
        ),
        (
            FOX,
            "downlink: {fields: {}, expires_in: soon}",
            "{downlinks: []}",
            "when[0].downlink: the API answered 400",
        ),
    ],
)
def test_what_fails(  # noqa: PLR0917 - parameters of pytest
    rules: Any, scripts: Any, given: str, when: str, then: str, said: str
) -> None:
    """Each kind of difference, and each step that cannot be done, is told where it stands."""
    found = one(rules, scripts, given, when, then)

    assert any(said in each for each in found), found


def test_the_name_of_an_application_can_be_merged(rules: Any, scripts: Any) -> None:
    """A device of another application is named so, where the sample is made so."""
    merge = "{end_device_ids: {application_ids: {application_id: elsewhere}}}"
    given = f'device: {{name: "elsewhere:a", integration: stack, merge: {merge}}}'
    when = f'uplink: {{bytes: "1e", merge: {merge}}}'

    assert one(rules, scripts, given, when, "{downlinks: [{device: 'elsewhere:a'}]}") == []


def test_places_of_differences(rules: Any, scripts: Any) -> None:
    """A result has the test's line, a difference the expectation's."""
    (result,) = run(
        rules,
        scripts,
        """
        tests:
          - name: warm
            when:
              - message: {device: a, integration: fox, telemetry: {temperature: 30}}
            then:
              attributes:
                shared:
                  cooling: false
        """,
    )

    assert (result.name, result.file, result.line) == ("cool: warm", "chains/cool_test.yaml", 2)
    assert [each.line for each in result.differences] == [8]
    assert result.duration_s > 0


def test_tests_do_not_touch_each_other(rules: Any, scripts: Any) -> None:
    """One that fails, or leaves something behind, is nothing to the next."""
    test = """
          - name: {name}
            given: {{device: {{name: 1A2B, integration: fox}}}}
            when: [{{attributes: {{set: {{cooling: {value}}}}}}}]
            then: {{downlinks: [{{state: queued}}]}}"""
    named = [("one", "true"), ("two", "null"), ("three", "true")]
    text = "tests:" + "".join(test.format(name=name, value=value) for name, value in named)

    results = run(rules, scripts, text)

    assert [result.ok for result in results] == [True, False, True]


def test_only_the_chains_that_the_file_names(rules: Any, scripts: Any) -> None:
    """A file may leave other chains of the folder out."""
    rules.write(
        "chains/loud.yaml",
        """
        chain: loud
        on: {messages: [uplink]}
        nodes:
          - {name: shout, send: {to: other}}
        """,
    )
    both = "[{to: out}, {to: other}]"
    tests = """
        tests:
          - name: a
            when: [{message: {device: a, integration: fox, telemetry: {temperature: 1}}}]
            then: {deliveries: """

    (whole,) = run(rules, scripts, f"{tests}{both}}}\n")
    (part,) = run(rules, scripts, f"        chains: [cool]{tests}[{{to: out}}]}}\n")

    assert whole.ok
    assert part.ok


def test_what_does_not_end_fails_its_test(
    rules: Any, scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the limit of steps a test is given up, and says where."""
    monkeypatch.setattr(harness, "STEPS_MAX", 2)

    (said,) = one(rules, scripts, STACK, 'uplink: {bytes: "01"}', "{downlinks: []}")

    assert said.startswith("when[0].uplink: it does not end: ")
    assert "steps_max" in said


def test_only_some(rules: Any, scripts: Any) -> None:
    """Chains may be chosen by name."""
    rules.write("chains/cool_test.yaml", "tests: nonsense")

    assert run_chain_tests(rules.book(), scripts, only=["acme/sensor"]) == []
