"""ChirpStack v3: its documented events in both JSON formats, and its downlinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.integrations.chirpstack import ChirpStackOptions
from pipeline.integrations.chirpstack_v3 import DIALECT
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Request
from pipeline.model.uplink import Link, Report, Uplink

# The samples of the events page, JSON and «JSON (v3)».
UP: dict[str, Any] = {
    "applicationID": "123",
    "applicationName": "temperature-sensor",
    "deviceName": "garden-sensor",
    "devEUI": "AgICAgICAgI=",
    "rxInfo": [
        {
            "gatewayID": "AwMDAwMDAwM=",
            "time": "2019-11-08T13:59:25.048445Z",
            "rssi": -48,
            "loRaSNR": 9,
            "uplinkID": "jhMh8Gq6RAOChSKbi83RHQ==",
        }
    ],
    "txInfo": {
        "frequency": 868100000,
        "modulation": "LORA",
        "loRaModulationInfo": {"bandwidth": 125, "spreadingFactor": 11, "codeRate": "4/5"},
    },
    "adr": True,
    "dr": 1,
    "fCnt": 10,
    "fPort": 5,
    "data": "qg==",
    "objectJSON": '{"temperatureSensor":25,"humiditySensor":32}',
    "tags": {"key": "value"},
    "confirmedUplink": True,
    "devAddr": "AFE5Qg==",
}
LEGACY: dict[str, Any] = {
    "applicationID": "123",
    "applicationName": "temperature-sensor",
    "deviceName": "garden-sensor",
    "devEUI": "0202020202020202",
    "rxInfo": [
        {
            "gatewayID": "0303030303030303",
            "name": "rooftop-gateway",
            "time": "2016-11-25T16:24:37.295915988Z",
            "rssi": -57,
            "loRaSNR": 10,
        }
    ],
    "txInfo": {"frequency": 868100000, "dr": 5},
    "adr": False,
    "fCnt": 10,
    "fPort": 5,
    "data": "qg==",
    "object": {"temperatureSensor": 25},
    "tags": {},
}
LINK = Link(application_id="123", device_id="0202020202020202", dev_eui="0202020202020202")


def read(kind: str, document: Any, template: str = "{dev_eui}") -> Uplink:
    request = Request(body=orjson.dumps(document), query={"event": kind})
    (uplink,) = DIALECT.read(request, ChirpStackOptions(), template)
    return uplink


def event(**more: Any) -> dict[str, Any]:
    published = "2020-02-12T15:15:46.014Z"
    return {"applicationID": "123", "devEUI": "AgICAgICAgI=", "publishedAt": published, **more}


def test_every_field_of_an_uplink_lands_somewhere() -> None:
    """Each field of the documented uplink is found in the Uplink, base64 as hexadecimal."""
    uplink = read("up", UP)

    assert uplink.device == "0202020202020202"
    assert uplink.time_ms == 1_573_221_565_048
    assert (uplink.payload, uplink.f_port, uplink.f_cnt) == (b"\xaa", 5, 10)
    assert uplink.fields == {"temperatureSensor": 25, "humiditySensor": 32}
    assert uplink.confirmed is True
    assert uplink.link == LINK
    assert uplink.metadata == {
        "device_id": "0202020202020202",
        "device_name": "garden-sensor",
        "application_id": "123",
        "application_name": "temperature-sensor",
        "tags": {"key": "value"},
        "dev_addr": "00513942",
        "adr": True,
        "dr": 1,
        "frequency": 868100000,
        "bandwidth": 125_000,
        "spreading_factor": 11,
        "coding_rate": "4/5",
        "tx_info": UP["txInfo"],
        "rx_info": UP["rxInfo"],
        "gateway_count": 1,
        "rssi": -48,
        "snr": 9,
    }


def test_the_legacy_format_says_the_same() -> None:
    """«JSON (v3)» has hexadecimal EUIs and an object, and is the same device."""
    uplink = read("up", LEGACY)

    assert (uplink.device, uplink.link) == ("0202020202020202", LINK)
    assert uplink.fields == {"temperatureSensor": 25}
    assert (uplink.metadata["rssi"], uplink.metadata["snr"]) == (-57, 10)


def test_the_same_counter_after_a_reset_is_another_message() -> None:
    """A device that begins to count anew is told apart by the receptions."""
    later = {**UP, "rxInfo": [{**UP["rxInfo"][0], "uplinkID": "AAAA"}]}

    assert read("up", UP).repeat_key == read("up", UP).repeat_key != read("up", later).repeat_key
    assert read("up", {**UP, "rxInfo": []}).repeat_key == ""


@pytest.mark.parametrize(
    ("kind", "said", "report"),
    [
        (
            "ack",
            {"acknowledged": True, "fCnt": 12},
            Report(
                state=State.ACKNOWLEDGED,
                reference="f_cnt:12",
                detail={"event": "ack", "f_cnt": 12},
            ),
        ),
        (
            "ack",
            {"acknowledged": False, "fCnt": 12},
            Report(
                state=State.NOT_ACKNOWLEDGED,
                reference="f_cnt:12",
                reason="not_acknowledged",
                detail={"event": "ack", "f_cnt": 12},
            ),
        ),
        (
            "txack",
            {"fCnt": 12},
            Report(
                state=State.ACCEPTED,
                reference="f_cnt:12",
                detail={"event": "txack", "transmitted": True, "f_cnt": 12},
            ),
        ),
    ],
)
def test_reports_name_the_frame_counter(kind: str, said: dict[str, Any], report: Report) -> None:
    """v3 knows a downlink by the counter that its API gave: that is the report's reference."""
    uplink = read(kind, event(**said))

    assert (uplink.type, uplink.reports) == (None, (report,))


def test_an_error_of_a_downlink_fails_it() -> None:
    """An error is news of the device, and the end of the downlink that it names."""
    uplink = read("error", event(type="DOWNLINK_PAYLOAD_SIZE", error="too long", fCnt=12))

    assert uplink.fields == {"type": "DOWNLINK_PAYLOAD_SIZE", "error": "too long", "f_cnt": 12}
    (report,) = uplink.reports
    assert (report.state, report.reference) == (State.FAILED, "f_cnt:12")
    assert report.reason == "downlink_payload_size"
    assert read("error", event(type="OTAA", error="x", fCnt=12)).reports == ()


def test_the_other_events() -> None:
    """Join, status, location and another integration's event are messages of the device."""
    assert read("join", event(devAddr="AFE5Qg==")).type == "join"
    status = read("status", event(margin=7, batteryLevel=75.4))
    assert status.fields == {"margin": 7, "external_power_source": False, "battery_level": 75.4}
    place = {"latitude": 1.0, "longitude": 2.0, "altitude": 3.0}
    assert read("location", event(location=place)).fields == place
    said = event(integrationName="edge", eventType="x", objectJSON='{"a":1}')
    assert read("integration", said).fields == {"a": 1}
    assert read("integration", said).metadata["service"] == "edge"


@pytest.mark.parametrize(
    ("kind", "document", "field"),
    [
        ("rx", UP, "event"),
        ("up", {}, "devEUI"),
        ("up", {**UP, "devEUI": "AgI="}, "devEUI"),
        ("up", {**UP, "devEUI": "no EUI at all!"}, "devEUI"),
        ("up", {**UP, "objectJSON": "{"}, "objectJSON"),
        ("up", {**UP, "objectJSON": "[1]"}, "objectJSON"),
        ("up", {**UP, "data": 5}, "data"),
    ],
)
def test_what_is_no_event_is_refused(kind: str, document: Any, field: str) -> None:
    """A request that is not ChirpStack's says which field is wrong."""
    with pytest.raises(MessageError) as caught:
        read(kind, document)

    assert caught.value.detail["field"] == field


def test_downlinks(downlink: Callable[..., Downlink]) -> None:
    """The API's answer has the counter that reports will name; MQTT's command is the item."""
    options = ChirpStackOptions.model_validate({"server": "https://cs.example", "api_key": "k"})
    item = {"confirmed": False, "data": "vu8=", "fPort": 15}
    call = DIALECT.send(downlink(), LINK, options)

    assert call.url == "https://cs.example/api/devices/0202020202020202/queue"
    assert call.headers["grpc-metadata-authorization"] == "Bearer k"
    assert orjson.loads(call.body) == {"deviceQueueItem": item}
    assert DIALECT.reference(b'{"fCnt":12}') == "f_cnt:12"
    assert DIALECT.reference(b"{}") == ""

    command = DIALECT.publication(downlink(), LINK, options)
    assert command.topic == "application/123/device/0202020202020202/command/down"
    assert (orjson.loads(command.payload), command.reference) == (item, "")
