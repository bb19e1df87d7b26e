"""What every dialect must do with downlinks: their bytes leave, and what became of them is read.

The requests are of the forms that the network servers' documents show.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Dialect, OverMqtt, dialects
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Request
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link, Uplink
from tests.contract.dialect_ways import DEVICE, EUI, OVER_MQTT, WAYS

ITEM = "6f2a1bd8-3f29-4d10-8d2c-9b9e1f3a4c55"
PAYLOAD = b"\xde\xad\x01"
JSON = {"content-type": "application/json"}
PAGE = (Path(__file__).parents[2] / "docs/integrations.md").read_text()
TABLE = PAGE.partition("## Dialects")[2].partition("## Transports")[0]


@dataclass(frozen=True)
class Said:
    """What a network server says of a downlink; `topic` where that is published."""

    body: Any
    state: State
    query: dict[str, str] = field(default_factory=dict)
    topic: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    knows: str = ""
    """How the report names the downlink: `downlink_id` or `reference`; empty: as the last one."""


INFO = {"devEui": EUI, "applicationId": "app1", "applicationName": "a", "deviceName": "d"}
OF_V3 = {"applicationID": "1", "applicationName": "a", "deviceName": "d", "devEUI": EUI}
OF_TTS = {"application_ids": {"application_id": "app1"}, "device_id": DEVICE}
SAID = {
    "ttn_v2": Said({}, State.ACKNOWLEDGED, topic=f"app1/devices/{DEVICE}/events/down/acks"),
    "tts_v3": Said(
        {"end_device_ids": OF_TTS, "correlation_ids": ["funicular:l1"],
         "received_at": "2026-11-21T10:00:00Z",
         "downlink_ack": {"f_port": 15, "f_cnt": 1, "frm_payload": "3q0B"}},
        State.ACKNOWLEDGED, knows="downlink_id",
    ),
    "chirpstack": Said(
        {"deviceInfo": INFO, "queueItemId": ITEM, "acknowledged": True, "fCntDown": 7},
        State.ACKNOWLEDGED, {"event": "ack"}, knows="reference",
    ),
    "chirpstack_v3": Said(
        {**OF_V3, "acknowledged": True, "fCnt": 12}, State.ACKNOWLEDGED, {"event": "ack"},
        knows="reference",
    ),
    "loriot": Said({"cmd": "txd", "EUI": EUI, "seqdn": 12, "ts": 1}, State.ACCEPTED,
                   knows="reference"),
    "thingpark": Said(
        {"DevEUI_downlink_Sent": {"DevEUI": EUI, "FCntDn": "7", "DeliveryStatus": "1"}},
        State.ACCEPTED,
    ),
    "everynet": Said(
        {"type": "downlink", "params": {"counter_down": 7},
         "meta": {"device": EUI, "application": "app1", "time": 1_512_000_000.5}},
        State.ACCEPTED,
    ),
    "sigfox": Said(
        {"device": DEVICE, "time": "1581520600", "infoCode": "0", "infoMessage": "Acked",
         "downlinkAck": "true", "downlinkOverusage": "false"},
        State.ACKNOWLEDGED,
    ),
    "aws_iot": Said(
        {"previous": None, "current": {"state": {"desired": {"a": 1}}, "version": 2},
         "timestamp": 1_790_000_000, "clientToken": "funicular-l1"},
        State.ACCEPTED, topic=f"$aws/things/{DEVICE}/shadow/update/documents", knows="downlink_id",
    ),
}  # fmt: skip
NONE = {
    "helium": "its console says nothing of downlinks over the HTTP integration",
    "kerlink": "Wanesy is not read here for what became of a downlink",
    "http": "who posts may say anything: what a device confirms is a message of its own",
    "mqtt": "topics are the user's own: what a device confirms is a message of its own",
    "azure_iot_hub": "a device's side hears nothing of what the hub did with its messages",
    "watson_iot": "its commands are published, and never confirmed",
    "opcua": "a write is confirmed at once: the hand-over's result is the report",
}
"""Dialects whose network servers report nothing → why."""
TOPICS: dict[str, dict[str, Any]] = {
    "mqtt": {"topic": "p/{device_id}/{kind}", "downlink_topic": "p/{device_id}/down"},
    "azure_iot_hub": {"role": "hub"},
}
ANSWERED = sorted({"sigfox", "everynet", "http"})


def request_of(dialect: Dialect, said: Said, body: bytes) -> Request | None:
    if not said.topic:
        return Request(body=body, query=said.query, headers=JSON)
    assert isinstance(dialect, OverMqtt)
    return dialect.from_topic(said.topic, body, dialect.options.model_validate(said.options))


def read(name: str, body: bytes) -> list[Uplink]:
    dialect = dialects()[name]
    request = request_of(dialect, SAID[name], body)
    assert request is not None
    options = dialect.options.model_validate(SAID[name].options)
    return dialect.read(request, options, dialect.device_template)


def test_each_dialect_says_what_becomes_of_downlinks() -> None:
    """A dialect has its report here, or says why there is none; the page says the same."""
    assert SAID.keys() | NONE.keys() == dialects().keys()
    assert not SAID.keys() & NONE.keys()
    for name in dialects():
        (row,) = re.findall(rf"^\| `{name}` \|.*\|$", TABLE, re.MULTILINE)
        reports = row.split("|")[6].strip()
        assert (reports in {"none", "the server's status, at once"}) is (name in NONE), row


@pytest.mark.parametrize("name", sorted(SAID))
def test_an_acknowledgement_is_a_report(name: str) -> None:
    """It moves one downlink of the device, the one that it names, or else the last one; it is no
    uplink with a payload, and is known when it comes again.
    """
    said = SAID[name]
    body = orjson.dumps(said.body)
    (uplink,) = read(name, body)
    (report,) = uplink.reports

    assert report.state is said.state
    assert [bool(report.downlink_id), bool(report.reference)] == [
        said.knows == "downlink_id", said.knows == "reference"
    ]  # fmt: skip
    assert uplink.device is not None
    assert uplink.device.lower().endswith((EUI, DEVICE.lower()))
    assert not uplink.payload
    assert not uplink.answerable
    msgspec.json.encode(uplink)
    assert read(name, body)[0].repeat_key == uplink.repeat_key


@pytest.mark.parametrize("name", sorted(SAID))
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_reports(name: str, data: st.DataObject) -> None:
    """A report that is cut off, or has bytes changed, never raises anything but MessageError."""
    body = bytearray(orjson.dumps(SAID[name].body))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    try:
        uplinks = read(name, cut)
    except MessageError as fault:
        said = fault.message
        assert said, fault.code  # noqa: PT017 - which of the two it is does not matter
    else:
        assert all(orjson.dumps(msgspec.to_builtins(each)) for each in uplinks)


def downlink() -> Downlink:
    return Downlink(id="l1", tenant="t", device=DEVICE, integration="i", state=State.SENDING,
                    requested_ms=1, changed_ms=1, payload=PAYLOAD, f_port=1)  # fmt: skip


def device_of(dialect: Dialect) -> str:
    return EUI if dialect.device_template == "{dev_eui}" else DEVICE


def holds(text: bytes, payload: bytes = PAYLOAD) -> bool:
    """Return whether a message has the bytes, in whichever of the usual ways."""
    forms = [payload, b64encode(payload), payload.hex().encode(), payload.hex().upper().encode()]
    return any(form in text for form in forms)


@pytest.mark.parametrize("name", sorted(WAYS))
def test_a_downlinks_bytes_leave_by_request(name: str) -> None:
    """What a converter encoded is in the request, whole, and no other's."""
    dialect = dialects()[name]
    device = device_of(dialect)
    link = Link(application_id="app1", device_id=device, dev_eui=EUI)
    call = dialect.send(downlink(), link, dialect.options.model_validate(WAYS[name]))
    told = call.body + call.url.encode()
    assert holds(told)
    assert not holds(told, b"\xbe\xef\x02")


@pytest.mark.parametrize("name", OVER_MQTT)
def test_a_downlinks_bytes_leave_by_topic(name: str) -> None:
    """What a converter encoded is in the message that is published."""
    dialect = dialects()[name]
    assert isinstance(dialect, OverMqtt)
    link = Link(application_id="app1", device_id=device_of(dialect), dev_eui=EUI)
    options = dialect.options.model_validate(TOPICS.get(name, {}))
    assert holds(dialect.publication(downlink(), link, options).payload)


@pytest.mark.parametrize("name", ANSWERED)
def test_a_downlinks_bytes_leave_by_answer(name: str) -> None:
    """Where a device is answered, the answer to its own request has them."""
    dialect = dialects()[name]
    request = dialect.sample(device_of(dialect), 7, b"\x01", 1_790_000_000_000)
    payload = PAYLOAD.ljust(8, b"\x00") if name == "sigfox" else PAYLOAD  # its frames have 8 bytes
    reply = Reply("r", device=device_of(dialect), downlink_id="l1", payload=payload, f_port=1)
    answer = dialect.answer([reply], request, dialect.options.model_validate({}))
    assert answer.status == 200
    assert holds(answer.body, payload)
