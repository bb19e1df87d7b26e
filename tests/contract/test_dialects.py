"""What every dialect must do, whatever network server it speaks with."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.errors import MessageError
from pipeline.integrations.dialect import (
    DeviceTemplate,
    Dialect,
    Options,
    OverMqtt,
    dialects,
    usual_transport,
)
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Call, Request, Response
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link, Uplink
from tests.contract.dialect_ways import DEVICE, EUI, OVER_MQTT, WAYS

DIALECTS = sorted(dialects())
PAYLOAD = b"\x01\x02\x03\x04"
NOW_MS = 1_700_000_000_000
# Where a dialect needs the user's word to name the device of its own sample.
SAMPLE_OPTIONS: dict[str, dict[str, Any]] = {
    "http": {"device_field": "device"},
    "mqtt": {"topic": "sample/{device_id}/{kind}", "downlink_topic": "sample/{device_id}/down"},
    "aws_iot": {"topic": "sample/{device_id}/{kind}"},
    "azure_iot_hub": {"role": "hub"},
}
POSTED = {name for name, dialect in dialects().items() if usual_transport(dialect) == "http"}
FIELDS_AS_PAYLOAD = {"opcua"}  # their messages have no bytes of the device's own
PLAIN = {
    "http",
    "mqtt",
    "aws_iot",
    "azure_iot_hub",
    "watson_iot",
}  # their payload is the whole body; a repeat key is the user's to name
LINK = Link(application_id="app1", device_id=DEVICE)
ONLY_ANSWERED = {"sigfox", "everynet"}  # a device can only be answered
NAMED_BY_EUI = {
    name for name, dialect in dialects().items() if dialect.device_template == "{dev_eui}"
}


def device_of(name: str) -> str:
    return EUI if name in NAMED_BY_EUI else DEVICE


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return dialects()[request.param]


def options_of(dialect: Dialect) -> Options:
    return dialect.options(**SAMPLE_OPTIONS.get(dialect.name, {}))


def read(dialect: Dialect, request: Request) -> list[Uplink]:
    return dialect.read(request, options_of(dialect), dialect.device_template)


def sample(dialect: Dialect, counter: int = 7, now_ms: int = NOW_MS) -> Request:
    return dialect.sample(device_of(dialect.name), counter, PAYLOAD, now_ms)


def downlink(**changes: Any) -> Downlink:
    made = Downlink(id="d1", tenant="t", device=DEVICE, integration="i", state=State.SENDING,
                    requested_ms=1, changed_ms=1, payload=bytes(8))  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def test_name_is_the_file(dialect: Dialect) -> None:
    """`dialect: x` in YAML is `integrations/x.py`, so that a reader finds it."""
    module = importlib.import_module(f"pipeline.integrations.{dialect.name}")

    assert module.DIALECT is dialect
    assert module.__doc__


def test_the_page_has_it(dialect: Dialect) -> None:
    """Whoever chooses a dialect finds it in the docs, with the ways that it comes."""
    page = (Path(__file__).parents[2] / "docs/integrations.md").read_text()
    table = page.partition("## Dialects")[2].partition("\n## ")[0]
    (row,) = [line for line in table.splitlines() if line.startswith(f"| `{dialect.name}` |")]
    over_http, over_mqtt = (cell.strip() for cell in row.split("|")[3:5])

    assert bool(over_mqtt) is isinstance(dialect, OverMqtt)
    assert bool(over_http) is (dialect.name in POSTED)


def test_options_forbid_unknown_keys(dialect: Dialect) -> None:
    """A misspelt option is found when the rules are read; none is required; all are frozen."""
    options = dialect.options()

    assert isinstance(options, Options)
    with pytest.raises(ValidationError, match="Extra inputs"):
        dialect.options.model_validate({"no_such_option": 1})
    for name in dialect.options.model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            options.__setattr__(name, None)


def test_declarations(dialect: Dialect) -> None:
    """What a dialect says of itself makes sense."""
    assert dialect.contract in ("lorawan", "thingsboard")
    assert dialect.repeat_window_s > 0
    assert 0 < dialect.answer_timeout_s <= 60
    assert isinstance(dialect.synchronous, bool)
    assert set(DeviceTemplate.variables(dialect.device_template)) <= set(dialect.device_variables)


def test_sample_reads_back(dialect: Dialect) -> None:
    """A sample is read as one uplink of its device, with its payload."""
    request = sample(dialect)
    (uplink,) = read(dialect, request)

    assert uplink.type == "uplink"
    assert uplink.device is not None
    assert uplink.device.endswith(device_of(dialect.name))
    if dialect.name in FIELDS_AS_PAYLOAD:
        assert orjson.loads(uplink.payload or b"") == uplink.fields
        assert uplink.fields["payload"] == PAYLOAD.hex()
    else:
        assert uplink.payload == (request.body if dialect.name in PLAIN else PAYLOAD)
    assert uplink.link is not None
    assert uplink.link.device_id == device_of(dialect.name)


def test_read_gives_the_same_each_time(dialect: Dialect) -> None:
    """The door and convert read the same from the same bytes."""
    assert read(dialect, sample(dialect)) == read(dialect, sample(dialect))


def test_repeat_keys_tell_messages_apart(dialect: Dialect) -> None:
    """The same request twice has one key; the next message of the device has another."""
    if not read(dialect, sample(dialect))[0].repeat_key:
        assert dialect.name in PLAIN, "only these have a key where the user says which"
        return
    keys = [read(dialect, sample(dialect, n, NOW_MS + n))[0].repeat_key for n in (7, 7, 8)]

    assert keys[0] == keys[1] != keys[2]
    assert len(keys[0]) <= 64


def test_uplinks_can_be_written_as_json(dialect: Dialect) -> None:
    """What is read goes through JSON unharmed: it becomes a record."""
    (uplink,) = read(dialect, sample(dialect))

    assert msgspec.json.decode(msgspec.json.encode(uplink), type=Uplink) == uplink


def test_check_refuses_what_cannot_be_carried(dialect: Dialect) -> None:
    """An endless payload is refused with `payload_length`; a good downlink is not."""
    good = downlink(f_port=10 if dialect.has_f_port else None)
    dialect.check(good)

    with pytest.raises(MessageError) as caught:
        dialect.check(msgspec.structs.replace(good, payload=bytes(2**20)))
    assert caught.value.code == "payload_length"


def test_port_zero_is_refused(dialect: Dialect) -> None:
    """f_port 0 is the network's own; where there are ports, no downlink leaves on it."""
    if not dialect.has_f_port:
        return
    for f_port in (0, None, 256):
        with pytest.raises(MessageError) as caught:
            dialect.check(downlink(f_port=f_port))
        assert caught.value.code == "f_port"


def test_send_needs_a_link(dialect: Dialect) -> None:
    """Without a word of where to send it, a downlink is refused with `no_link`."""
    with pytest.raises(MessageError) as caught:
        dialect.send(downlink(f_port=1), Link(), dialect.options())
    assert caught.value.code == "no_link"


def test_calls_name_their_sender(dialect: Dialect) -> None:
    """A call to a network server has a URL, a body and a User-Agent with the version."""
    if dialect.name in ONLY_ANSWERED or dialect.name not in POSTED:
        return
    options = dialect.options.model_validate(WAYS[dialect.name])
    link = msgspec.structs.replace(LINK, device_id=device_of(dialect.name))
    call = dialect.send(downlink(f_port=1), link, options)

    assert isinstance(call, Call)
    assert call.url.startswith("https://ns.example")
    assert call.headers["user-agent"].startswith("funicular/")
    assert all(header == header.lower() for header in call.headers)
    assert call.body


@pytest.mark.parametrize("name", OVER_MQTT)
def test_a_topic_brings_what_http_brings(name: str) -> None:
    """A sample that is published is read as the one that is posted; its topic is subscribed to."""
    dialect = dialects()[name]
    assert isinstance(dialect, OverMqtt)
    options = options_of(dialect)
    topic = dialect.sample_topic(device_of(name), options)
    posted = sample(dialect)
    brought = dialect.from_topic(topic, posted.body, options)

    assert brought is not None
    (uplink,) = dialect.read(brought, options, dialect.device_template)
    (expected,) = read(dialect, posted)
    assert (uplink.device, uplink.payload) == (expected.device, expected.payload)
    assert uplink.repeat_key == expected.repeat_key
    assert any(matches(topic, each) for each in dialect.topics(options))


@pytest.mark.parametrize("name", OVER_MQTT)
@pytest.mark.parametrize("device_id", ["", "a/b", "+", "#", "a\0b"])
def test_no_devices_name_leads_to_another_topic(name: str, device_id: str) -> None:
    """A device that calls itself by a wildcard or a path gets no downlink, nor does another."""
    dialect = dialects()[name]
    assert isinstance(dialect, OverMqtt)
    link = msgspec.structs.replace(LINK, device_id=device_id)
    with pytest.raises(MessageError) as caught:
        dialect.publication(downlink(f_port=1, device=device_id), link, options_of(dialect))
    assert caught.value.code == "no_link"


def matches(topic: str, filter_: str) -> bool:
    """Return whether a filter of MQTT takes a topic."""
    levels, wanted = topic.split("/"), filter_.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        levels = levels[: len(wanted)]
    pairs = zip(levels, wanted, strict=False)
    return len(levels) == len(wanted) and all(want in ("+", level) for level, want in pairs)


@pytest.mark.parametrize("name", OVER_MQTT)
@settings(max_examples=100, deadline=None)
@given(topic=st.text(max_size=40), body=st.binary(max_size=40))
def test_any_topic_is_read_or_passed_over(name: str, topic: str, body: bytes) -> None:
    """A hostile topic or payload never raises anything but MessageError."""
    dialect = dialects()[name]
    assert isinstance(dialect, OverMqtt)
    brought = dialect.from_topic(topic, body, options_of(dialect))
    if brought is not None:
        refused_or_read(dialect, brought)


@pytest.mark.parametrize("name", OVER_MQTT)
def test_a_publication_is_for_one_device_and_is_not_read_back(name: str) -> None:
    """A downlink goes to a topic without wildcards, which the same subscription passes over."""
    dialect = dialects()[name]
    assert isinstance(dialect, OverMqtt)
    options = options_of(dialect)
    link = msgspec.structs.replace(LINK, device_id=device_of(name))
    made = dialect.publication(downlink(f_port=1), link, options)

    assert made.payload
    assert not set(made.topic) & set("+#{}")
    assert device_of(name) in made.topic
    if name != "mqtt":  # where the topics are the user's, so is that they differ
        assert dialect.from_topic(made.topic, made.payload, options) is None


def test_no_replies_is_an_empty_answer(dialect: Dialect) -> None:
    """Without replies the answer is a 2xx that carries no downlink."""
    for replies in ([], [Reply("r", device=DEVICE)]):
        response = dialect.answer(replies, sample(dialect), options_of(dialect))

        assert isinstance(response, Response)
        assert 200 <= response.status < 300
        assert b"downlink" not in response.body


def refused_or_read(dialect: Dialect, request: Request) -> None:
    """Whatever comes in: uplinks that can be written as JSON, or MessageError; nothing else."""
    refused = None
    uplinks: list[Uplink] = []
    try:
        uplinks = read(dialect, request)
    except MessageError as fault:
        refused = fault
    if refused is not None:
        assert refused.message
        assert refused.code
        assert orjson.dumps(refused.detail)
        return
    assert uplinks
    for uplink in uplinks:
        assert uplink.device is None or uplink.device
        msgspec.json.encode(uplink)


CONTENT_TYPES = st.sampled_from(
    ["", "application/json", "text/plain", "application/octet-stream",
     "application/x-www-form-urlencoded", "Application/JSON; charset=latin1"]
)  # fmt: skip
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=150, deadline=None)
@given(
    body=st.binary(max_size=200),
    content_type=CONTENT_TYPES,
    query=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
)
def test_random_bytes(name: str, body: bytes, content_type: str, query: dict[str, str]) -> None:
    """Random bytes never raise anything but MessageError."""
    refused_or_read(dialects()[name], Request(body, "POST", query, {"content-type": content_type}))


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_samples(name: str, data: st.DataObject) -> None:
    """A sample that is cut off, or has bytes changed, never raises anything but MessageError."""
    request = sample(dialects()[name])
    body = bytearray(request.body)
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    refused_or_read(
        dialects()[name], msgspec.structs.replace(request, body=bytes(body[:cut] or body))
    )


def places(value: Any) -> list[tuple[Any, Any]]:
    found = []
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        found.append((value, key))
        if isinstance(inner, dict | list):
            found += places(inner)
    return found


@pytest.mark.parametrize("name", DIALECTS)
@settings(max_examples=200, deadline=None)
@given(data=st.data(), foreign=JSON_VALUES)
def test_foreign_values(name: str, data: st.DataObject, foreign: Any) -> None:
    """Any JSON value in the place of any other never raises anything but MessageError."""
    request = sample(dialects()[name])
    document = orjson.loads(request.body)
    inside, key = data.draw(st.sampled_from(places(document)))
    inside[key] = foreign
    body = msgspec.json.encode(document)
    refused_or_read(dialects()[name], msgspec.structs.replace(request, body=body))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'{"a":NaN}',
        b"\xff\xfe",
        b'{"a":"\\ud800"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b'{"end_device_ids":{"device_id":"\\u0000"},"uplink_message":{}}',
        b'{"dev_id":"a\\nb","app_id":"x"}',
        b'{"device":"' + b"1" * 100_000 + b'"}',
        b'{"counter":' + b"9" * 5_000 + b"}",
    ],
)
def test_hostile_bodies(dialect: Dialect, body: bytes) -> None:
    """Bodies made to break a reader are refused, or read as what they say."""
    refused_or_read(dialect, Request(body, headers={"content-type": "application/json"}))
