"""The Things Stack v3: its documented messages, field by field, and its downlinks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from pipeline.errors import MessageError
from pipeline.integrations.tts_v3 import DIALECT, TtsV3Options
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Request
from pipeline.model.uplink import Link, Report, Uplink

IDS: dict[str, Any] = {
    "device_id": "dev1",
    "application_ids": {"application_id": "app1"},
    "dev_eui": "0004A30B001C0530",
    "join_eui": "800000000000000C",
    "dev_addr": "00BCB929",
}
RECEPTION = {
    "gateway_ids": {"gateway_id": "gtw1", "eui": "9C5C8E00001A05C4"},
    "time": "2020-02-12T15:15:45.787Z",
    "timestamp": 2463457000,
    "rssi": -35,
    "channel_rssi": -35,
    "snr": 5.2,
    "uplink_token": "ChIK",
    "channel_index": 2,
    "location": {"latitude": 37.97, "longitude": 23.72, "altitude": 2},
}
SETTINGS = {
    "data_rate": {"lora": {"bandwidth": 125000, "spreading_factor": 7}},
    "coding_rate": "4/6",
    "frequency": "868300000",
    "timestamp": 2463457000,
    "time": "2020-02-12T15:15:45.787Z",
}
# The sample of the data-formats page.
UPLINK: dict[str, Any] = {
    "end_device_ids": IDS,
    "correlation_ids": [
        "as:up:01E0WZGT6Y7657CPFPE5WEYDSQ",
        "gs:conn:01E0WDEC6T3VMTD0FSMEMC0XBF",
        "ns:uplink:01E0WZGSZWT07NE5TS2APTV1Z9",
    ],
    "received_at": "2020-02-12T15:15:46.014773143Z",
    "uplink_message": {
        "session_key_id": "AXA50tHUGUucuzS/bCGMNw==",
        "f_cnt": 1,
        "f_port": 1,
        "frm_payload": "gkHe",
        "decoded_payload": {"temperature": 1.0, "luminosity": 0.64},
        "decoded_payload_warnings": ["battery low"],
        "normalized_payload": [{"air": {"temperature": 1.0}}],
        "rx_metadata": [RECEPTION],
        "settings": SETTINGS,
        "received_at": "2020-02-12T15:15:45.789585559Z",
        "last_a_f_cnt_down": 7,
        "confirmed": True,
        "consumed_airtime": "0.056576s",
        "packet_error_rate": 0.25,
        "locations": {"user": {"latitude": 37.97, "longitude": 23.72, "altitude": 10}},
        "version_ids": {
            "brand_id": "the-things-products",
            "model_id": "the-things-uno",
            "hardware_version": "1.0",
            "firmware_version": "quickstart",
            "band_id": "EU_863_870",
        },
        "network_ids": {"net_id": "000013", "tenant_id": "tenant1", "cluster_id": "eu1"},
        "attributes": {"key1": "value1"},
        "app_s_key": {"key": "secret"},
    },
    "simulated": True,
}
DOWNLINK = {
    "session_key_id": "AXBSp8v2brG0jqkri+sIkw==",
    "f_port": 15,
    "f_cnt": 1,
    "frm_payload": "vu8=",
    "confirmed": True,
    "priority": "NORMAL",
    "correlation_ids": ["as:downlink:01E19B99501X84X6CV471TVSZ1", "funicular:0197.d1"],
}
TEMPLATE = DIALECT.device_template


def read(document: Any, template: str = TEMPLATE, headers: dict[str, str] | None = None) -> Uplink:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    request = Request(body=body, headers=headers or {})
    (uplink,) = DIALECT.read(request, TtsV3Options(), template)
    return uplink


def message(kind: str, content: Any, **more: Any) -> dict[str, Any]:
    received = "2020-02-17T10:32:24.590413417Z"
    return {"end_device_ids": IDS, "received_at": received, kind: content, **more}


def changed(**changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(UPLINK)
    document["uplink_message"].update(changes)
    return document


def test_every_field_of_an_uplink_lands_somewhere() -> None:
    """Each field of the documented uplink is found in the Uplink; the session's key is not."""
    uplink = read(UPLINK)

    assert uplink.device == "app1:dev1"
    assert uplink.type == "uplink"
    assert uplink.time_ms == 1_581_520_545_789
    assert uplink.payload == b"\x82\x41\xde"
    assert uplink.fields == {"temperature": 1.0, "luminosity": 0.64}
    assert (uplink.f_port, uplink.f_cnt, uplink.confirmed) == (1, 1, True)
    assert uplink.dev_eui == "0004A30B001C0530"
    assert uplink.attributes == {"key1": "value1"}
    assert uplink.link == Link(application_id="app1", device_id="dev1", dev_eui="0004A30B001C0530")
    assert len(uplink.repeat_key) == 24
    assert uplink.metadata == {
        "application_id": "app1",
        "device_id": "dev1",
        "join_eui": "800000000000000C",
        "dev_addr": "00BCB929",
        "received_at": "2020-02-12T15:15:46.014773143Z",
        "simulated": True,
        "session_key_id": "AXA50tHUGUucuzS/bCGMNw==",
        "decoded_payload_warnings": ["battery low"],
        "normalized_payload": [{"air": {"temperature": 1.0}}],
        "last_a_f_cnt_down": 7,
        "consumed_airtime": "0.056576s",
        "packet_error_rate": 0.25,
        "locations": {"user": {"latitude": 37.97, "longitude": 23.72, "altitude": 10}},
        "brand_id": "the-things-products",
        "model_id": "the-things-uno",
        "hardware_version": "1.0",
        "firmware_version": "quickstart",
        "band_id": "EU_863_870",
        "net_id": "000013",
        "tenant_id": "tenant1",
        "cluster_id": "eu1",
        "settings": SETTINGS,
        "frequency": 868300000,
        "bandwidth": 125000,
        "spreading_factor": 7,
        "coding_rate": "4/6",
        "rx_metadata": [RECEPTION],
        "gateway_count": 1,
        "rssi": -35,
        "snr": 5.2,
    }


def test_omitted_fields_are_zero() -> None:
    """Zero, empty and false fields are left out: port and counter are 0 then, the payload empty."""
    uplink = read(message("uplink_message", {"session_key_id": "AA=="}))

    assert (uplink.payload, uplink.f_port, uplink.f_cnt, uplink.confirmed) == (b"", 0, 0, False)
    assert uplink.time_ms == 1_581_935_544_590
    assert "simulated" not in uplink.metadata


def test_decoded_without_bytes() -> None:
    """A webhook whose field mask leaves the bytes out still has its decoded fields."""
    uplink = read(message("uplink_message", {"f_port": 1, "decoded_payload": {"t": 1}}))

    assert uplink.payload is None
    assert uplink.fields == {"t": 1}


def test_port_zero_is_read() -> None:
    """Port 0 (MAC commands) comes through as it is."""
    uplink = read(message("uplink_message", {"frm_payload": "Ag=="}))

    assert (uplink.f_port, uplink.payload) == (0, b"\x02")


def test_camel_case_is_the_same() -> None:
    """Names in camelCase mean the same; names that users chose are not touched."""
    document = {
        "endDeviceIds": {
            "deviceId": "dev1",
            "applicationIds": {"applicationId": "app1"},
            "devEui": "0004A30B001C0530",
            "joinEui": "800000000000000C",
            "devAddr": "00BCB929",
        },
        "correlationIds": UPLINK["correlation_ids"],
        "receivedAt": UPLINK["received_at"],
        "uplinkMessage": {
            "sessionKeyId": "AXA50tHUGUucuzS/bCGMNw==",
            "receivedAt": UPLINK["uplink_message"]["received_at"],
            "fCnt": 1,
            "fPort": 1,
            "frmPayload": "gkHe",
            "decodedPayload": {"airTemperature": {"innerName": 1.0}},
            "lastAFCntDown": 7,
            "rxMetadata": [{"gatewayIds": {"gatewayId": "gtw1"}, "channelRssi": -35, "rssi": -35}],
        },
    }
    mixed = changed()
    mixed["uplink_message"]["fPort"] = mixed["uplink_message"].pop("f_port")

    uplink = read(document)

    assert uplink.device == "app1:dev1"
    assert (uplink.f_port, uplink.f_cnt, uplink.payload) == (1, 1, b"\x82\x41\xde")
    assert uplink.fields == {"airTemperature": {"innerName": 1.0}}
    assert uplink.metadata["last_a_f_cnt_down"] == 7
    assert uplink.metadata["rx_metadata"][0]["gateway_ids"] == {"gateway_id": "gtw1"}
    assert uplink.repeat_key == read(UPLINK).repeat_key
    assert read(mixed).f_port == 1


def test_numbers_may_be_text() -> None:
    """Numbers in quotes, as JSON mappings of Protocol Buffers write 64-bit ones, are read."""
    uplink = read(changed(f_cnt="70000", f_port="2", packet_error_rate="0.5"))

    assert (uplink.f_cnt, uplink.f_port) == (70000, 2)
    assert uplink.metadata["packet_error_rate"] == 0.5


def test_normalized_uplink_has_fields_and_no_bytes() -> None:
    """A normalized measurement is an uplink with its fields; its bytes would be decoded twice."""
    content = {
        "f_port": 1,
        "f_cnt": 1,
        "frm_payload": "gkHe",
        "normalized_payload": {"air": {"temperature": 21}},
        "normalized_payload_warnings": ["w"],
    }
    uplink = read(message("uplink_normalized", content))

    assert (uplink.type, uplink.payload) == ("uplink", None)
    assert uplink.fields == {"air": {"temperature": 21}}
    assert uplink.metadata["normalized"] is True
    assert uplink.metadata["normalized_payload_warnings"] == ["w"]


def test_join() -> None:
    """A join is a message, and fails each of our downlinks that it invalidated."""
    content = {
        "session_key_id": "AXA50",
        "pending_session": True,
        "invalidated_downlinks": [DOWNLINK, {"correlation_ids": ["as:downlink:1"]}],
        "received_at": "2020-02-17T10:32:24Z",
        "attributes": {"room": "1"},
    }
    uplink = read(message("join_accept", content))

    assert uplink.type == "join"
    assert (uplink.payload, uplink.fields, uplink.f_port, uplink.f_cnt) == (None, None, None, None)
    assert uplink.metadata["session_key_id"] == "AXA50"
    assert uplink.metadata["pending_session"] is True
    assert uplink.attributes == {"room": "1"}
    assert uplink.reports == (
        Report(state=State.FAILED, downlink_id="0197.d1", reason="invalidated"),
    )


@pytest.mark.parametrize(
    ("kind", "state", "more"),
    [
        ("downlink_queued", State.ACCEPTED, {}),
        ("downlink_sent", State.ACCEPTED, {"transmitted": True}),
        ("downlink_ack", State.ACKNOWLEDGED, {}),
        ("downlink_nack", State.NOT_ACKNOWLEDGED, {}),
    ],
)
def test_downlink_events(kind: str, state: State, more: dict[str, Any]) -> None:
    """What became of our downlink is a report with the id that we gave it, and no message."""
    uplink = read(message(kind, DOWNLINK))

    assert uplink.device == "app1:dev1"
    assert uplink.type is None
    assert uplink.time_ms == 1_581_935_544_590
    assert uplink.reports == (
        Report(state=state, downlink_id="0197.d1", detail={"event": kind, "f_cnt": 1, **more}),
    )


def test_retries_of_a_confirmed_downlink_are_told() -> None:
    """A nack says which attempt it was."""
    retry = {"attempt": 2, "max_attempts": 8}
    uplink = read(message("downlink_nack", {**DOWNLINK, "confirmed_retry": retry}))

    assert uplink.reports[0].detail["confirmed_retry"] == retry


def test_id_beside_the_message() -> None:
    """Our id is found in the message's own correlation ids too, and counts once."""
    bare = {"f_port": 15}
    outer = ["as:downlink:1", "funicular:0197.d1"]

    assert [r.downlink_id for r in read(
        message("downlink_ack", bare, correlation_ids=outer)).reports] == ["0197.d1"]  # fmt: skip
    assert len(read(message("downlink_ack", DOWNLINK, correlation_ids=outer)).reports) == 1


def test_others_downlinks_are_not_ours() -> None:
    """A downlink that somebody else scheduled moves none of ours."""
    foreign = {"correlation_ids": ["as:downlink:1", "funicular:", "funicular:" + "x" * 99]}

    assert read(message("downlink_ack", foreign)).reports == ()


def test_failed_downlink() -> None:
    """A failure carries the error's name, and its message with the attributes filled in."""
    error = {
        "namespace": "pkg/networkserver",
        "name": "application_downlink_too_long",
        "message_format": "payload of {length} bytes is longer than {max} ({other})",
        "attributes": {"length": 60, "max": 51},
        "correlation_id": "2e7f",
        "code": 3,
    }
    uplink = read(message("downlink_failed", {"downlink": DOWNLINK, "error": error}))

    (report,) = uplink.reports
    assert (report.state, report.downlink_id) == (State.FAILED, "0197.d1")
    assert report.reason == "application_downlink_too_long"
    assert report.detail == {
        "event": "downlink_failed",
        "message": "payload of `60` bytes is longer than `51` ({other})",
        "namespace": "pkg/networkserver",
        "code": 3,
    }


def test_failed_without_an_error() -> None:
    """A failure that says nothing is still one."""
    (report,) = read(message("downlink_failed", {"downlink": DOWNLINK})).reports

    assert (report.state, report.reason) == (State.FAILED, "failed")


def test_invalidated_queue() -> None:
    """Each of our downlinks in an invalidated queue fails."""
    second = {"correlation_ids": ["funicular:0197.d2"]}
    content = {"downlinks": [DOWNLINK, second], "last_f_cnt_down": 3}
    uplink = read(message("downlink_queue_invalidated", content))

    assert [(r.state, r.downlink_id, r.reason) for r in uplink.reports] == [
        (State.FAILED, "0197.d1", "invalidated"),
        (State.FAILED, "0197.d2", "invalidated"),
    ]


def test_location() -> None:
    """A solved location is a message with the location's own fields."""
    content = {
        "service": "lora-cloud",
        "location": {"latitude": 52.1, "longitude": 4.9, "accuracy": 20, "source": "SOURCE_LORA"},
        "attributes": {"gnss": "1"},
    }
    uplink = read(message("location_solved", content))

    assert uplink.type == "location"
    assert uplink.fields == content["location"]
    assert uplink.metadata["service"] == "lora-cloud"
    assert uplink.metadata["service_attributes"] == {"gnss": "1"}


def test_service_data() -> None:
    """Service data is a message with the data as its fields."""
    content = {"service": "lora-cloud", "data": {"Uplink.Count": 4}}
    uplink = read(message("service_data", content))

    assert uplink.type == "service_data"
    assert uplink.fields == {"Uplink.Count": 4}
    assert uplink.metadata["service"] == "lora-cloud"


@pytest.mark.parametrize(
    ("document", "code", "field"),
    [
        ({"uplink_message": {}}, "device_missing", "end_device_ids.device_id"),
        ({**UPLINK, "end_device_ids": {}}, "device_missing", "end_device_ids.device_id"),
        ({**UPLINK, "end_device_ids": {"device_id": "d"}}, "device_missing", "application_id"),
        ({**UPLINK, "end_device_ids": {"device_id": 5}}, "field", "end_device_ids.device_id"),
        ({"end_device_ids": IDS}, "field", "uplink_message"),
        ({**UPLINK, "join_accept": {}}, "field", "join_accept"),
        ({"end_device_ids": IDS, "uplink_message": [1]}, "field", "uplink_message"),
        (changed(frm_payload="gkH"), "field", "uplink_message.frm_payload"),
        (changed(f_port=300), "field", "uplink_message.f_port"),
        (changed(f_cnt=-1), "field", "uplink_message.f_cnt"),
        (changed(f_cnt=2**32), "field", "uplink_message.f_cnt"),
        (changed(decoded_payload=5), "field", "uplink_message.decoded_payload"),
        (changed(received_at="now"), "field", "uplink_message.received_at"),
        (changed(rx_metadata=["x"]), "field", "uplink_message.rx_metadata[0]"),
        ({**UPLINK, "received_at": "now"}, "field", "received_at"),
        ({**UPLINK, "correlation_ids": "x"}, "field", "correlation_ids"),
        (message("uplink_normalized", {"normalized_payload": []}), "field",
         "uplink_normalized.normalized_payload"),
        (b"\x0a\x04dev1", "not_json", None),
    ],
)  # fmt: skip
def test_bad_messages_say_what_and_where(document: Any, code: str, field: str | None) -> None:
    """A bad message is refused with a code and the field that is at fault."""
    with pytest.raises(MessageError) as caught:
        read(document)

    assert caught.value.code == code
    assert caught.value.detail.get("field") == field


def test_protocol_buffers_are_explained() -> None:
    """A webhook of the other format is told to use JSON."""
    with pytest.raises(MessageError, match="set its format to JSON"):
        read(b"\x0a\x04dev1", headers={"content-type": "application/octet-stream"})


def test_keys_of_repeats() -> None:
    """A repeated webhook has the same key; another kind of message about the same uplink has not;
    two normalized measurements of one uplink have two.
    """
    ids = UPLINK["correlation_ids"]
    one = message("uplink_normalized", {"normalized_payload": {"a": 1}}, correlation_ids=ids)
    two = message("uplink_normalized", {"normalized_payload": {"a": 2}}, correlation_ids=ids)
    keys = [read(document).repeat_key for document in (UPLINK, one, two)]

    assert keys == [read(document).repeat_key for document in (UPLINK, one, two)]
    assert len(set(keys)) == 3


def test_the_servers_own_id_where_an_uplink_says_too_little() -> None:
    """A webhook whose fields are masked still has the Application Server's correlation id."""
    masked = changed()
    del masked["uplink_message"]["session_key_id"]

    assert read(masked).repeat_key == "01E0WZGT6Y7657CPFPE5WEYDSQ"


def test_key_without_correlation_id() -> None:
    """Without the server's own id, session and counter are the key: a rejoin sets the counter
    back, in another session.
    """
    base = {**changed(), "correlation_ids": []}
    rejoined = {**changed(session_key_id="AXA51"), "correlation_ids": []}
    later = {**changed(f_cnt=2), "correlation_ids": []}
    nothing = {"end_device_ids": IDS, "uplink_message": {"f_cnt": 1}}

    keys = {read(document).repeat_key for document in (base, rejoined, later)}
    assert len(keys) == 3
    assert read(base).repeat_key == read(base).repeat_key
    assert read(nothing).repeat_key == ""


SERVER = TtsV3Options.model_validate(
    {"server": "https://eu1.example/", "api_key": "NNSXS.SECRET", "user_agent_suffix": "site-7"}
)
LINK = Link(application_id="app1", device_id="dev1")


@pytest.mark.parametrize(
    ("queue", "operation", "priority"),
    [("last", "push", "NORMAL"), ("first", "push", "HIGHEST"), ("replace", "replace", "NORMAL")],
)
def test_downlinks_go_to_the_server(
    downlink: Callable[..., Downlink], queue: str, operation: str, priority: str
) -> None:
    """Push or replace by the queue's mode, with our id as a correlation id, and our key."""
    call = DIALECT.send(downlink(queue=queue), LINK, SERVER)

    place = "https://eu1.example/api/v3/as/applications/app1/devices/dev1/down/"
    assert (call.method, call.url) == ("POST", place + operation)
    assert orjson.loads(call.body) == {
        "downlinks": [
            {
                "f_port": 15,
                "frm_payload": "vu8=",
                "priority": priority,
                "correlation_ids": ["funicular:0197.d1"],
            }
        ]
    }
    assert call.headers["authorization"] == "Bearer NNSXS.SECRET"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"].startswith("funicular/")
    assert call.headers["user-agent"].endswith(" site-7")


def test_confirmed_and_priority(downlink: Callable[..., Downlink]) -> None:
    """What the downlink asks for goes with it."""
    call = DIALECT.send(downlink(confirmed=True, priority="above_normal"), LINK, SERVER)

    (sent,) = orjson.loads(call.body)["downlinks"]
    assert (sent["confirmed"], sent["priority"]) == (True, "ABOVE_NORMAL")


def test_names_cannot_change_the_path(downlink: Callable[..., Downlink]) -> None:
    """Names from an uplink are quoted in the URL."""
    call = DIALECT.send(downlink(), Link(application_id="a/b?c", device_id="../x"), SERVER)

    assert call.url.endswith("/applications/a%2Fb%3Fc/devices/..%2Fx/down/push")


def test_webhooks_own_way_back(downlink: Callable[..., Downlink]) -> None:
    """A webhook with a downlink API key says itself where downlinks go, and with which key."""
    push = "https://eu1.example/api/v3/as/applications/app1/webhooks/w/devices/dev1/down/push"
    headers = {
        "x-downlink-apikey": "NNSXS.HOOK",
        "x-downlink-push": push,
        "x-downlink-replace": push.replace("push", "replace"),
    }
    link = read(UPLINK, headers=headers).link
    assert link is not None

    call = DIALECT.send(downlink(queue="last"), link, TtsV3Options())
    assert (call.url, call.headers["authorization"]) == (push, "Bearer NNSXS.HOOK")
    call = DIALECT.send(downlink(queue="replace"), link, TtsV3Options())
    assert call.url.endswith("/down/replace")
    with pytest.raises(MessageError, match="`downlink_hosts` does not allow"):
        DIALECT.send(downlink(), link, TtsV3Options(downlink_hosts=("other.example",)))


def test_our_key_stays_with_our_server(downlink: Callable[..., Downlink]) -> None:
    """With `server` set, an uplink's own URL is not called: our key goes to our server only."""
    link = Link(
        application_id="app1", device_id="dev1", key="k", urls={"push": "https://evil.example/"}
    )
    assert DIALECT.send(downlink(), link, SERVER).url.startswith("https://eu1.example/")


@pytest.mark.parametrize(
    ("link", "options"),
    [
        (LINK, TtsV3Options()),
        (Link(urls={"push": "https://x.example"}), TtsV3Options()),
        (Link(device_id="d"), SERVER),
        (Link(application_id="a"), SERVER),
    ],
)
def test_no_way_back_is_said(
    downlink: Callable[..., Downlink], link: Link, options: TtsV3Options
) -> None:
    """Where nothing says where to send it, the error does."""
    with pytest.raises(MessageError) as caught:
        DIALECT.send(downlink(), link, options)
    assert caught.value.code == "no_link"
    assert "SECRET" not in caught.value.message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"server": "https://x.example"}, "go together"),
        ({"api_key": "k"}, "go together"),
        ({"server": "eu1.example", "api_key": "k"}, "must be a URL"),
        ({"server": "https://x.example/?a=b", "api_key": "k"}, "must be a URL"),
        ({"user_agent_suffix": "a\r\nb"}, "pattern"),
    ],
)
def test_options_are_checked(options: dict[str, Any], words: str) -> None:
    """Options that cannot work are refused when the rules are read."""
    with pytest.raises(ValidationError, match=words):
        TtsV3Options.model_validate(options)


def test_server_may_be_given_with_its_api_path() -> None:
    """The address that the console shows works as it is; the key is not shown."""
    options = TtsV3Options.model_validate({"server": "http://ns:1885/api/v3/", "api_key": "k3y"})

    assert options.server == "http://ns:1885"
    assert "k3y" not in repr(options)
