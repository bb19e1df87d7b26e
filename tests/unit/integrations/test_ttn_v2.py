"""The Things Network v2: the uplink of its documentation, field by field, and its downlinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.integrations.ttn_v2 import DIALECT, TtnV2Options
from pipeline.model.downlink import Downlink
from pipeline.model.http import Request
from pipeline.model.uplink import Link, Uplink

URL = "https://integrations.thethingsnetwork.org/ttn-eu/api/v2/down/my-app-id/my-process-id?key=ttn-account-v2.secret"
# As the HTTP integration's page has it, with a time and all that it may leave out.
DOCUMENTED: dict[str, Any] = {
    "app_id": "my-app-id",
    "dev_id": "my-dev-id",
    "hardware_serial": "0102030405060708",
    "port": 1,
    "counter": 2,
    "is_retry": False,
    "confirmed": False,
    "payload_raw": "AQIDBA==",
    "payload_fields": {"temperature": 21.5},
    "metadata": {
        "airtime": 46336000,
        "time": "2020-02-12T15:15:46.014773143Z",
        "frequency": 868.1,
        "modulation": "LORA",
        "data_rate": "SF7BW125",
        "bit_rate": 50000,
        "coding_rate": "4/5",
        "gateways": [
            {"gtw_id": "far", "timestamp": 1, "channel": 0, "rssi": -110, "snr": -3, "rf_chain": 0},
            {
                "gtw_id": "ttn-herengracht-ams",
                "timestamp": 12345,
                "time": "",
                "channel": 0,
                "rssi": -25,
                "snr": 5,
                "rf_chain": 0,
                "latitude": 52.1234,
                "longitude": 6.1234,
                "altitude": 6,
            },
        ],
        "latitude": 52.2345,
        "longitude": 6.2345,
        "altitude": 2,
    },
    "attributes": {"room": "attic"},
    "downlink_url": URL,
}
TEMPLATE = DIALECT.device_template


def read(document: Any, template: str = TEMPLATE) -> Uplink:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    (uplink,) = DIALECT.read(Request(body=body), TtnV2Options(), template)
    return uplink


def changed(**changes: Any) -> Uplink:
    return read({**DOCUMENTED, **changes})


def test_every_field_lands_somewhere() -> None:
    """Each field of the documented uplink is found in the Uplink."""
    uplink = read(DOCUMENTED)

    assert uplink.device == "my-app-id:my-dev-id"
    assert uplink.type == "uplink"
    assert uplink.time_ms == 1_581_520_546_014
    assert uplink.payload == b"\x01\x02\x03\x04"
    assert uplink.fields == {"temperature": 21.5}
    assert uplink.f_port == 1
    assert uplink.f_cnt == 2
    assert uplink.dev_eui == "0102030405060708"
    assert uplink.confirmed is False
    assert uplink.attributes == {"room": "attic"}
    assert uplink.link == Link(
        application_id="my-app-id",
        device_id="my-dev-id",
        dev_eui="0102030405060708",
        urls={"downlink": URL},
    )
    assert uplink.metadata == {
        **DOCUMENTED["metadata"],
        "application_id": "my-app-id",
        "device_id": "my-dev-id",
        "is_retry": False,
        "gateway_count": 2,
        "rssi": -25,
        "snr": 5,
    }
    assert uplink.answerable is False
    assert uplink.reports == ()


def test_least_uplink() -> None:
    """What may be left out may be missing: only the device must be named."""
    uplink = read({"app_id": "a", "dev_id": "d"})

    assert uplink.device == "a:d"
    assert (uplink.payload, uplink.fields, uplink.f_port, uplink.f_cnt) == (b"", None, None, None)
    assert uplink.time_ms is None
    assert uplink.link == Link(application_id="a", device_id="d")
    assert uplink.repeat_key == ""


def test_null_is_left_out() -> None:
    """Go writes null for a nil map or slice; it counts as left out."""
    uplink = changed(payload_fields=None, attributes=None, metadata={"gateways": None, "time": ""})

    assert uplink.fields is None
    assert uplink.attributes == {}
    assert uplink.time_ms is None


def test_two_applications_keep_their_dev1_apart() -> None:
    """Devices of one name in two applications are two devices, unless the template says else."""
    one, two = {"app_id": "a", "dev_id": "dev1"}, {"app_id": "b", "dev_id": "dev1"}

    assert read(one).device != read(two).device
    assert read(one, "{device_id}").device == read(two, "{device_id}").device == "dev1"
    assert read(DOCUMENTED, "{dev_eui}").device == "0102030405060708"


@pytest.mark.parametrize(
    ("document", "code", "field"),
    [
        ({"app_id": "a"}, "device_missing", "dev_id"),
        ({"app_id": "a", "dev_id": ""}, "device_missing", "dev_id"),
        ({"dev_id": "d"}, "device_missing", "application_id"),
        ({"app_id": "a", "dev_id": 5}, "field", "dev_id"),
        ({"app_id": "a", "dev_id": "x" * 300}, "field", "dev_id"),
        ({"app_id": "a", "dev_id": "d\n"}, "device_name", None),
        ({**DOCUMENTED, "payload_raw": "AQI"}, "field", "payload_raw"),
        ({**DOCUMENTED, "payload_raw": [1, 2]}, "field", "payload_raw"),
        ({**DOCUMENTED, "port": 256}, "field", "port"),
        ({**DOCUMENTED, "port": "1"}, "field", "port"),
        ({**DOCUMENTED, "counter": -1}, "field", "counter"),
        ({**DOCUMENTED, "counter": 2**32}, "field", "counter"),
        ({**DOCUMENTED, "confirmed": "no"}, "field", "confirmed"),
        ({**DOCUMENTED, "payload_fields": [1]}, "field", "payload_fields"),
        ({**DOCUMENTED, "metadata": "x"}, "field", "metadata"),
        ({**DOCUMENTED, "metadata": {"time": "now"}}, "field", "metadata.time"),
        ({**DOCUMENTED, "downlink_url": "x" * 3000}, "field", "downlink_url"),
        ([], "not_json", ""),
        (b"temperature=5", "not_json", None),
    ],
)
def test_bad_uplinks_say_what_and_where(document: Any, code: str, field: str | None) -> None:
    """A bad uplink is refused with a code and the field that is at fault."""
    with pytest.raises(MessageError) as caught:
        read(document)

    assert caught.value.code == code
    assert caught.value.detail.get("field") == field


def test_same_request_has_the_same_key() -> None:
    """The same webhook sent twice is known by its key."""
    assert read(DOCUMENTED).repeat_key == read(DOCUMENTED).repeat_key != ""


@pytest.mark.parametrize(
    "changes",
    [
        {"payload_raw": "AQIDBQ=="},
        {"dev_id": "another"},
        {"app_id": "another"},
        {"metadata": {"time": "2020-02-12T15:30:00Z"}},
    ],
)
def test_other_messages_have_other_keys(changes: dict[str, Any]) -> None:
    """Another device, payload or time is another message, whatever its counter, which a reset sets
    back, and which the storage does not keep.
    """
    assert changed(**changes).repeat_key != read(DOCUMENTED).repeat_key


@pytest.mark.parametrize(
    "changes",
    [
        {"counter": 3},
        {"port": 2},
        {"payload_raw": "AQIDBQ=="},
        {"hardware_serial": "0102030405060709"},
    ],
)
def test_other_confirmed_messages_have_other_keys(changes: dict[str, Any]) -> None:
    """Of what a device may repeat at another time, counter, port, payload and device tell."""
    assert changed(confirmed=True, **changes).repeat_key != changed(confirmed=True).repeat_key


def test_a_device_repeating_a_confirmed_uplink_is_known() -> None:
    """`is_retry`: the device did not hear the acknowledgement and sent the same again, later."""
    first = changed(confirmed=True)
    again = changed(
        confirmed=True, is_retry=True, metadata={"time": "2020-02-12T15:15:52Z", "frequency": 868.5}
    )

    assert first.repeat_key == again.repeat_key
    assert again.metadata["is_retry"] is True


def test_a_confirmed_uplink_is_known_in_the_storage() -> None:
    """The storage keeps neither the counter nor that it was confirmed: there its time is its key,
    which is the second one of what came live.
    """
    live = changed(confirmed=True)
    stored = changed(confirmed=None, counter=None)

    assert live.repeat_also == stored.repeat_key != ""
    assert stored.repeat_also == ""
    assert live.repeat_key != stored.repeat_key


def test_without_time_there_is_no_key() -> None:
    """Where nothing tells two messages of one counter apart, none is taken for a repeat."""
    assert changed(metadata={}).repeat_key == ""
    assert changed(counter=None, confirmed=True).repeat_key == ""


LINK = Link(application_id="my-app-id", device_id="my-dev-id", urls={"downlink": URL})


@pytest.mark.parametrize("schedule", ["replace", "first", "last"])
def test_downlink_goes_to_the_uplinks_url(downlink: Callable[..., Downlink], schedule: str) -> None:
    """A downlink is a POST to the uplink's own URL, with the queue as `schedule`."""
    call = DIALECT.send(downlink(queue=schedule, confirmed=True), LINK, TtnV2Options())

    assert call.url == URL
    assert call.method == "POST"
    assert orjson.loads(call.body) == {
        "dev_id": "my-dev-id",
        "port": 15,
        "confirmed": True,
        "schedule": schedule,
        "payload_raw": "vu8=",
    }
    assert call.headers["content-type"] == "application/json"
    assert call.headers["user-agent"].startswith("funicular/")


def test_options_url_comes_first(downlink: Callable[..., Downlink]) -> None:
    """`downlink_url` of the options is called instead, and is not shown in their repr."""
    options = TtnV2Options.model_validate({"downlink_url": "https://ns.example/down?key=secret"})

    assert DIALECT.send(downlink(), LINK, options).url == "https://ns.example/down?key=secret"
    assert "secret" not in repr(options)


@pytest.mark.parametrize(
    "link",
    [
        Link(),
        Link(device_id="d"),
        Link(device_id="d", urls={"downlink": "ftp://x/"}),
        Link(device_id="d", urls={"downlink": "https://"}),
        Link(device_id="d", urls={"downlink": "https://x/\r\nHost: y"}),
        Link(device_id="d", urls={"downlink": "https://[x/"}),
    ],
)
def test_no_way_back_is_said(downlink: Callable[..., Downlink], link: Link) -> None:
    """Without a URL that can be called, the error says so, and shows no URL."""
    with pytest.raises(MessageError) as caught:
        DIALECT.send(downlink(), link, TtnV2Options())
    assert caught.value.code == "no_link"


def test_hosts_can_be_limited(downlink: Callable[..., Downlink]) -> None:
    """An uplink cannot make us call a host that `downlink_hosts` does not name."""
    allowed = TtnV2Options(downlink_hosts=("integrations.thethingsnetwork.org",))
    inside = Link(device_id="d", urls={"downlink": "http://10.0.0.1/admin"})

    assert DIALECT.send(downlink(), LINK, allowed).url == URL
    with pytest.raises(MessageError, match=r"`10\.0\.0\.1`, which `downlink_hosts`"):
        DIALECT.send(downlink(), inside, allowed)
