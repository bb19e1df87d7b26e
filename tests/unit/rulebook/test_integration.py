from __future__ import annotations

from typing import Any

import pytest

from pipeline.rulebook.book import Authentication

FULL = """\
dialect: tts_v3
authentication: {header: X-Api-Key, value: s3cret}
converter: acme/thermostat
device: "{device_id}"
device_type: thermostat
synchronous: false
answer_timeout: 2500ms
unanswered: fail
queue_max: 7
body_bytes_max: 1000
ordered: false
metadata: {site: A, floor: 3}
options: {server: "https://tts.example", api_key: NNSXS.1}
"""


def test_all_keys_are_carried_over(rules: Any) -> None:
    """Each key of the YAML ends in its field."""
    rules.write("integrations/a.yaml", FULL)
    rules.write("converters/acme/thermostat.yaml", "uplinkDecoder: {fileName: a.js}\n")
    rules.write("converters/acme/a.js", "function decodeUplink(input) {}\n")
    made = rules.load().integrations["a"]

    assert (made.tenant, made.name, made.dialect.name) == ("default", "a", "tts_v3")
    assert made.authentication == Authentication("header", "x-api-key", "s3cret")
    assert (made.converter, made.device_template) == ("acme/thermostat", "{device_id}")
    assert (made.device_type, made.synchronous, made.answer_timeout_s) == ("thermostat", False, 2.5)
    assert (made.unanswered, made.queue_max, made.body_bytes_max) == ("fail", 7, 1000)
    assert (made.ordered, made.metadata) == (False, {"site": "A", "floor": 3})
    assert made.options.server == "https://tts.example"
    assert made.options.api_key.get_secret_value() == "NNSXS.1"


def test_what_is_left_out_has_the_dialects_defaults(rules: Any) -> None:
    """Only the dialect and the authentication must be said."""
    rules.write("integrations/s.yaml", "dialect: sigfox\nauthentication: open\n")
    made = rules.load().integrations["s"]

    assert made.authentication == Authentication("open")
    assert (made.converter, made.device_template) == (None, "{device_id}")
    assert (made.device_type, made.synchronous, made.answer_timeout_s) == ("", True, 9.0)
    assert (made.unanswered, made.queue_max, made.body_bytes_max) == ("requeue", 100, 1_048_576)
    assert (made.ordered, made.metadata, made.allow_new_devices) == (True, {}, True)


def test_the_folders_defaults_stand_between(rules: Any) -> None:
    """`defaults` of funicular.yaml hold where an integration says nothing; metadata add up."""
    rules.write(
        "funicular.yaml",
        "tenant: shop\ndefaults: {queue_max: 3, unanswered: fail, metadata: {a: 1, b: 1}}\n",
    )
    rules.write(
        "integrations/s.yaml",
        "dialect: sigfox\nauthentication: open\nunanswered: requeue\nmetadata: {b: 2}\n",
    )
    made = rules.load().integrations["s"]

    assert (made.tenant, made.queue_max, made.unanswered) == ("shop", 3, "requeue")
    assert made.metadata == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("open", Authentication("open")),
        ("{bearer: s3cret}", Authentication("bearer", "", "s3cret")),
        ("{query: Key, value: s3cret}", Authentication("query", "Key", "s3cret")),
        ("{header: X-Key, value: s3cret}", Authentication("header", "x-key", "s3cret")),
        ("{basic: {user: ann, password: p:w}}", Authentication("basic", "ann", "p:w")),
    ],
)
def test_every_kind_of_authentication(rules: Any, written: str, expected: Authentication) -> None:
    """Header names are compared in lower case; the rest is as it was written."""
    rules.write("integrations/a.yaml", f"dialect: ttn_v2\nauthentication: {written}\n")

    assert rules.load().integrations["a"].authentication == expected


def test_secrets_are_in_no_repr(rules: Any) -> None:
    """Neither an integration nor a rulebook shows what it compares with or sends."""
    rules.env["TOP"] = "s3cret-top"
    rules.write(
        "integrations/a.yaml",
        "dialect: tts_v3\nauthentication: {bearer: '${env:TOP}'}\noptions: {api_key: s3cret-api}\n",
    )

    assert "s3cret" not in repr(rules.load())


AUTHENTICATION = (
    "must be `open`, or one of `{header: …, value: …}`, `{bearer: …}`, "
    "`{basic: {user: …, password: …}}`, `{query: …, value: …}`"
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("dialekt: x", "1:1: unknown key `dialekt` (did you mean `dialect`?)"),
        (
            "dialect: ttn_v3",
            "1:10: there is no dialect `ttn_v3` (did you mean `tts_v3`?)",
        ),
        (
            "dialect: chirpstack",
            "1:10: there is no dialect `chirpstack` (there are `sigfox`, `ttn_v2`, `tts_v3`)",
        ),
        ("dialect: 5", "1:10: must be text (put it in quotes)"),
        ("authentication: closed", f"1:17: {AUTHENTICATION}"),
        ("authentication: {bearer: x, query: y}", f"1:1: {AUTHENTICATION}"),
        ("authentication: {}", f"1:1: {AUTHENTICATION}"),
        ("authentication: {header: X-Key}", "1:1: `value` is missing"),
        (
            "authentication: {header: X-Key, valeu: x, value: y}",
            "1:33: unknown key `valeu` (did you mean `value`?)",
        ),
        ("authentication: {bearer: 5}", "1:26: must be text (put it in quotes)"),
        ("authentication: {bearer: ''}", "1:27: must not be empty"),
        (
            "authentication: {basic: {user: x, pasword: y, password: z}}",
            "1:35: unknown key `pasword` (did you mean `password`?)",
        ),
        ("authentication: {basic: {user: x}}", "1:18: `password` is missing"),
        ("converter: acme/x", "1:12: there is no converter `acme/x`"),
        ("synchronous: true", "1:14: ttn_v2 cannot carry a downlink in its answer (leave"),
        ("synchronous: perhaps", "1:14: must be `true` or `false`"),
        ("answer_timeout: soon", "1:17: must be a duration like `10s`, `5m`, `6h`, `7d`, or a"),
        ("answer_timeout: 0s", "1:17: must be greater than 0"),
        ("answer_timeout: 1h", "1:17: must be at most 300"),
        ("unanswered: requeu", "1:13: must be one of `requeue`, `fail` (did you mean `requeue`?)"),
        ("queue_max: 0", "1:12: must be at least 1"),
        ("queue_max: true", "1:12: must be a whole number"),
        ("queue_max: 1.5", "1:12: must be a whole number"),
        ("body_bytes_max: 99999999999", "1:17: must be at most 16,777,216"),
        ("metadata: [1]", "1:1: must be a mapping (`key: value`)"),
        ("options: 5", "1:10: must be a mapping (`key: value`)"),
        ("options: {servr: x}", "1:11: unknown key `servr` (did you mean `server`?)"),
        ("options: {server: 5}", "1:19: must be text (put it in quotes)"),
        (
            "device: '{application_id}:{dev_id}'",
            "1:27: ttn_v2 knows no `{dev_id}` of a device (did you mean `{device_id}`?)",
        ),
        (
            "device: '{zzz}'",
            (
                "1:10: ttn_v2 knows no `{zzz}` of a device"
                " (ttn_v2 has `{application_id}`, `{device_id}`, `{dev_eui}`)"
            ),
        ),
        (
            "device: all",
            (
                "1:9: names no variable, so that all devices would be one"
                " (ttn_v2 has `{application_id}`, `{device_id}`, `{dev_eui}`)"
            ),
        ),
        ("device: '{device_id}}'", "1:10: a brace without its partner"),
        ("device: 5", "1:9: must be text (put it in quotes)"),
    ],
)
def test_each_fault_has_its_place_and_words(rules: Any, lines: str, expected: str) -> None:
    """One wrong line gives one fault, at the key or value, in plain words."""
    assert rules.integration(lines).startswith(expected)


def test_missing_authentication_says_how_to_mean_it(rules: Any) -> None:
    """An open door must be wished for."""
    rules.write("integrations/a.yaml", "# nothing else\ndialect: ttn_v2\n")

    assert rules.faults() == [
        (
            "integrations/a.yaml:2:1: `authentication` is missing"
            " (write `authentication: open` if anyone may send)"
        )
    ]


def test_an_empty_integration_lacks_both(rules: Any) -> None:
    """An empty file is told what it needs."""
    rules.write("integrations/a.yaml", "")

    assert rules.faults() == [
        (
            "integrations/a.yaml:1:1: `authentication` is missing"
            " (write `authentication: open` if anyone may send)"
        ),
        "integrations/a.yaml:1:1: `dialect` is missing (the network server's way of speaking)",
    ]


def test_a_list_is_no_integration(rules: Any) -> None:
    """The file must hold a mapping."""
    rules.write("integrations/a.yaml", "- dialect: ttn_v2\n")

    assert rules.faults() == ["integrations/a.yaml:1:1: must be a mapping (`key: value`)"]
