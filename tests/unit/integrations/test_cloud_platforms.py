"""AWS IoT Core, Azure IoT Hub and Watson IoT: their topics → uplinks; downlinks → messages."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from pipeline.errors import MessageError
from pipeline.integrations.aws_iot import DIALECT as AWS
from pipeline.integrations.aws_iot import AwsIotOptions
from pipeline.integrations.azure_iot_hub import DIALECT as AZURE
from pipeline.integrations.azure_iot_hub import AzureIotHubOptions
from pipeline.integrations.watson_iot import DIALECT as WATSON
from pipeline.integrations.watson_iot import WatsonIotOptions
from pipeline.model.downlink import Downlink, State
from pipeline.model.uplink import Link, Uplink


def brought(dialect: Any, options: Any, topic: str, document: Any) -> Uplink:
    """Return what a message says."""
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    request = dialect.from_topic(topic, body, options)
    assert request is not None
    (uplink,) = dialect.read(request, options, dialect.device_template)
    made: Uplink = uplink
    return made


def downlink(**changes: Any) -> Downlink:
    return Downlink(id="l1", tenant="t", device="pump", integration="i", state=State.SENDING,
                    requested_ms=1, changed_ms=1, **changes)  # fmt: skip


def shadow(version: int = 5, token: str = "", **state: Any) -> dict[str, Any]:
    before = {"reported": {"speed": 1, "old": True}}
    document = {
        "previous": {"state": before, "version": version - 1},
        "current": {"state": state, "version": version},
        "timestamp": 1_790_000_000,
    }
    return document | ({"clientToken": token} if token else {})


SHADOW = "$aws/things/pump/shadow/update"


def test_a_shadows_reported_state_is_attributes() -> None:
    """All that is reported; what is gone is null; `desired` and the version are metadata."""
    document = shadow(reported={"speed": 2, "on": True}, desired={"speed": 3})
    uplink = brought(AWS, AwsIotOptions(), f"{SHADOW}/documents", document)

    assert (uplink.device, uplink.type, uplink.fields) == ("pump", "status", None)
    assert uplink.attributes == {"speed": 2, "on": True, "old": None}
    assert uplink.metadata == {"shadow": "", "version": 5, "desired": {"speed": 3}}
    assert uplink.time_ms == 1_790_000_000_000
    assert uplink.reports == ()
    next_one = shadow(6, reported={"speed": 2})
    following = brought(AWS, AwsIotOptions(), f"{SHADOW}/documents", next_one)
    assert following.repeat_key != uplink.repeat_key


def test_a_named_shadow_is_one_attribute() -> None:
    """Two shadows of a thing do not overwrite each other's keys."""
    topic = "$aws/things/pump/shadow/name/config/update/documents"
    uplink = brought(AWS, AwsIotOptions(), topic, shadow(reported={"speed": 2}))

    assert uplink.attributes == {"config": {"speed": 2}}


def test_a_first_shadow_has_nothing_before() -> None:
    """A document without a previous state is taken."""
    document = {"previous": None, "current": {"state": {"reported": {"a": 1}}, "version": 1}}
    uplink = brought(AWS, AwsIotOptions(), f"{SHADOW}/documents", document)
    assert uplink.attributes == {"a": 1}


def test_aws_says_what_became_of_our_update() -> None:
    """By the token that the downlink had; others' tokens say nothing of ours."""
    made = AWS.publication(downlink(fields={"speed": 3}), Link(), AwsIotOptions())
    document = orjson.loads(made.payload)
    assert made.topic == SHADOW
    assert document["state"] == {"desired": {"speed": 3}}
    token = document["clientToken"]

    told = shadow(token=token, desired={"speed": 3})
    accepted = brought(AWS, AwsIotOptions(), f"{SHADOW}/documents", told)
    (report,) = accepted.reports
    assert (report.state, report.downlink_id) == (State.ACCEPTED, "l1")
    refusal = {"code": 413, "message": "too large", "timestamp": 1, "clientToken": token}
    rejected = brought(AWS, AwsIotOptions(), f"{SHADOW}/rejected", refusal)
    (report,) = rejected.reports
    assert (report.state, report.downlink_id) == (State.FAILED, "l1")
    assert rejected.fields == {"code": 413, "message": "too large"}
    theirs = brought(AWS, AwsIotOptions(), f"{SHADOW}/documents", shadow(token="app-1"))
    assert theirs.reports == ()


def test_where_an_aws_downlink_goes() -> None:
    """To a named shadow, or to a topic; bytes stand under `payload`, a JSON object as it is."""
    named = AwsIotOptions(shadow="config")
    made = AWS.publication(downlink(payload=b"\xff"), Link(device_id="p2"), named)
    assert made.topic == "$aws/things/p2/shadow/name/config/update"
    assert orjson.loads(made.payload)["state"] == {"desired": {"payload": "/w=="}}
    made = AWS.publication(downlink(payload=b'{"on":1}'), Link(), named)
    assert orjson.loads(made.payload)["state"] == {"desired": {"on": 1}}
    topic = AwsIotOptions(downlinks="topic", downlink_topic="cmd/{device_id}")
    assert AWS.publication(downlink(payload=b"x"), Link(), topic).topic == "cmd/pump"


def test_aws_telemetry_and_presence() -> None:
    """The template's topics are read as MQTT's; who comes and goes is a status."""
    options = AwsIotOptions(presence=True)
    uplink = brought(AWS, options, "dt/plant/pump/telemetry", {"t": 1})
    assert (uplink.device, uplink.fields) == ("pump", {"t": 1})
    assert uplink.metadata["application"] == "plant"
    gone = {"clientId": "pump", "timestamp": 1_790_000_000_123, "eventType": "disconnected",
            "disconnectReason": "CONNECTION_LOST"}  # fmt: skip
    status = brought(AWS, options, "$aws/events/presence/disconnected/pump", gone)
    assert status.fields == {"connected": False, "disconnect_reason": "CONNECTION_LOST"}
    assert (status.type, status.time_ms) == ("status", 1_790_000_000_123)
    assert AWS.from_topic("$aws/rules/x", b"", options) is None
    assert len(AWS.topics(options)) == 7
    assert AWS.topics(AwsIotOptions(topic="", shadows=False)) == ()


@pytest.mark.parametrize("document", [[], {}, {"current": 1}, {"current": {"state": 1}}, b"{",
                                      {"current": {"state": {"reported": [1]}}}])  # fmt: skip
def test_what_is_no_shadow_is_refused(document: Any) -> None:
    """A document of another shape is a bad message, not a fault of ours."""
    if document == {}:
        document = {"previous": {}}
    with pytest.raises(MessageError):
        brought(AWS, AwsIotOptions(), f"{SHADOW}/documents", document)


def test_aws_names_that_have_a_meaning() -> None:
    """A template cannot make a message look like one of AWS's own."""
    with pytest.raises(ValidationError, match="a meaning of its own"):
        AwsIotOptions(topic="dt/{device_id}/{shadow}")


def test_azure_as_a_device() -> None:
    """Messages to us, their device by the property that the user names; the twin's wishes."""
    options = AzureIotHubOptions(device_id="gate", device_property="leaf")
    bag = "%24.mid=m-1&%24.ct=application%2Fjson&leaf=pump&note=a+b%26c"
    uplink = brought(AZURE, options, f"devices/gate/messages/devicebound/{bag}", {"t": 1})

    assert (uplink.device, uplink.fields) == ("pump", {"t": 1})
    assert uplink.metadata["properties"] == {"leaf": "pump", "note": "a+b&c"}
    assert uplink.metadata["system"] == {"mid": "m-1", "ct": "application/json"}
    assert uplink.repeat_key
    desired = {"interval": 60, "$version": 4, "$metadata": {}}
    twin = brought(AZURE, options, "$iothub/twin/PATCH/properties/desired/?$version=4", desired)
    assert (twin.device, twin.type, twin.attributes) == ("gate", "status", {"interval": 60})
    assert AZURE.from_topic("devices/gate/messages/events/", b"", options) is None
    assert AZURE.topics(AzureIotHubOptions()) == ()


def test_azure_as_a_module() -> None:
    """Of an IoT Edge module's inputs the hub says whose message it is."""
    options = AzureIotHubOptions(role="module", device_id="edge", module_id="funicular")
    topic = "devices/edge/modules/funicular/inputs/raw/%24.cdid=leaf7&x=1"
    uplink = brought(AZURE, options, topic, b"\x01")

    assert (uplink.device, uplink.payload) == ("leaf7", b"\x01")
    assert uplink.metadata["input"] == "raw"
    made = AZURE.publication(downlink(fields={"on": 1}), Link(), options)
    assert made.topic.startswith("devices/edge/modules/funicular/messages/events/")
    assert "deviceId=pump" in made.topic
    assert "%24.on=downlinks" in made.topic


def test_azure_in_the_hubs_place() -> None:
    """Who publishes is its device, whatever its properties say; downlinks go to it."""
    options = AzureIotHubOptions(role="hub", device_property="leaf")
    uplink = brought(AZURE, options, "devices/pump/messages/events/leaf=other", {"t": 1})
    assert uplink.device == "pump"
    made = AZURE.publication(downlink(payload=b"\x01"), Link(), options)
    assert made.topic.startswith("devices/pump/messages/devicebound/%24.mid=l1")
    assert made.payload == b"\x01"


def test_azure_reported_properties() -> None:
    """A downlink of fields may be what our twin reports; bytes cannot."""
    options = AzureIotHubOptions(device_id="gate", downlinks="reported")
    made = AZURE.publication(downlink(fields={"on": True}), Link(), options)
    assert made.topic == "$iothub/twin/PATCH/properties/reported/?$rid=l1"
    assert orjson.loads(made.payload) == {"on": True}
    with pytest.raises(MessageError, match="need fields"):
        AZURE.publication(downlink(payload=b"x"), Link(), options)


@pytest.mark.parametrize(
    "given",
    [
        {"module_id": "m"},
        {"role": "module", "device_id": "d"},
        {"role": "hub", "downlinks": "reported"},
        {"device_id": "a/b"},
    ],
)
def test_azure_options_that_cannot_be(given: dict[str, Any]) -> None:
    """What does not go together is said when the rules are read."""
    with pytest.raises(ValidationError):
        AzureIotHubOptions.model_validate(given)


def test_too_many_properties_are_refused() -> None:
    """A topic of endless properties is a bad message."""
    options = AzureIotHubOptions(role="hub")
    with pytest.raises(MessageError, match="more than 100 properties"):
        brought(AZURE, options, "devices/d/messages/events/" + "a=1&" * 200, b"")


def test_watson_events_and_status() -> None:
    """Events with or without IBM's envelope, bytes, and who connects."""
    options = WatsonIotOptions()
    topic = "iot-2/type/pumps/id/p1/evt/flow/fmt/"
    plain = brought(WATSON, options, topic + "json", {"t": 1})
    assert (plain.device, plain.fields) == ("pumps:p1", {"t": 1})
    assert plain.metadata == {"device_type": "pumps", "event": "flow", "format": "json"}
    wrapped = {"d": {"t": 2}, "ts": "2026-01-02T03:04:05.000Z"}
    enveloped = brought(WATSON, options, topic + "json", wrapped)
    assert (enveloped.fields, enveloped.time_ms) == ({"t": 2}, 1_767_323_045_000)
    raw = brought(WATSON, options, topic + "bin", b"\x01\x02")
    assert (raw.payload, raw.fields) == (b"\x01\x02", None)
    gone = {"Action": "Disconnect", "Time": "2026-01-02T03:04:05Z", "Reason": "timed out",
            "ClientAddr": "10.0.0.1"}  # fmt: skip
    status = brought(WATSON, options, "iot-2/type/pumps/id/p1/mon", gone)
    assert (status.type, status.fields) == ("status", {"connected": False, "reason": "timed out"})
    assert WATSON.topics(WatsonIotOptions(device_type="pumps", status=False)) == (
        "iot-2/type/pumps/id/+/evt/+/fmt/+",
    )


def test_watson_commands() -> None:
    """Fields go as JSON, bytes as they are, to the device of the link's type."""
    options = WatsonIotOptions(command="set")
    link = Link(application_id="pumps", device_id="p1")
    made = WATSON.publication(downlink(fields={"on": 1}), link, options)
    assert made.topic == "iot-2/type/pumps/id/p1/cmd/set/fmt/json"
    made = WATSON.publication(downlink(payload=b"\x01"), link, options)
    assert (made.topic.rsplit("/", 1)[1], made.payload) == ("bin", b"\x01")
    with pytest.raises(MessageError):
        WATSON.publication(downlink(payload=b"\x01"), Link(device_id="p1"), options)


def test_what_platforms_say_becomes_events() -> None:
    """A shadow, a twin, who comes and goes: convert makes an event of each, without a converter."""
    from types import SimpleNamespace

    from pipeline.convert.decode import readings_of

    platform: Any = SimpleNamespace(dialect=AWS)
    told = brought(AWS, AwsIotOptions(), f"{SHADOW}/documents", shadow(reported={"on": True}))
    (reading,) = readings_of(told, platform, None, None, 1)
    assert (reading.device, reading.telemetry) == ("pump", {})
    gone = brought(WATSON, WatsonIotOptions(), "iot-2/type/t/id/p1/mon", {"Action": "Connect"})
    (reading,) = readings_of(gone, platform, None, None, 1)
    assert (reading.device, reading.telemetry) == ("t:p1", {"connected": True})
