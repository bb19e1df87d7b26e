"""The format of The Things Stack v3: its exact fields, and our own dialect as its reader."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from pipeline.ingest.tts_v3_door import TtsV3Speech
from pipeline.model.http import Request
from tests.unit.sink.formats.made import delivery_of, message_of, read, shape
from tests.unit.sink.formats.test_ttn_v2 import UP

# network-servers.md 1.1, the documentation's own sample, its times cut to milliseconds.
V3: dict[str, Any] = {
    "end_device_ids": {
        "device_id": "dev1",
        "application_ids": {"application_id": "app1"},
        "dev_eui": "0004A30B001C0530",
        "join_eui": "800000000000000C",
        "dev_addr": "00BCB929",
    },
    "correlation_ids": ["as:up:01E0WZGT6Y7657CPFPE5WEYDSQ"],
    "received_at": "2020-02-12T15:15:46.014Z",
    "uplink_message": {
        "session_key_id": "AXA50tHUGUucuzS/bCGMNw==",
        "f_cnt": 1,
        "f_port": 1,
        "frm_payload": "gkHe",
        "decoded_payload": {"temperature": 1.0, "luminosity": 0.64},
        "rx_metadata": [
            {
                "gateway_ids": {"gateway_id": "gtw1", "eui": "9C5C8E00001A05C4"},
                "time": "2020-02-12T15:15:45.787Z",
                "timestamp": 2463457000,
                "rssi": -35,
                "channel_rssi": -35,
                "snr": 5.2,
                "uplink_token": "ChIK",
                "channel_index": 2,
            }
        ],
        "settings": {
            "data_rate": {"lora": {"bandwidth": 125000, "spreading_factor": 7}},
            "coding_rate": "4/6",
            "frequency": "868300000",
            "timestamp": 2463457000,
            "time": "2020-02-12T15:15:45.787Z",
        },
        "consumed_airtime": "0.056576s",
        "locations": {"user": {"latitude": 37.97, "longitude": 23.72}},
        "version_ids": {
            "brand_id": "the-things-products",
            "model_id": "the-things-uno",
            "hardware_version": "1.0",
            "firmware_version": "quickstart",
            "band_id": "EU_863_870",
        },
        "network_ids": {"net_id": "000013", "tenant_id": "tenant1", "cluster_id": "eu1"},
        "received_at": "2020-02-12T15:15:45.789Z",
    },
    "simulated": True,
}


def posted(body: dict[str, Any]) -> Request:
    return Request(body=orjson.dumps(body))


def made_of(dialect: str, body: dict[str, Any], format_: Any = "tts_v3") -> dict[str, Any]:
    message = message_of(read(dialect, posted(body)), "in-1")
    made: dict[str, Any] = orjson.loads(shape(format_, delivery_of(message)).body)
    return made


def test_what_came_from_v3_leaves_as_it_came() -> None:
    """An uplink of The Things Stack is the same JSON on its way out, save the correlation id."""
    expected = V3 | {"correlation_ids": ["as:up:0197-a.s1"]}

    assert made_of("tts_v3", V3) == expected


@pytest.mark.parametrize(("dialect", "body"), [("tts_v3", V3), ("ttn_v2", UP)])
def test_our_own_dialect_reads_what_it_wrote(dialect: str, body: dict[str, Any]) -> None:
    """Written and read again, device, bytes, counters, fields and time are the same."""
    first = read(dialect, posted(body))

    again = read("tts_v3", posted(made_of(dialect, body)))

    kept = ("device", "type", "time_ms", "payload", "fields", "f_port", "f_cnt", "confirmed")
    assert [getattr(again, name) for name in kept] == [getattr(first, name) for name in kept]
    assert again.repeat_key == (first.repeat_key if dialect == "tts_v3" else "0197-a.s1")


def test_an_uplink_of_v2_has_v3s_names() -> None:
    """TTN v2's radio becomes v3's: frequency in Hz as text, data rate as an object, gateways."""
    made = made_of("ttn_v2", UP)

    assert made["end_device_ids"] == {
        "device_id": "my-dev",
        "application_ids": {"application_id": "my-app"},
        "dev_eui": "0102030405060708",
    }
    message = made["uplink_message"]
    assert message["settings"] == {
        "data_rate": {
            "lora": {"bandwidth": 125000, "spreading_factor": 7, "coding_rate": "4/5"},
        },
        "frequency": "868100000",
    }
    assert message["rx_metadata"] == [
        {
            "gateway_ids": {"gateway_id": "ttn-herengracht-ams"},
            "time": "2026-09-20T12:46:39.9Z",
            "timestamp": 12345,
            "rssi": -25,
            "channel_rssi": -25,
            "snr": 5,
            "location": {"latitude": 52.1234, "longitude": 6.1234, "altitude": 6},
        }
    ]
    assert message["confirmed"] is True


def test_zero_values_are_left_out() -> None:
    """`f_port`, `f_cnt` and `frm_payload` of nothing are not written, as there."""
    body = {"app_id": "a", "dev_id": "d", "metadata": {"time": "2026-09-20T12:46:40Z"}}

    message = made_of("ttn_v2", body)["uplink_message"]

    assert message == {"received_at": "2026-09-20T12:46:40.000Z"}


@pytest.mark.parametrize(
    ("kind", "member", "expected"),
    [
        ("join", "join_accept", {"received_at": "2020-02-12T15:15:45.789Z",
                                 "session_key_id": "AXA50tHUGUucuzS/bCGMNw=="}),
        ("location", "location_solved", {"location": {"latitude": 1.5}}),
        ("service_data", "service_data", {"service": "funicular.service_data",
                                          "data": {"latitude": 1.5}}),
        ("alarm", "service_data", {"service": "funicular.alarm", "data": {"latitude": 1.5}}),
    ],
)  # fmt: skip
def test_other_kinds(kind: str, member: str, expected: dict[str, Any]) -> None:
    """Joins and locations have their own member; what v3 has no word for is service data. Our
    dialect reads each.
    """
    message = message_of(read("tts_v3", posted(V3)), "in-1", type=kind, telemetry={"latitude": 1.5})

    made = orjson.loads(shape("tts_v3", delivery_of(message)).body)

    assert made[member] == expected
    assert read("tts_v3", posted(made)).device == "app1:dev1"


def test_the_headers_lead_to_the_door() -> None:
    """With `url` and `key` the headers of a webhook with an API key are there; our own door reads
    their addresses back.
    """
    options = {"tts_v3": {"url": "https://funicular.example.com", "key": "fk_1_s"}}

    headers = shape(options, delivery_of(message_of(read("tts_v3", posted(V3)), "in-1"))).headers

    place = "https://funicular.example.com/api/v3/as/applications/app1/webhooks/in-1/devices/dev1"
    assert headers == {
        "x-downlink-apikey": "fk_1_s",
        "x-downlink-push": f"{place}/down/push",
        "x-downlink-replace": f"{place}/down/replace",
    }
    found = TtsV3Speech().place(headers["x-downlink-push"].split("example.com")[1])
    assert found is not None
    assert (found.application_id, found.device_id, found.process) == ("app1", "dev1", "in-1")


def test_a_delivery_without_an_origin_is_still_an_uplink() -> None:
    """What an older version wrote, or a test, has no origin: it leaves with what there is."""
    delivery = delivery_of(message_of(read("tts_v3", posted(V3)), "in-1"))
    bare = msgspec.structs.replace(delivery, origin=None)

    made = orjson.loads(shape("tts_v3", bare).body)

    assert made["uplink_message"]["decoded_payload"] == {"temperature": 1.0, "luminosity": 0.64}
    assert made["end_device_ids"]["device_id"] == "app1:dev1"
