"""MQTT's side of the dialects: plain topics, TTN v2's Data API, The Things Stack's topics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from pipeline.errors import MessageError
from pipeline.integrations.mqtt import DIALECT as PLAIN
from pipeline.integrations.mqtt import MqttOptions
from pipeline.integrations.ttn_v2 import DIALECT as TTN_V2
from pipeline.integrations.ttn_v2 import TtnV2Options
from pipeline.integrations.tts_v3 import DIALECT as TTS_V3
from pipeline.integrations.tts_v3 import TtsV3Options
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Request
from pipeline.model.uplink import Link, Uplink


def plain(topic: str, body: bytes, /, **options: Any) -> Uplink | None:
    chosen = MqttOptions.model_validate(options)
    request = PLAIN.from_topic(topic, body, chosen)
    if request is None:
        return None
    (uplink,) = PLAIN.read(request, chosen, "{device_id}")
    return uplink


def test_the_template_reads_the_topic() -> None:
    """The device is its level of the topic; the other names are metadata."""
    template = "factory/{line}/{device_id}/{kind}/#"
    uplink = plain("factory/3/press-1/up/a/b", b'{"t": 21.5}', topic=template)

    assert uplink is not None
    assert (uplink.device, uplink.type, uplink.fields) == ("press-1", "uplink", {"t": 21.5})
    assert uplink.payload == b'{"t": 21.5}'
    assert uplink.metadata == {"topic": "factory/3/press-1/up/a/b", "line": "3", "kind": "up"}
    assert plain("factory/3/press-1/up", b"{}", topic=template) is not None


@pytest.mark.parametrize(
    "topic", ["factory/3", "factory/3/press-1", "other/3/press-1/up", "factory/3/press-1/up/x"]
)
def test_other_topics_are_passed_over(topic: str) -> None:
    """What is not of the template is none of the integration's."""
    assert plain(topic, b"{}", topic="factory/{line}/{device_id}/{kind}") is None


def test_a_kind_says_what_a_message_is() -> None:
    """`kinds` makes of a topic's kind a message type, or leaves it out."""
    kinds = {"state": "status", "log": "ignore"}
    state = plain("d1/state", b"{}", topic="{device_id}/{kind}", kinds=kinds)
    assert state is not None
    assert state.type == "status"
    assert plain("d1/log", b"{}", topic="{device_id}/{kind}", kinds=kinds) is None
    other = plain("d1/x", b"\x00\x01", topic="{device_id}/{kind}", kinds=kinds)
    assert other is not None
    assert (other.type, other.payload, other.fields) == ("uplink", b"\x00\x01", None)


def test_without_a_template_a_field_names_the_device() -> None:
    """Topics that say nothing leave it to the payload, or to the converter."""
    named = plain("any/topic", b'{"id":"d1"}', device_field="id")
    assert named is not None
    assert named.device == "d1"
    assert PLAIN.topics(MqttOptions()) == ()
    unnamed = plain("any/topic", b"{}")
    assert unnamed is not None
    assert unnamed.device is None


def test_a_plain_downlink(downlink: Callable[..., Downlink]) -> None:
    """It is published where the option says: as JSON with its id, or as bytes alone."""
    given: dict[str, Any] = {"topic": "{device_id}/up", "downlink_topic": "{device_id}/set"}
    asked = downlink(fields={"on": True}, payload=None, f_port=None)
    made = PLAIN.publication(asked, Link(device_id="d1"), MqttOptions.model_validate(given))
    assert made.topic == "d1/set"
    assert orjson.loads(made.payload)["fields"] == {"on": True}
    given["downlink_format"] = "binary"
    binary = PLAIN.publication(downlink(), Link(device_id="d1"), MqttOptions.model_validate(given))
    assert binary.payload == b"\xbe\xef"


@pytest.mark.parametrize(
    "options",
    [
        {"topic": "a/{x"},
        {"topic": "a/b{x}"},
        {"topic": "#/a"},
        {"topic": "+/a"},
        {"topic": "{a}/{a}"},
        {"topic": "{topic}"},
        {"downlink_topic": "a/+"},
        {"downlink_topic": "a/{other}"},
        {"downlink_url": "https://x.example"},
        {"kinds": {"a": "nonsense"}},
    ],
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    """A template with a brace or a wildcard astray is found by `check`."""
    with pytest.raises(ValidationError):
        MqttOptions.model_validate(options)


def ttn_event(event: str, document: Any) -> Uplink:
    topic = f"app1/devices/dev1/events/{event}"
    request = TTN_V2.from_topic(topic, orjson.dumps(document), TtnV2Options())
    assert request is not None
    (uplink,) = TTN_V2.read(request, TtnV2Options(), "{application_id}:{device_id}")
    return uplink


def test_an_activation_of_v2_is_a_join() -> None:
    """Its ids and its metadata are found; its time tells it from the next one."""
    said = {"app_eui": "70B3D57EF0000001", "dev_eui": "0004a30b001c0530", "dev_addr": "26012345",
            "metadata": {"time": "2020-02-12T15:15:46Z", "frequency": 868.1}}  # fmt: skip
    uplink = ttn_event("activations", said)

    assert (uplink.device, uplink.type, uplink.dev_eui) == ("app1:dev1", "join", "0004A30B001C0530")
    assert uplink.time_ms == 1_581_520_546_000
    assert uplink.metadata["dev_addr"] == "26012345"
    assert uplink.metadata["frequency"] == 868.1
    assert uplink.repeat_key.startswith("join:")


@pytest.mark.parametrize(
    ("event", "document", "state", "reason"),
    [
        ("down/scheduled", None, State.ACCEPTED, ""),
        ("down/scheduled", {"message": {}}, State.ACCEPTED, ""),
        ("down/sent", {"payload": "AA=="}, State.ACCEPTED, ""),
        ("down/acks", None, State.ACKNOWLEDGED, ""),
        ("down/acks", {}, State.ACKNOWLEDGED, ""),
        ("down/errors", {"error": "no session"}, State.FAILED, "network_server"),
    ],
)
def test_what_became_of_a_downlink_of_v2(
    event: str, document: Any, state: State, reason: str
) -> None:
    """v2 gives no id: the report is of the last one that was sent."""
    (report,) = ttn_event(event, document).reports

    assert (report.state, report.reason) == (state, reason)
    assert (report.downlink_id, report.reference) == ("", "")


def test_events_of_v2_without_a_body() -> None:
    """v2 publishes `null` with an event that says nothing more; no bytes at all mean the same."""
    request = TTN_V2.from_topic("app1/devices/dev1/events/down/acks", b"", TtnV2Options())
    assert request is not None

    (uplink,) = TTN_V2.read(request, TtnV2Options(), "{application_id}:{device_id}")

    assert [report.state for report in uplink.reports] == [State.ACKNOWLEDGED]
    assert (uplink.device, uplink.type) == ("app1:dev1", None)


def test_what_v2_says_of_a_transmission() -> None:
    """Gateway and radio settings stand with the downlink; what is no text or number does not."""
    (report,) = ttn_event(
        "down/sent",
        {"payload": "YAA=", "gateway_id": "some-gateway",
         "config": {"modulation": "LORA", "data_rate": "SF7BW125", "counter": 123,
                    "frequency": 868300000, "power": [14]}},
    ).reports  # fmt: skip

    assert report.detail == {
        "event": "down/sent",
        "transmitted": True,
        "gateway_id": "some-gateway",
        "modulation": "LORA",
        "data_rate": "SF7BW125",
        "counter": 123,
        "frequency": 868300000,
    }


@pytest.mark.parametrize("body", [b"[]", b"1", b"{", b'"null"'])
def test_event_of_v2_that_is_no_object(body: bytes) -> None:
    """Garbage on an event's topic is refused, and becomes a dead letter."""
    request = TTN_V2.from_topic("app1/devices/dev1/events/down/acks", body, TtnV2Options())
    assert request is not None
    with pytest.raises(MessageError):
        TTN_V2.read(request, TtnV2Options(), "{device_id}")


def test_an_error_of_v2_is_news_of_the_device() -> None:
    """What v2 could not do with an uplink is told as it told it."""
    uplink = ttn_event("up/errors", {"error": "decoder failed"})

    assert uplink.fields == {"event": "up/errors", "error": "decoder failed"}
    assert uplink.metadata["service"] == "errors"


@pytest.mark.parametrize(
    "topic",
    ["app1/devices/dev1/up/temperature", "app1/devices/dev1/down",
     "app1/devices/dev1/events/create", "app1/events", ""],
)  # fmt: skip
def test_topics_of_v2_that_tell_nothing(topic: str) -> None:
    """Single fields, downlinks and the registry's own events are passed over."""
    assert TTN_V2.from_topic(topic, b"{}", TtnV2Options()) is None


def test_a_posted_event_that_v2_does_not_have_is_refused() -> None:
    """`?event=x` on the HTTP integration is no uplink and no event."""
    with pytest.raises(MessageError):
        TTN_V2.read(Request(b"{}", query={"event": "x"}), TtnV2Options(), "{device_id}")


def test_v2s_downlink(downlink: Callable[..., Downlink]) -> None:
    """`schedule` is the queue's mode, as over HTTP."""
    link = Link(application_id="app1", device_id="dev1")
    made = TTN_V2.publication(downlink(queue="first"), link, TtnV2Options())

    assert made.topic == "app1/devices/dev1/down"
    assert orjson.loads(made.payload) == {
        "port": 15,
        "confirmed": False,
        "schedule": "first",
        "payload_raw": "vu8=",
    }


def test_the_things_stacks_topics(downlink: Callable[..., Downlink]) -> None:
    """With a tenant, topics name it; a replace goes to `down/replace`."""
    options = TtsV3Options(tenant_id="ttn", application_id="app1")
    link = Link(application_id="app1", device_id="dev1")

    assert TTS_V3.topics(options) == ("v3/app1@ttn/devices/+/#",)
    assert TTS_V3.topics(TtsV3Options()) == ("v3/+/devices/+/#",)
    pushed = TTS_V3.publication(downlink(), link, options)
    assert pushed.topic == "v3/app1@ttn/devices/dev1/down/push"
    (message,) = orjson.loads(pushed.payload)["downlinks"]
    assert message["correlation_ids"][0] == "funicular:0197.d1"
    replaced = TTS_V3.publication(downlink(queue="replace"), link, options)
    assert replaced.topic == "v3/app1@ttn/devices/dev1/down/replace"
    assert TTS_V3.from_topic(replaced.topic, b"{}", options) is None
    assert TTS_V3.from_topic("v3/app1@ttn/devices/dev1/down/sent", b"{}", options) is not None
