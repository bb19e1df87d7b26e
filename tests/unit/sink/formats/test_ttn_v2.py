"""The format of TTN v2: its exact fields, the way back, and our own dialect as its reader."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.ingest.ttn_v2_door import TtnV2Speech
from pipeline.model.http import Request
from tests.unit.sink.formats.made import delivery_of, message_of, read, shape

UP: dict[str, Any] = {
    "app_id": "my-app",
    "dev_id": "my-dev",
    "hardware_serial": "0102030405060708",
    "port": 1,
    "counter": 2,
    "is_retry": True,
    "confirmed": True,
    "payload_raw": "AQIDBA==",
    "payload_fields": {"temperature": 21.5, "nested": {"on": True}},
    "metadata": {
        "time": "2026-09-20T12:46:40.000Z",
        "frequency": 868.1,
        "modulation": "LORA",
        "data_rate": "SF7BW125",
        "airtime": 46336000,
        "coding_rate": "4/5",
        "gateways": [
            {
                "gtw_id": "ttn-herengracht-ams",
                "gtw_trusted": True,
                "timestamp": 12345,
                "time": "2026-09-20T12:46:39.9Z",
                "channel": 0,
                "rssi": -25,
                "snr": 5,
                "rf_chain": 0,
                "latitude": 52.1234,
                "longitude": 6.1234,
                "altitude": 6,
            }
        ],
    },
}
V3: dict[str, Any] = {
    "end_device_ids": {
        "device_id": "dev1",
        "application_ids": {"application_id": "app1"},
        "dev_eui": "0004A30B001C0530",
    },
    "received_at": "2026-09-20T12:46:40.014Z",
    "uplink_message": {
        "f_cnt": 1,
        "f_port": 7,
        "frm_payload": "gkHe",
        "decoded_payload": {"temperature": 1.0},
        "rx_metadata": [
            {
                "gateway_ids": {"gateway_id": "gtw1", "eui": "9C5C8E00001A05C4"},
                "time": "2026-09-20T12:46:39.787Z",
                "timestamp": 2463457000,
                "rssi": -35,
                "snr": 5.2,
                "channel_index": 2,
                "location": {"latitude": 37.97, "longitude": 23.72, "altitude": 2},
            }
        ],
        "settings": {
            "data_rate": {"lora": {"bandwidth": 125000, "spreading_factor": 7}},
            "coding_rate": "4/6",
            "frequency": "868300000",
        },
        "consumed_airtime": "0.056576s",
        "received_at": "2026-09-20T12:46:39.789Z",
    },
}


def posted(body: dict[str, Any]) -> Request:
    return Request(body=orjson.dumps(body))


def made_of(dialect: str, body: dict[str, Any], format_: Any = "ttn_v2") -> dict[str, Any]:
    message = message_of(read(dialect, posted(body)), "in-1")
    made: dict[str, Any] = orjson.loads(shape(format_, delivery_of(message)).body)
    return made


def test_what_came_from_v2_leaves_as_it_came() -> None:
    """An uplink of TTN v2 is the same JSON on its way out, member for member."""
    assert made_of("ttn_v2", UP) == UP


def test_zero_values_are_left_out_save_four() -> None:
    """`port`, `counter`, `payload_raw` are always there; other members only when they are not
    zero.
    """
    made = made_of(
        "ttn_v2", {"app_id": "a", "dev_id": "d", "metadata": {"time": "2026-09-20T12:46:40Z"}}
    )

    assert made == {
        "app_id": "a",
        "dev_id": "d",
        "port": 0,
        "counter": 0,
        "payload_raw": "",
        "metadata": {"time": "2026-09-20T12:46:40.000Z"},
    }


def test_our_own_dialect_reads_what_it_wrote() -> None:
    """What came from v2, written and read again, is the same uplink."""
    first = read("ttn_v2", posted(UP))

    assert read("ttn_v2", posted(made_of("ttn_v2", UP))) == first


def test_an_uplink_of_v3_has_v2s_names() -> None:
    """The Things Stack v3's radio becomes v2's: frequency in MHz, data rate as text, airtime in
    ns, gateways with v2's names.
    """
    made = made_of("tts_v3", V3)

    assert made["app_id"] == "app1"
    assert made["dev_id"] == "dev1"
    assert made["hardware_serial"] == "0004A30B001C0530"
    assert (made["port"], made["counter"], made["payload_raw"]) == (7, 1, "gkHe")
    assert made["payload_fields"] == {"temperature": 1.0}
    assert made["metadata"] == {
        "time": "2026-09-20T12:46:39.789Z",
        "frequency": 868.3,
        "modulation": "LORA",
        "data_rate": "SF7BW125",
        "airtime": 56576000,
        "coding_rate": "4/6",
        "gateways": [
            {
                "gtw_id": "gtw1",
                "timestamp": 2463457000,
                "time": "2026-09-20T12:46:39.787Z",
                "channel": 2,
                "rssi": -35,
                "snr": 5.2,
                "rf_chain": 0,
                "latitude": 37.97,
                "longitude": 23.72,
                "altitude": 2,
            }
        ],
    }
    assert read("ttn_v2", posted(made)).device == "app1:dev1"


def test_a_body_of_the_chain_is_the_payload_fields() -> None:
    """What a chain made of a message stands in `payload_fields`; the radio's part stays."""
    message = message_of(read("ttn_v2", posted(UP)), "in-1")

    made = orjson.loads(shape("ttn_v2", delivery_of(message, {"warm": True})).body)

    assert made["payload_fields"] == {"warm": True}
    assert (made["port"], made["payload_raw"], made["dev_id"]) == (1, "AQIDBA==", "my-dev")


def test_the_downlink_url_leads_to_the_door() -> None:
    """With `url` and `key` there is a `downlink_url` whose parts our own door reads back."""
    options = {"url": "https://funicular.example.com/", "key": "fk_1_secret"}

    made = made_of("ttn_v2", UP, {"ttn_v2": options})

    assert made["downlink_url"] == (
        "https://funicular.example.com/funicular/api/v2/down/my-app/in-1?key=fk_1_secret"
    )
    place = TtnV2Speech().place(made["downlink_url"].split("example.com")[1].partition("?")[0])
    assert place is not None
    assert (place.application_id, place.process) == ("my-app", "in-1")


def test_the_process_can_be_named() -> None:
    """`process` and `handler` stand in the address as they are given, encoded."""
    options = {"url": "https://x.example", "key": "k", "process": "my process", "handler": "ttn-eu"}

    made = made_of("ttn_v2", UP, {"ttn_v2": options})

    assert made["downlink_url"] == "https://x.example/ttn-eu/api/v2/down/my-app/my%20process?key=k"


def test_what_is_no_uplink_is_refused() -> None:
    """v2's HTTP integration posted uplinks alone: a join is the message's fault, in words."""
    message = message_of(read("ttn_v2", posted(UP)), "in-1", type="join")

    with pytest.raises(MessageError, match="uplinks alone; this is `join`"):
        shape("ttn_v2", delivery_of(message))


def test_a_device_named_otherwise_has_its_whole_name() -> None:
    """Where application and device id do not make up the device's name, `dev_id` is the name, by
    which the door finds it.
    """
    message = message_of(read("ttn_v2", posted(UP)), "meters", device="hall-7", metadata={})

    made = orjson.loads(shape("ttn_v2", delivery_of(message)).body)

    assert (made["app_id"], made["dev_id"]) == ("meters", "hall-7")
