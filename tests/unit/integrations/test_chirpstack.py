"""ChirpStack v4: its documented events, field by field, and its downlinks, over HTTP and MQTT."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
import pytest
from pydantic import ValidationError

from pipeline.errors import MessageError
from pipeline.integrations.chirpstack import DIALECT, ChirpStackOptions
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Request
from pipeline.model.uplink import Link, Report, Uplink

INFO: dict[str, Any] = {
    "tenantId": "52f14cd4",
    "tenantName": "ChirpStack",
    "applicationId": "17c82e96",
    "applicationName": "Test application",
    "deviceProfileId": "14855bf7",
    "deviceProfileName": "Test device-profile",
    "deviceName": "Test device",
    "devEui": "0101010101010101",
    "deviceClassEnabled": "CLASS_A",
    "tags": {"key": "value"},
}
RX = {
    "gatewayId": "0016c001f153a14c",
    "uplinkId": 4217106255,
    "rssi": -36,
    "snr": 10.5,
    "context": "E3OWOQ==",
    "metadata": {"region_name": "eu868"},
}
TX = {
    "frequency": 867100000,
    "modulation": {"lora": {"bandwidth": 125000, "spreadingFactor": 11, "codeRate": "CR_4_5"}},
}
TIME = "2022-07-18T09:34:15.775023242+00:00"
TIME_MS = 1_658_136_855_775
UP: dict[str, Any] = {
    "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
    "time": TIME,
    "deviceInfo": INFO,
    "devAddr": "00189440",
    "adr": True,
    "dr": 1,
    "fCnt": 4,
    "fPort": 1,
    "confirmed": True,
    "data": "qg==",
    "object": {"temperature": 21.5},
    "rxInfo": [RX],
    "txInfo": TX,
    "regionConfigId": "eu868",
    "joinServerContext": {"sessionKeyId": "secret"},
}
LINK = Link(application_id="17c82e96", device_id="0101010101010101", dev_eui="0101010101010101")
ITEM = "5c3d1a3b-8d5b-4c5e-9a3e-2f3d4c5b6a70"
API = ChirpStackOptions.model_validate({"server": "https://cs.example/", "api_key": "k3y"})


def read(kind: str, document: Any, template: str = "{dev_eui}", **more: Any) -> Uplink:
    request = Request(body=orjson.dumps(document), query={"event": kind}, **more)
    (uplink,) = DIALECT.read(request, ChirpStackOptions(), template)
    return uplink


def event(**more: Any) -> dict[str, Any]:
    return {"deduplicationId": "dd-1", "time": TIME, "deviceInfo": INFO, **more}


def test_every_field_of_an_uplink_lands_somewhere() -> None:
    """Each field of the documented uplink is found in the Uplink; the session's key is not."""
    uplink = read("up", UP)

    assert uplink.device == "0101010101010101"
    assert (uplink.type, uplink.time_ms) == ("uplink", TIME_MS)
    assert (uplink.payload, uplink.fields) == (b"\xaa", {"temperature": 21.5})
    assert (uplink.f_port, uplink.f_cnt, uplink.confirmed) == (1, 4, True)
    assert uplink.dev_eui == "0101010101010101"
    assert uplink.link == LINK
    assert uplink.repeat_key == "3ac7e3c4-4401-4b8d-9386-a5c902f9202d"
    assert uplink.metadata == {
        "device_id": "0101010101010101",
        "device_name": "Test device",
        "application_id": "17c82e96",
        "application_name": "Test application",
        "tenant_id": "52f14cd4",
        "tenant_name": "ChirpStack",
        "device_profile_id": "14855bf7",
        "device_profile_name": "Test device-profile",
        "device_class_enabled": "CLASS_A",
        "tags": {"key": "value"},
        "deduplication_id": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
        "dev_addr": "00189440",
        "region_config_id": "eu868",
        "adr": True,
        "dr": 1,
        "frequency": 867100000,
        "bandwidth": 125000,
        "spreading_factor": 11,
        "coding_rate": "4/5",
        "tx_info": TX,
        "rx_info": [RX],
        "gateway_count": 1,
        "rssi": -36,
        "snr": 10.5,
    }


def test_absent_fields_are_zero() -> None:
    """Versions before 4.1 leave zero fields out: port and counter are 0 then, the bytes empty."""
    uplink = read("up", event())

    assert (uplink.payload, uplink.fields) == (b"", None)
    assert (uplink.f_port, uplink.f_cnt, uplink.confirmed) == (0, 0, False)


def test_the_template_names_the_device() -> None:
    """A device may be named by what ChirpStack says of it; an EUI is lower case."""
    upper = copy.deepcopy(UP)
    upper["deviceInfo"]["devEui"] = "0A0B0C0D0E0F0102"

    assert read("up", upper).device == "0a0b0c0d0e0f0102"
    assert read("up", UP, "{application_id}/{device_name}").device == "17c82e96/Test device"


def test_join() -> None:
    """A join is a message of the device, without bytes."""
    uplink = read("join", event(devAddr="00189440"))

    assert (uplink.type, uplink.payload, uplink.repeat_key) == ("join", None, "join:dd-1")
    assert uplink.metadata["dev_addr"] == "00189440"


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        (
            {"margin": 10, "externalPowerSource": False, "batteryLevel": 75.5},
            {"margin": 10, "external_power_source": False, "battery_level": 75.5},
        ),
        (
            {"margin": 10, "batteryLevelUnavailable": True, "batteryLevel": 0},
            {"margin": 10, "external_power_source": False},
        ),
        ({"externalPowerSource": True}, {"margin": 0, "external_power_source": True}),
    ],
)
def test_status(said: dict[str, Any], fields: dict[str, Any]) -> None:
    """A battery's level is told only where the device knows it."""
    uplink = read("status", event(**said))

    assert (uplink.type, uplink.fields) == ("status", fields)


def test_location() -> None:
    """A resolved location is a message with the location's fields."""
    place = {"latitude": 1.5, "longitude": 2.5, "altitude": 3.0, "source": "GEO_RESOLVER_TDOA"}
    uplink = read("location", event(location=place))

    assert (uplink.type, uplink.fields) == ("location", place)


def test_integration() -> None:
    """Another integration's event says whose it is."""
    said = event(integrationName="loracloud", eventType="DAS", object={"a": 1})
    uplink = read("integration", said)

    assert (uplink.type, uplink.fields) == ("service_data", {"a": 1})
    assert (uplink.metadata["service"], uplink.metadata["event_type"]) == ("loracloud", "DAS")


@pytest.mark.parametrize(
    ("acknowledged", "state", "reason"),
    [
        (True, State.ACKNOWLEDGED, ""),
        (False, State.NOT_ACKNOWLEDGED, "not_acknowledged"),
    ],
)
def test_ack(acknowledged: bool, state: State, reason: str) -> None:
    """An acknowledgement, or its absence, is a report of the queue item's downlink."""
    uplink = read("ack", event(queueItemId=ITEM, acknowledged=acknowledged, fCntDown=7))

    assert (uplink.type, uplink.metadata) == (None, {})
    detail = {"event": "ack", "f_cnt": 7}
    assert uplink.reports == (Report(state=state, reference=ITEM, reason=reason, detail=detail),)


def test_an_ack_is_no_repeat_of_the_uplink_that_brought_it() -> None:
    """Both have one deduplication id, and two keys."""
    ack = read("ack", {**event(queueItemId=ITEM), "deduplicationId": UP["deduplicationId"]})

    assert ack.repeat_key != read("up", UP).repeat_key


def test_txack() -> None:
    """A gateway's word that it transmits makes the downlink accepted."""
    said = {"downlinkId": 7, "time": TIME, "deviceInfo": INFO, "queueItemId": ITEM,
            "fCntDown": 3, "gatewayId": "0016c001f153a14c"}  # fmt: skip
    uplink = read("txack", said)

    detail = {"event": "txack", "transmitted": True, "f_cnt": 3, "gateway_id": "0016c001f153a14c"}
    assert uplink.reports == (Report(state=State.ACCEPTED, reference=ITEM, detail=detail),)
    assert uplink.repeat_key.startswith("txack:")


def test_a_log_entry_of_a_queue_item_fails_its_downlink() -> None:
    """ChirpStack says by an error in the log that it threw a downlink away, and why."""
    said = {"time": TIME, "deviceInfo": INFO, "level": "ERROR", "code": "DOWNLINK_PAYLOAD_SIZE",
            "description": "too long", "context": {"queue_item_id": ITEM}}  # fmt: skip
    uplink = read("log", said)

    assert uplink.type == "service_data"
    assert uplink.fields == {
        name: said[name] for name in ("level", "code", "description", "context")
    }
    assert uplink.metadata["service"] == "log"
    (report,) = uplink.reports
    assert (report.state, report.reference) == (State.FAILED, ITEM)
    assert report.reason == "downlink_payload_size"


def test_a_warning_in_the_log_fails_nothing() -> None:
    """A log entry that is no error, or of no downlink, is news of the device alone."""
    said = {"time": TIME, "deviceInfo": INFO, "code": "OTAA"}

    assert read("log", {**said, "level": "ERROR"}).reports == ()
    context = {"queue_item_id": ITEM}
    assert read("log", {**said, "level": "WARNING", "context": context}).reports == ()


@pytest.mark.parametrize(
    ("kind", "document", "code", "field"),
    [
        ("", UP, "field", "event"),
        ("uplink", UP, "field", "event"),
        ("up", {"devEUI": "AQEBAQEBAQE="}, "device_missing", "deviceInfo.devEui"),
        ("up", {"deviceInfo": {}}, "device_missing", "deviceInfo.devEui"),
        ("up", {"deviceInfo": {"devEui": "xyz"}}, "field", "deviceInfo.devEui"),
        ("up", {**UP, "data": "%"}, "field", "data"),
        ("up", {**UP, "fPort": 256}, "field", "fPort"),
        ("up", {**UP, "rxInfo": {}}, "field", "rxInfo"),
        ("up", {**UP, "time": "yesterday"}, "field", "time"),
        ("ack", event(acknowledged=True), "field", "queueItemId"),
        ("txack", event(queueItemId="x" * 65), "field", "queueItemId"),
    ],
)
def test_what_is_no_event_is_refused(kind: str, document: Any, code: str, field: str) -> None:
    """A request that is not ChirpStack's says which field is wrong."""
    with pytest.raises(MessageError) as caught:
        read(kind, document)

    assert (caught.value.code, caught.value.detail["field"]) == (code, field)


def test_protocol_buffers_are_refused_with_the_remedy() -> None:
    """An integration that was set to Protobuf is told to choose JSON."""
    with pytest.raises(MessageError, match="set the integration's payload encoding to JSON"):
        read("up", UP, headers={"content-type": "application/octet-stream"})


def test_the_api_takes_a_downlink(downlink: Callable[..., Downlink]) -> None:
    """The queue's address, the key and the item; an expiry is ChirpStack's to keep, too."""
    call = DIALECT.send(downlink(confirmed=True, expires_at_ms=TIME_MS), LINK, API)

    assert call.url == "https://cs.example/api/devices/0101010101010101/queue"
    assert call.headers["grpc-metadata-authorization"] == "Bearer k3y"
    assert orjson.loads(call.body) == {
        "queueItem": {
            "confirmed": True,
            "data": "vu8=",
            "fPort": 15,
            "expiresAt": "2022-07-18T09:34:15.775Z",
        }
    }


def test_replace_flushes_the_queue(downlink: Callable[..., Downlink]) -> None:
    """`replace` leaves nothing but this downlink in ChirpStack's queue."""
    call = DIALECT.send(downlink(queue="replace"), LINK, API)

    assert orjson.loads(call.body)["flushQueue"] is True


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"id":5.5}', b"<html>"])
def test_an_answer_without_an_id_names_nothing(answer: bytes) -> None:
    """An answer that does not say the item's id takes nothing back."""
    assert DIALECT.reference(b'{"id":"item-1"}') == "item-1"
    assert DIALECT.reference(answer) == ""


def test_a_topic_says_the_event() -> None:
    """The request from a topic is read as the one from HTTP is."""
    options = ChirpStackOptions(topic_prefix="eu868/", application_id="17c82e96")
    assert DIALECT.topics(options) == ("eu868/application/17c82e96/device/+/event/+",)
    assert DIALECT.topics(ChirpStackOptions()) == ("application/+/device/+/event/+",)

    topic = "eu868/application/17c82e96/device/0101010101010101/event/up"
    request = DIALECT.from_topic(topic, orjson.dumps(UP), options)
    assert request is not None
    assert DIALECT.read(request, options, "{dev_eui}") == [read("up", UP)]


@pytest.mark.parametrize(
    "topic",
    ["", "a/b", "application/1/device/2/command/down", "gateway/x/event/up/a/b"],
)
def test_other_topics_are_no_events(topic: str) -> None:
    """A filter that takes more than events brings what is passed over."""
    assert DIALECT.from_topic(topic, b"{}", ChirpStackOptions()) is None


def test_a_command_carries_its_own_id(downlink: Callable[..., Downlink]) -> None:
    """Over MQTT the queue item has an id of ours, the same at each try, as its reference."""
    options = ChirpStackOptions(topic_prefix="eu868/")
    first = DIALECT.publication(downlink(), LINK, options)

    assert first == DIALECT.publication(downlink(), LINK, options)
    assert first != DIALECT.publication(downlink(id="other"), LINK, options)
    assert str(UUID(first.reference)) == first.reference
    assert first.topic == "eu868/application/17c82e96/device/0101010101010101/command/down"
    assert orjson.loads(first.payload) == {
        "id": first.reference,
        "devEui": "0101010101010101",
        "confirmed": False,
        "data": "vu8=",
        "fPort": 15,
    }


def test_a_command_needs_an_application(downlink: Callable[..., Downlink]) -> None:
    """Before an uplink has said it, or the options do, there is no topic to publish to."""
    link = Link(device_id="0101010101010101")
    with pytest.raises(MessageError) as caught:
        DIALECT.publication(downlink(), link, ChirpStackOptions())
    assert caught.value.code == "no_link"
    options = ChirpStackOptions(application_id="a1")
    assert DIALECT.publication(downlink(), link, options).topic.startswith("application/a1/")


@pytest.mark.parametrize(
    "options",
    [
        {"server": "https://cs.example"},
        {"api_key": "k"},
        {"server": "cs.example", "api_key": "k"},
        {"topic_prefix": "a/#/"},
        {"application_id": "+"},
    ],
)
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    """A server without a key, a key without a server, no URL, wildcards: found by `check`."""
    with pytest.raises(ValidationError):
        ChirpStackOptions.model_validate(options)
