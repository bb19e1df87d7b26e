"""Sigfox: callbacks in every form they come in, and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.integrations.sigfox import DIALECT, SigfoxOptions
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Request
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link, Uplink

# A BIDIR callback with every variable, in quotes, as most templates have them.
BIDIR: dict[str, Any] = {
    "device": "1a2B3c",
    "time": "1581520546",
    "data": "0102030405060708090a0b0c",
    "seqNumber": "4095",
    "ack": "true",
    "longPolling": "false",
    "rssi": "-121.50",
    "snr": "15.25",
    "avgSnr": "14.5",
    "station": "0123",
    "duplicate": "false",
    "deviceTypeId": "5a0b1c2d",
    "lqi": "GOOD",
    "computedLocation": {"lat": 52.1, "lng": 4.9, "radius": 1200, "source": 2, "status": 1},
    "customData#temperature": 21,
}
BYTES = bytes(range(1, 13))
EIGHT = bytes.fromhex("deadbeefcafebabe")


def request(document: Any = None, **more: Any) -> Request:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return Request(**{"body": b"" if document is None else body, **more})


def read_all(asked: Request, options: SigfoxOptions | None = None, template: str = "{device_id}",
             ) -> list[Uplink]:  # fmt: skip
    return DIALECT.read(asked, options or SigfoxOptions(), template)


def read(document: Any = None, **more: Any) -> Uplink:
    (uplink,) = read_all(request(document, **more))
    return uplink


def changed(**changes: Any) -> dict[str, Any]:
    return {**BIDIR, **changes}


def test_every_field_lands_somewhere() -> None:
    """Each variable of a callback is found in the Uplink, as a number where it is one."""
    uplink = read(BIDIR)

    assert uplink.device == "1A2B3C"
    assert uplink.type == "uplink"
    assert uplink.time_ms == 1_581_520_546_000
    assert uplink.payload == BYTES
    assert uplink.answerable is True
    assert uplink.link == Link(device_id="1A2B3C")
    assert (uplink.f_port, uplink.fields, uplink.reports) == (None, None, ())
    assert uplink.metadata == {
        "seq_number": 4095,
        "ack": True,
        "long_polling": False,
        "rssi": -121.5,
        "snr": 15.25,
        "avg_snr": 14.5,
        "station": "0123",
        "duplicate": False,
        "device_type_id": "5a0b1c2d",
        "lqi": "GOOD",
        "computed_location": BIDIR["computedLocation"],
        "customData#temperature": 21,
    }


@pytest.mark.parametrize(
    ("more", "answerable"),
    [
        ({"ack": "false"}, False),
        ({"ack": False}, False),
        ({"ack": True}, True),
        ({"ack": "TRUE"}, True),
        ({"ack": "", "longPolling": "true"}, True),
        ({"ack": "null", "longPolling": "null"}, False),
    ],
)
def test_only_who_asks_can_be_answered(more: dict[str, Any], answerable: bool) -> None:
    """A request can carry a downlink only when the device asked for one."""
    assert read(changed(**more)).answerable is answerable


def test_forms_of_a_callback() -> None:
    """JSON by POST or PUT, a form, and a query by GET say the same."""
    plain = {"device": "1A2B3C", "time": "1581520546", "data": "0102", "seqNumber": "7",
             "ack": "true"}  # fmt: skip
    form = b"device=1A2B3C&time=1581520546&data=0102&seqNumber=7&ack=true"
    form_headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}

    expected = read(plain)
    assert expected.payload == b"\x01\x02"
    assert read(plain, method="PUT") == expected
    assert read(None, method="GET", query=plain) == expected
    assert read(form, headers=form_headers) == expected
    assert read(plain, headers={"content-type": "text/plain"}) == expected


def test_numbers_without_quotes() -> None:
    """A template without quotes gives the same message."""
    bare = changed(time=1581520546, seqNumber=4095, ack=True, longPolling=False, rssi=-121.5,
                   snr=15.25, avgSnr=14.5, duplicate=False)  # fmt: skip

    assert read(bare) == read(BIDIR)


def test_least_message() -> None:
    """Device and data are enough; an empty message of a device is one."""
    uplink = read({"device": "A", "data": ""})

    assert (uplink.device, uplink.payload, uplink.time_ms) == ("A", b"", None)
    assert uplink.answerable is False
    assert uplink.repeat_key == ""


def test_template_with_the_device_type() -> None:
    """The device's type can be part of its name."""
    (uplink,) = read_all(request(BIDIR), template="{device_type_id}/{device_id}")

    assert uplink.device == "5a0b1c2d/1A2B3C"


@pytest.mark.parametrize(
    ("document", "code", "field"),
    [
        ({"data": "01"}, "device_missing", "device"),
        (changed(device=""), "device_missing", "device"),
        (changed(device="null"), "device_missing", "device"),
        (changed(device="123456789"), "field", "device"),
        (changed(device="XYZ"), "field", "device"),
        (changed(device="1A/B"), "field", "device"),
        (changed(device=5), "field", "device"),
        (changed(data="0"), "field", "data"),
        (changed(data="zz"), "field", "data"),
        (changed(data="00" * 13), "field", "data"),
        (changed(time="soon"), "field", "time"),
        (changed(time=-1), "field", "time"),
        (changed(time=1_581_520_546_000_000), "field", "time"),
        (changed(time="nan"), "field", "time"),
        (changed(seqNumber=1.5), "field", "seqNumber"),
        (changed(ack="perhaps"), "field", "ack"),
        (changed(rssi="nan"), "field", "rssi"),
        (changed(computedLocation="x"), "field", "computedLocation"),
        (5, "not_json", ""),
        ([], "field", ""),
        ([5], "not_json", ""),
        (b"{", "not_json", None),
        (b"\xff;\xff", "not_utf8", None),
        (b"", "not_json", None),
    ],
)
def test_bad_callbacks_say_what_and_where(document: Any, code: str, field: str | None) -> None:
    """A bad callback is refused with a code and the field that is at fault."""
    with pytest.raises(MessageError) as caught:
        read(document)

    assert caught.value.code == code
    assert caught.value.detail.get("field") == field


def test_batch_as_an_array() -> None:
    """A JSON array is several messages; one that is bad is named by its place."""
    one, two = changed(ack=False), changed(device="FF", seqNumber=1)

    uplinks = read_all(request([one, two]))
    assert [(u.device, u.answerable) for u in uplinks] == [("1A2B3C", False), ("FF", True)]
    with pytest.raises(MessageError, match="message 1 of the batch: `data`") as caught:
        read_all(request([one, changed(data="x")]))
    assert caught.value.detail == {"field": "data", "index": 1}


def test_batch_as_lines() -> None:
    """Lines of a batch have the values in the order that `batch_fields` says."""
    options = SigfoxOptions(batch_fields=("device", "time", "data", "seqNumber", "ack", "rssi"))
    lines = b"1a2B3c;1581520546;01;5;false;-100\r\n\nFF;1581520547;;6;true;-90.5\n"

    uplinks = read_all(request(lines), options)
    assert [(u.device, u.payload, u.answerable) for u in uplinks] == [
        ("1A2B3C", b"\x01", False),
        ("FF", b"", True),
    ]
    assert uplinks[1].metadata["rssi"] == -90.5
    queried = read_all(request(None, method="GET", query={"batch": lines.decode()}), options)
    assert queried == uplinks


@pytest.mark.parametrize(
    ("lines", "words"),
    [(b"AA;1", "has 2 values; `batch_fields` names 5"), (b" ; ;;;\n", "`device` is missing")],
)
def test_bad_lines_are_explained(lines: bytes, words: str) -> None:
    """A line that does not fit `batch_fields` says what is expected."""
    with pytest.raises(MessageError, match=words):
        read_all(request(lines))


def test_batch_is_limited() -> None:
    """A batch of more messages than `batch_max` is refused whole."""
    options = SigfoxOptions(batch_max=2)

    read_all(request([BIDIR] * 2), options)
    for body in ([BIDIR] * 3, b"A;1;;1;\n" * 3):
        with pytest.raises(MessageError, match="`batch_max` allows 2") as caught:
            read_all(request(body), options)
        assert caught.value.code == "batch_length"


@pytest.mark.parametrize(
    ("info_code", "state", "reason"),
    [
        (0, State.ACKNOWLEDGED, ""),
        (1, State.NOT_ACKNOWLEDGED, "no_answer"),
        (2, State.FAILED, "invalid_payload"),
        (3, State.FAILED, "overrun_error"),
        (4, State.FAILED, "network_error"),
        (5, State.ACCEPTED, ""),
        (6, State.FAILED, "no_downlink_contract"),
        (7, State.FAILED, "too_many_requests"),
        (8, State.FAILED, "invalid_configuration"),
        (99, State.NOT_ACKNOWLEDGED, "unknown"),
    ],
)
def test_acknowledge(info_code: int, state: State, reason: str) -> None:
    """An ACKNOWLEDGE says what became of the device's last downlink; it is no message."""
    uplink = read(
        {
            "device": "1a2b3c",
            "time": "1581520600",
            "infoCode": str(info_code),
            "infoMessage": "Acked",
            "downlinkAck": "true" if info_code == 0 else "false",
            "downlinkOverusage": "false",
        }
    )

    assert (uplink.device, uplink.type, uplink.answerable) == ("1A2B3C", None, False)
    (report,) = uplink.reports
    assert (report.state, report.reason, report.downlink_id) == (state, reason, "")
    assert report.detail["info_code"] == info_code
    assert report.detail["message"] == "Acked"
    assert report.detail["downlink_overusage"] is False


@pytest.mark.parametrize(
    ("ack", "state"), [(True, State.ACKNOWLEDGED), ("false", State.NOT_ACKNOWLEDGED)]
)
def test_acknowledge_without_a_code(ack: Any, state: State) -> None:
    """Without `infoCode`, `downlinkAck` decides."""
    assert read({"device": "A", "downlinkAck": ack}).reports[0].state is state


def test_location_callback() -> None:
    """A callback with a computed location and no data is a location."""
    uplink = read({"device": "A", "time": 5, "computedLocation": BIDIR["computedLocation"]})

    assert uplink.type == "location"
    assert uplink.fields == {
        "latitude": 52.1, "longitude": 4.9, "accuracy": 1200, "source": 2, "status": 1,
    }  # fmt: skip


def test_keys_of_repeats() -> None:
    """Sigfox's second try has the first one's key; another counter, time or device has not."""
    key = read(BIDIR).repeat_key

    assert read(changed(ack=False, device="1A2B3C", station="other")).repeat_key == key != ""
    for other in ({"seqNumber": 1}, {"time": 1581520547}, {"device": "FF"}):
        assert read(changed(**other)).repeat_key != key
    located = {k: v for k, v in BIDIR.items() if k != "data"}
    assert read(located).repeat_key != key


def reply(device: str, part: int = 1, of: int = 1, payload: bytes | None = EIGHT) -> Reply:
    carries = "" if payload is None else f"d{part}"
    return Reply("r", device=device, part=part, of=of, downlink_id=carries, payload=payload)


def test_answer_with_a_downlink() -> None:
    """The answer has the 8 bytes under the device's id as it was sent."""
    response = DIALECT.answer([reply("1A2B3C")], request(BIDIR), SigfoxOptions())

    assert response.status == 200
    assert response.headers["content-type"] == "application/json"
    assert response.body == b'{"1a2B3c":{"downlinkData":"deadbeefcafebabe"}}'


def test_answer_to_a_batch() -> None:
    """Each part of the answer goes to its own device, whatever name the template made of it."""
    asked = request([changed(), changed(device="FF"), changed(), changed(device="ab")])
    replies = [
        reply("x/AB", 3, 3, bytes(8)),
        reply("x/1A2B3C", 1, 3),
        reply("x/FF", 2, 3, None),
    ]

    response = DIALECT.answer(replies, asked, SigfoxOptions())
    assert orjson.loads(response.body) == {
        "1a2B3c": {"downlinkData": "deadbeefcafebabe"},
        "ab": {"downlinkData": "0" * 16},
    }


@pytest.mark.parametrize("replies", [[], [reply("1A2B3C", payload=None)]])
def test_nothing_to_answer(replies: list[Reply]) -> None:
    """Nothing waits, or nothing came in time: 204, without a body."""
    response = DIALECT.answer(replies, request(BIDIR), SigfoxOptions())

    assert (response.status, response.body) == (204, b"")


def test_a_downlink_that_cannot_be_answered_is_refused() -> None:
    """A downlink of the wrong length is never cut or padded."""
    with pytest.raises(MessageError, match="exactly 8 bytes"):
        DIALECT.answer([reply("1A2B3C", payload=b"1")], request(BIDIR), SigfoxOptions())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"payload": b"1234567", "f_port": None}, "payload_length"),
        ({"payload": b"123456789", "f_port": None}, "payload_length"),
        ({"payload": None, "f_port": None}, "payload_length"),
        ({"payload": EIGHT, "f_port": 1}, "f_port"),
    ],
)
def test_what_sigfox_cannot_carry(
    downlink: Callable[..., Downlink], changes: dict[str, Any], code: str
) -> None:
    """A downlink has exactly 8 bytes and no port."""
    with pytest.raises(MessageError) as caught:
        DIALECT.check(downlink(**changes))
    assert caught.value.code == code


def test_eight_bytes_pass(downlink: Callable[..., Downlink]) -> None:
    """Eight bytes without a port are fine; but they cannot be sent, only be an answer."""
    DIALECT.check(downlink(payload=EIGHT, f_port=None))
    with pytest.raises(MessageError, match="only be answered") as caught:
        DIALECT.send(downlink(payload=EIGHT, f_port=None), Link(), SigfoxOptions())
    assert caught.value.code == "no_link"


@pytest.mark.parametrize(("device", "payload"), [("dev1", b""), ("A", bytes(13))])
def test_sample_says_what_it_cannot_do(device: str, payload: bytes) -> None:
    """A sample for an id or a payload that Sigfox does not have is refused."""
    with pytest.raises(MessageError):
        DIALECT.sample(device, 1, payload, 1_581_520_546_000)


def test_status_callback() -> None:
    """SERVICE STATUS tells the battery's voltage and the temperature, as numbers."""
    uplink = read({"device": "1A2B3C", "time": "1581520546", "seqNumber": "7", "batt": "3.25",
                   "temp": "21.5"})  # fmt: skip

    assert uplink.type == "status"
    assert uplink.fields == {"battery_voltage": 3.25, "temperature": 21.5}
    assert (uplink.payload, uplink.answerable) == (None, False)
    assert uplink.metadata == {"seq_number": 7}


def test_error_callback() -> None:
    """ERROR is service_data: what is wrong with the device, and how bad it is."""
    uplink = read({"device": "1A2B3C", "time": 1581520546, "info": "Data loss", "severity": "WARN"})

    assert uplink.type == "service_data"
    assert uplink.fields == {"severity": "WARN", "info": "Data loss"}
    assert uplink.metadata == {"service": "error"}
    assert uplink.repeat_key


def test_advanced_data_keeps_its_data_and_its_place() -> None:
    """DATA_ADVANCED has bytes: it is an uplink, with the place and the operator as metadata."""
    place = {"lat": 52.1, "lng": 4.9, "radius": 1200, "source": 2, "status": 1}
    uplink = read({"device": "1A2B3C", "time": 1581520546, "seqNumber": 7, "data": "0102",
                   "lqi": "Good", "operatorName": "SIGFOX_France", "countryCode": "250",
                   "computedLocation": place})  # fmt: skip

    assert (uplink.type, uplink.payload) == ("uplink", b"\x01\x02")
    assert uplink.metadata["computed_location"] == place
    assert uplink.metadata["operatorName"] == "SIGFOX_France"


def test_each_callback_of_a_message_has_its_own_key() -> None:
    """DATA, GEOLOC and STATUS of one message share its counter and are no repeats of each other."""
    base = {"device": "1A2B3C", "time": 1581520546, "seqNumber": 7}
    more: list[dict[str, Any]] = [
        {"data": "01"},
        {"computedLocation": {"lat": 1, "lng": 2, "radius": 3}},
        {"batt": 3},
        {"info": "x"},
    ]
    keys = [read({**base, **each}).repeat_key for each in more]

    assert len(set(keys)) == len(keys)
