"""The stage convert, on records as the door makes them."""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import orjson
import pytest

from pipeline.convert.stage import Convert
from pipeline.errors import RetryableError, ScriptError
from pipeline.integrations.dialect import dialects
from pipeline.model.downlink import State
from pipeline.model.event import DeviceMessage, DownlinkReport, Window
from pipeline.model.http import SOURCE_KEY, Request
from pipeline.model.record import Record
from pipeline.model.reply import Reply
from pipeline.ports import ScriptCall
from pipeline.rulebook.book import Chosen
from pipeline.rulebook.choosing import ChoiceConfig

JSON = {"content-type": "application/json"}
RECORD_MS = 1_700_000_000_000
Decoder = Callable[[ScriptCall], Any]
Wait = Callable[..., dict[str, str]]


def ttn(counter: int = 1, payload: bytes = b"\x15", device: str = "dev1") -> Request:
    return dialects()["ttn_v2"].sample(device, counter, payload, RECORD_MS - 100)


def sigfox(*messages: dict[str, Any]) -> Request:
    return Request(orjson.dumps(messages[0] if len(messages) == 1 else messages), headers=JSON)


def http(document: Any, **more: Any) -> Request:
    return Request(orjson.dumps(document), headers=JSON, **more)


def returns(value: Any) -> Decoder:
    return lambda _call: value


# ---- what an event has ----


def test_an_uplink_becomes_an_event(world: Any, first_byte: Decoder) -> None:
    """A decoded uplink is one event of its device, with all that is known of it."""
    world.integration("ns", "ttn_v2", first_byte, device_type="thermostat",
                      metadata={"site": "Amsterdam"})  # fmt: skip
    out = world.run(world.record("ns", ttn()))

    event = out.message
    assert (event.id, event.type, event.tenant, event.device) == ("u1.0", "uplink", "acme", "dev1")
    assert (event.integration, event.device_type, event.device_kind) == (
        "ns", "thermostat", "device",
    )  # fmt: skip
    assert event.telemetry == {"temperature": 21}
    assert event.time_ms == RECORD_MS - 100
    assert event.received_ms == RECORD_MS
    assert (event.f_port, event.f_cnt, event.payload) == (1, 1, b"\x15")
    assert event.metadata["frequency"] == 868.1
    assert event.metadata["integration"] == {"site": "Amsterdam"}
    assert event.link is not None
    assert event.link.device_id == "dev1"
    assert event.window is None
    (record,) = out.event_records
    assert (record.topic, record.key) == ("device.events", "acme/dev1")
    assert record.partition is None
    assert {**record.headers, "repeat": "…"} == {
        "id": "u1.0", "trace": "u1", "cause": "u1", "tenant": "acme", "rules": "v1",
        "schema": "1", "repeat": "…",
    }  # fmt: skip


def test_the_repeat_key_travels(world: Any, first_byte: Decoder) -> None:
    """The dialect's key is a header; the same request has the same key in another record."""
    world.integration("ns", "ttn_v2", first_byte)
    out = world.run(world.record("ns", ttn(1)), world.record("ns", ttn(1)),
                    world.record("ns", ttn(2, b"\x16")))  # fmt: skip

    keys = [record.headers["repeat"] for record in out.event_records]
    assert keys[0] == keys[1] != keys[2]


def test_a_second_repeat_key_travels(world: Any, first_byte: Decoder) -> None:
    """A confirmed uplink of The Things Network v2 has two keys, any other one."""
    world.integration("ns", "ttn_v2", first_byte)
    confirmed = ttn(1)
    body = orjson.dumps(orjson.loads(confirmed.body) | {"confirmed": True})
    confirmed = msgspec.structs.replace(confirmed, body=body)
    out = world.run(world.record("ns", confirmed), world.record("ns", ttn(2)))

    first, second = (record.headers for record in out.event_records)
    assert "" != first["repeat_also"] != first["repeat"]
    assert "repeat_also" not in second


def test_a_source_tells_its_messages_apart(world: Any, first_byte: Decoder) -> None:
    """Where the dialect has no key of its own the source's is the header; the dialect's goes
    first; rules see nothing of it.
    """
    world.integration("plain", "http", options={"device_query": "key"})
    world.integration("ns", "ttn_v2", first_byte)
    told = {SOURCE_KEY: "plant/t/0/7"}
    uplink = ttn(1)
    known = msgspec.structs.replace(uplink, headers={**uplink.headers, **told})
    out = world.run(
        world.record("plain", http({"t": 1}, query={"key": "d1"})),
        world.record("plain", Request(b'{"t":1}', query={"key": "d1"}, headers={**JSON, **told})),
        world.record("ns", uplink),
        world.record("ns", known),
    )

    keys = [record.headers.get("repeat") for record in out.event_records]
    assert keys[:2] == [None, "plant/t/0/7#0"]
    assert keys[2] == keys[3] != "plant/t/0/7#0"
    assert SOURCE_KEY not in out.events[1].metadata["headers"]


def test_the_script_is_told_what_it_needs(world: Any) -> None:
    """A LoRaWAN decoder gets bytes, port, time and the integration's metadata."""
    world.integration("ns", "ttn_v2", returns({"data": {}}), metadata={"site": "A"})
    world.run(world.record("ns", ttn()))

    ((call,),) = world.scripts.batches
    assert (call.tenant, call.operation, call.contract) == ("acme", "decode_uplink", "lorawan")
    assert call.argument == {
        "bytes": "FQ==",
        "fPort": 1,
        "recvTime": 1_699_999_999_900,
        "variables": {"site": "A"},
    }


def test_one_call_for_the_batch(world: Any, first_byte: Decoder) -> None:
    """All uplinks of a batch go to the scripts at once, and come back to their own records."""
    world.integration("ns", "ttn_v2", first_byte)
    world.integration("plain", "ttn_v2")
    out = world.run(
        *(
            world.record("plain" if n == 3 else "ns", ttn(n, bytes([n]), f"dev{n}"))
            for n in range(1, 6)
        )
    )

    assert [len(batch) for batch in world.scripts.batches] == [4]
    assert [(e.device, e.telemetry) for e in out.events] == [
        ("dev1", {"temperature": 1}),
        ("dev2", {"temperature": 2}),
        ("dev3", {}),
        ("dev4", {"temperature": 4}),
        ("dev5", {"temperature": 5}),
    ]


def test_warnings_are_kept(world: Any) -> None:
    """A decoder's warnings are part of the event."""
    world.integration("ns", "ttn_v2", returns({"data": {"a": 1}, "warnings": ["low battery"]}))

    assert world.run(world.record("ns", ttn())).message.warnings == ("low battery",)


def test_already_decoded_fields_are_used(world: Any) -> None:
    """Without a converter, what the network server decoded is the telemetry."""
    world.integration("ns", "ttn_v2")
    body = {"app_id": "a", "dev_id": "d", "payload_raw": "AQ==", "payload_fields": {"t": 1}}

    assert world.run(world.record("ns", http(body))).message.telemetry == {"t": 1}


def test_the_converter_comes_before_decoded_fields(world: Any, first_byte: Decoder) -> None:
    """With a converter, the bytes are decoded by it; without bytes, the fields are used."""
    world.integration("ns", "ttn_v2", first_byte)
    body = {"app_id": "a", "dev_id": "d", "payload_raw": "AQ==", "payload_fields": {"t": 1}}
    both = world.run(world.record("ns", http(body)))
    fields = world.run(world.record("ns", http({**body, "payload_raw": ""})))

    assert both.message.telemetry == {"temperature": 1}
    assert fields.message.telemetry == {"t": 1}


def test_undecoded_uplinks_are_events_too(world: Any, first_byte: Decoder) -> None:
    """Without converter and fields an uplink is still an event; f_port 0 is not decoded."""
    world.integration("plain", "ttn_v2")
    world.integration("ns", "ttn_v2", first_byte)
    plain = world.run(world.record("plain", ttn())).message
    body = {"app_id": "a", "dev_id": "d", "payload_raw": "AQ==", "port": 0}
    mac = world.run(world.record("ns", http(body))).message

    assert (plain.telemetry, plain.payload) == ({}, b"\x15")
    assert (mac.telemetry, mac.f_port) == ({}, 0)
    assert world.scripts.batches == []


def test_time_of_the_record_where_there_is_no_other(world: Any) -> None:
    """An uplink without a time has the record's."""
    world.integration("ns", "ttn_v2")

    out = world.run(world.record("ns", http({"app_id": "a", "dev_id": "d"})))
    assert out.message.time_ms == RECORD_MS


def test_other_kinds_of_messages(world: Any, first_byte: Decoder) -> None:
    """Joins and locations are events of their type, and are not decoded."""
    world.integration("ns", "tts_v3", first_byte)
    ids = {"device_id": "d", "application_ids": {"application_id": "a"}}
    out = world.run(
        world.record("ns", http({"end_device_ids": ids, "join_accept": {}})),
        world.record("ns", http({"end_device_ids": ids, "location_solved":
                                 {"location": {"latitude": 52.1}}})),
    )  # fmt: skip

    assert [(e.type, e.telemetry) for e in out.events] == [
        ("join", {}), ("location", {"latitude": 52.1}),
    ]  # fmt: skip
    assert world.scripts.batches == []


def test_reports_of_downlinks(world: Any) -> None:
    """News of a downlink is a report event of its device."""
    world.integration("ns", "tts_v3")
    body = {
        "end_device_ids": {"device_id": "d", "application_ids": {"application_id": "a"}},
        "received_at": "2023-11-14T22:13:19.900Z",
        "downlink_ack": {"correlation_ids": ["funicular:0197.d1"]},
    }
    out = world.run(world.record("ns", http(body)))

    (event,) = out.events
    assert isinstance(event, DownlinkReport)
    assert (event.id, event.device, event.time_ms) == ("u1.r0-0", "d", RECORD_MS - 100)
    assert (event.report.state, event.report.downlink_id) == (State.ACKNOWLEDGED, "0197.d1")
    assert out.event_records[0].key == "acme/d"


# ---- generic payloads ----


def test_thingsboard_converter(world: Any) -> None:
    """A converter of the ThingsBoard contract names devices, types, customers, groups; each set
    of values is an event, in order of time, and only a lone one keeps the bytes.
    """
    result = [
        {
            "deviceName": "A",
            "deviceType": "thermostat",
            "customerName": "C",
            "groupName": "G",
            "attributes": {"fw": "1"},
            "telemetry": [{"ts": 2, "values": {"t": 2}}, {"ts": 1, "values": {"t": 1}}],
        },
        {"assetName": "Hall", "telemetry": {"open": True}},
    ]
    world.integration("web", "http", returns(result), device_type="generic")
    out = world.run(world.record("web", http({"x": 1})))

    first, second, third = out.events
    assert [e.id for e in out.events] == ["u1.0", "u1.0-1", "u1.0-2"]
    assert (first.device, first.device_type, first.customer, first.group) == (
        "A", "thermostat", "C", "G",
    )  # fmt: skip
    assert [(e.time_ms, e.telemetry, e.attributes) for e in (first, second)] == [
        (1, {"t": 1}, {"fw": "1"}),
        (2, {"t": 2}, {}),
    ]
    assert (third.device, third.device_kind, third.device_type) == ("Hall", "asset", "generic")
    assert third.link is not None
    assert third.link.device_id == "Hall"
    assert {e.payload for e in out.events} == {None}
    assert [r.key for r in out.event_records] == ["acme/A", "acme/A", "acme/Hall"]


def test_thingsboard_metadata_is_flat(world: Any) -> None:
    """A ThingsBoard decoder gets the payload, and a flat map of query, headers and the
    integration's own metadata, which nobody outside can overrule.
    """
    world.integration("web", "http", returns({"deviceName": "A"}),
                      metadata={"site": "mine", "deviceType": "t"})  # fmt: skip
    request = http({"x": 1}, query={"site": "theirs", "n": "1"})
    world.run(world.record("web", request))

    ((call,),) = world.scripts.batches
    assert call.contract == "thingsboard"
    assert b64decode(call.argument["payload"]) == request.body
    assert call.argument["metadata"] == {
        "method": "POST",
        "content_type": "application/json",
        "n": "1",
        "Header:content-type": "application/json",
        "site": "mine",
        "deviceType": "t",
        "integrationName": "web",
    }


def test_a_request_without_a_body_reaches_the_converter(world: Any) -> None:
    """A GET has its values in the query; a ThingsBoard converter is called all the same."""
    world.integration("web", "http",
                      lambda call: {"deviceName": call.argument["metadata"]["id"]})  # fmt: skip
    request = Request(b"", method="GET", query={"id": "meter-1"})

    assert world.run(world.record("web", request)).message.device == "meter-1"


def test_decode_uplink_for_generic_payloads(world: Any) -> None:
    """A `decodeUplink` on plain HTTP returns its data, for the device that the options name."""
    world.integration("web", "http", returns({"data": {"t": 1}, "warnings": ["w"]}),
                      options={"device_field": "id"})  # fmt: skip

    event = world.run(world.record("web", http({"id": "A"}))).message
    assert (event.device, event.telemetry, event.warnings) == ("A", {"t": 1}, ("w",))


def test_thingsboard_contract_on_a_network_server(world: Any) -> None:
    """A converter says its contract itself; the network server's names are handed in."""
    world.integration("ns", "ttn_v2", returns({"telemetry": {"t": 1}}), contract="thingsboard")
    event = world.run(world.record("ns", ttn())).message

    ((call,),) = world.scripts.batches
    known = call.argument["metadata"]
    assert (event.device, event.telemetry) == ("dev1", {"t": 1})
    assert (known["deviceName"], known["fPort"], known["fCnt"]) == ("dev1", 1, 1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"t": 1}, [(RECORD_MS, {"t": 1})]),
        ({"ts": 5, "values": {"t": 1}}, [(5, {"t": 1})]),
        ([{"t": 1}, {"t": 2}], [(RECORD_MS, {"t": 1}), (RECORD_MS, {"t": 2})]),
        ({"telemetry": {"t": 1}, "attributes": {}}, [(RECORD_MS, {"t": 1})]),
        ([{"telemetry": {"t": 1}}], [(RECORD_MS, {"t": 1})]),
    ],
)
def test_json_without_a_converter(world: Any, body: Any, expected: Any) -> None:
    """Without a converter a JSON body is telemetry in any of ThingsBoard's forms."""
    world.integration("web", "http", options={"device_query": "id"})
    out = world.run(world.record("web", http(body, query={"id": "A"})))

    assert [(e.time_ms, e.telemetry) for e in out.events] == expected
    assert {e.device for e in out.events} == {"A"}


def test_a_body_can_name_its_device(world: Any) -> None:
    """Without a converter a body of ThingsBoard's shape names its devices."""
    world.integration("web", "http")
    out = world.run(world.record("web", http([{"deviceName": "A", "telemetry": {"t": 1}},
                                              {"deviceName": "B"}])))  # fmt: skip

    assert [(e.device, e.telemetry) for e in out.events] == [("A", {"t": 1}), ("B", {})]


@pytest.mark.parametrize("body", [b"\x00\x01", b"[not json", b""])
def test_bytes_without_a_converter(world: Any, body: bytes) -> None:
    """Bytes that nobody decodes are an event with a payload."""
    world.integration("web", "http", options={"device_query": "id"})
    request = Request(body, query={"id": "A"}, headers={"content-type": "image/png"})
    event = world.run(world.record("web", request)).message

    assert event.device == "A"
    assert event.payload == body


def test_nobody_names_the_device(world: Any) -> None:
    """A body without a device, where no option and no converter names one, says what to do."""
    world.integration("web", "http")
    letter = world.run(world.record("web", http({"t": 1}))).letter

    assert letter.reason == "device_missing"
    assert "device_field" in letter.message


def test_a_converter_can_want_nothing(world: Any) -> None:
    """An empty array of a converter is no event and no fault."""
    world.integration("web", "http", returns([]))

    assert world.run(world.record("web", http({}))).records == []


# ---- faults ----


def throw(**detail: Any) -> Decoder:
    def decode(_call: ScriptCall) -> Any:
        raise ScriptError("boom", code="script_threw", script="x.js", line=3, **detail)

    return decode


def test_a_script_that_throws(world: Any, first_byte: Decoder) -> None:
    """A failing script buries its record with script, message and line; the batch goes on."""
    world.integration("bad", "ttn_v2", throw(column=7))
    world.integration("ns", "ttn_v2", first_byte)
    records = [world.record("ns", ttn(1)), world.record("bad", ttn(2)), world.record("ns", ttn(3))]
    out = world.run(*records)

    assert [record.topic for record in out.records] == [
        "device.events", "dead.letter", "device.events",
    ]  # fmt: skip
    (letter,) = out.letters
    assert (letter.stage, letter.reason, letter.message) == ("convert", "script_threw", "boom")
    assert letter.detail == {"script": "x.js", "line": 3, "column": 7}
    assert letter.value == records[1].value
    assert letter.headers == records[1].headers
    assert (letter.topic, letter.offset, letter.key) == ("uplink.received", 2, "acme/bad")
    assert world.metrics.values("funicular_dead_letters_total") == {
        (("reason", "script_threw"), ("stage", "convert")): 1
    }


DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
TOO_DEEP: Any = {}
for _ in range(5000):
    TOO_DEEP = {"a": TOO_DEEP}


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (None, "script_result"),
        (5, "script_result"),
        ([], "script_result"),
        ({}, "script_result"),
        ({"data": [1]}, "script_result"),
        ({"data": {"a": "\ud800"}}, "script_result"),
        ({"data": {"a": {1: 2}}}, "script_result"),
        ({"data": {"a": 10**400}}, "script_result"),
        ({"data": {"a": DEEP}}, "too_deep"),
        ({"data": TOO_DEEP}, "too_deep"),
        ({"data": {}, "errors": ["no checksum", "x"]}, "script_errors"),
    ],
)
def test_scripts_that_return_nonsense(world: Any, result: Any, reason: str) -> None:
    """A result that is no data, or that no JSON reader could take, is buried with its script."""
    world.integration("ns", "ttn_v2", returns(result))
    letter = world.run(world.record("ns", ttn())).letter

    assert letter.reason == reason
    assert letter.detail["script"] == "converters/acme/ns.js"


def test_numbers_past_64_bits(world: Any) -> None:
    """JavaScript prints 1e20 as a whole number that few can read; it is a double here."""
    world.integration("ns", "ttn_v2", returns({"data": {"big": 10**20, "list": [2**63, 2**53]}}))
    event = world.run(world.record("ns", ttn())).message

    assert event.telemetry == {"big": 1e20, "list": [float(2**63), 2**53]}
    assert math.isfinite(event.telemetry["big"])


def test_thingsboard_results_that_cannot_be_used(world: Any) -> None:
    """A ThingsBoard result says what is wrong and where, with the script's name."""
    result = {"deviceName": "A", "telemetry": [{"a": 1}, {"ts": "x", "values": {}}]}
    world.integration("web", "http", returns(result))
    letter = world.run(world.record("web", http({}))).letter

    assert letter.reason == "script_result"
    assert "`telemetry[1].ts`" in letter.message
    assert letter.detail == {"field": "telemetry[1].ts", "script": "converters/acme/web.js"}


@pytest.mark.parametrize(
    ("value", "reason"),
    [(b"{", "not_json"), (b'{"app_id":"a"}', "device_missing"), (None, "not_json"),
     (b'{"app_id":"a","dev_id":"d","payload_raw":"A"}', "field"), (b"[" * 100_000, "too_deep")],
)  # fmt: skip
def test_bytes_that_are_not_of_the_dialect(world: Any, value: Any, reason: str) -> None:
    """Bytes that another producer wrote, and that the door would have refused, are buried whole."""
    world.integration("ns", "ttn_v2")
    headers = {"ce_tenant": "acme", "ce_integration": "ns"}
    letter = world.run(Record("uplink.received", 0, 9, RECORD_MS, "acme/ns", value, headers)).letter

    assert letter.reason == reason
    assert letter.value == value
    assert letter.tenant == "acme"


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        ("acme/none", {}),
        ("nobody/ns", {}),
        ("", {}),
        ("acme/ns", {"ce_tenant": "other"}),
        ("acme/ns", {"ce_integration": "none"}),
    ],
)
def test_no_such_integration(world: Any, key: str, headers: dict[str, str]) -> None:
    """A record of an unknown tenant or integration is buried."""
    world.integration("ns", "ttn_v2")
    record = Record("uplink.received", 0, 1, RECORD_MS, key, b"{}", headers)

    assert world.run(record).letter.reason == "no_integration"


def test_any_producer_may_write(world: Any) -> None:
    """A record without headers is read by its key; its ids come from its place in the log."""
    world.integration("ns", "ttn_v2")
    record = Record("uplink.received", 4, 17, RECORD_MS, "acme/ns", ttn().body, {})
    out = world.run(record)

    assert out.message.id == "uplink.received-4-17.0"
    assert out.event_records[0].headers["trace"] == "uplink.received-4-17"


def test_content_type_of_a_producer(world: Any) -> None:
    """CloudEvents' `content-type` header counts as the request's."""
    world.integration("web", "http", options={"device_field": "id"})
    record = Record("uplink.received", 0, 1, RECORD_MS, "acme/web", b'{"id": "A"}',
                    {"content-type": "application/json"})  # fmt: skip

    assert world.run(record).message.metadata["content_type"] == "application/json"


@pytest.mark.parametrize("header", ["{", "[]", '{"a": 1}'])
def test_broken_headers(world: Any, header: str) -> None:
    """A header that should be a JSON object of texts and is not buries the record."""
    world.integration("ns", "ttn_v2")
    letter = world.run(world.record("ns", ttn(), http_query=header)).letter

    assert (letter.reason, letter.detail) == ("field", {"field": "http_query"})


def test_long_ids_do_not_grow(world: Any) -> None:
    """An id of another producer, however long, gives ids of bounded length."""
    world.integration("ns", "ttn_v2")
    record = world.record("ns", ttn(), ce_id="x" * 10_000)
    out = world.run(record)

    assert len(out.message.id) <= 64
    assert len(out.event_records[0].headers["trace"]) <= 64


def test_a_lost_converter(world: Any, first_byte: Decoder) -> None:
    """An integration whose converter is gone buries its uplinks, to be replayed."""
    world.integration("ns", "ttn_v2", first_byte)
    world.converters.clear()

    assert world.run(world.record("ns", ttn())).letter.reason == "no_converter"


def test_the_world_at_fault(world: Any) -> None:
    """When scripts cannot run at all, nothing is buried: the engine calls again."""

    def decode(_call: ScriptCall) -> Any:
        raise RetryableError("no process")

    world.integration("ns", "ttn_v2", decode)
    with pytest.raises(RetryableError):
        world.run(world.record("ns", ttn()))


def test_events_are_the_same_each_time(world: Any, first_byte: Decoder) -> None:
    """The same batch gives the same records, byte for byte."""
    world.integration("ns", "ttn_v2", first_byte)
    world.integration("bad", "ttn_v2", throw())
    records = [world.record("ns", ttn(1)), world.record("bad", ttn(2))]

    assert world.run(*records).records == world.run(*records).records


# ---- requests that wait ----


def test_an_event_that_no_log_takes(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event over the size of a record is a dead letter; it must not stop the stage for ever."""
    monkeypatch.setattr("pipeline.convert.outcome.EVENT_BYTES_MAX", 1_000)
    world.integration("app", "http", options={"device_field": "device"})
    body = b'{"device": "d", "v": [' + b"1e9," * 100 + b"1]}"

    letter = world.run(world.record("app", Request(body=body))).letter

    assert (letter.reason, letter.value) == ("event_size", body)


def test_a_waiting_request_gets_one_window(world: Any, wait: Wait) -> None:
    """The device's event opens the window, with the repeat key; the reply address goes with it."""
    world.integration("sf", "sigfox")
    message = {"device": "aa", "time": 5, "seqNumber": 1, "data": "01", "ack": True}
    record = world.record("sf", sigfox(message), **wait())
    out = world.run(record)

    (sent,) = out.event_records
    assert out.message.window == Window(key=sent.headers["repeat"], part=1, of=1, carries=True)
    assert sent.headers["reply_to"] == record.headers["reply_to"]


def test_a_request_that_cannot_carry(world: Any, wait: Wait) -> None:
    """With `ack` false the window carries nothing; without a repeat key it has the event's id."""
    world.integration("sf", "sigfox")
    record = world.record("sf", sigfox({"device": "AA", "data": "01"}), **wait())

    assert world.run(record).message.window == Window("u1.0", 1, 1, carries=False)


def test_windows_of_a_batch(world: Any, wait: Wait) -> None:
    """Each device of a batch has one window, on its last event, in the order of the request."""
    world.integration("sf", "sigfox")
    batch = sigfox(
        {"device": "AA", "data": "01", "ack": True},
        {"device": "BB", "data": "02", "ack": False},
        {"device": "AA", "data": "03", "ack": False},
    )
    out = world.run(world.record("sf", batch, **wait()))

    assert [(e.device, e.window and (e.window.part, e.window.of, e.window.carries))
            for e in out.events] == [
        ("AA", None), ("BB", (2, 2, False)), ("AA", (1, 2, True)),
    ]  # fmt: skip
    assert ["reply_to" in record.headers for record in out.event_records] == [False, True, True]
    assert out.replies == []


def test_windows_of_several_readings(world: Any, wait: Wait) -> None:
    """Devices that a converter names have one window each, on their last event."""
    result = [
        {"deviceName": "A", "telemetry": [{"t": 1}, {"t": 2}]},
        {"deviceName": "B", "telemetry": {"t": 3}},
    ]
    world.integration("web", "http", returns(result), synchronous=True)
    out = world.run(world.record("web", http({}), **wait()))

    assert [(e.device, e.window and (e.window.part, e.window.of)) for e in out.events] == [
        ("A", None), ("A", (1, 2)), ("B", (2, 2)),
    ]  # fmt: skip


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"t": 1}'])
def test_no_device_is_an_empty_answer_at_once(world: Any, wait: Wait, body: bytes) -> None:
    """A waiting request whose device cannot be found is answered empty, and buried."""
    world.integration("web", "http", synchronous=True)
    out = world.run(world.record("web", Request(body, headers=JSON), **wait("r7")))

    assert out.replies == [Reply("r7", device="", part=1, of=1)]
    assert len(out.letters) == 1
    assert out.events == []
    (reply,) = (record for record in out.records if record.topic == "reply")
    assert (reply.key, reply.partition) == ("ingest-1", 3)


def test_unknown_integration_is_answered(world: Any, wait: Wait) -> None:
    """Also where the integration is gone, who waits is answered at once."""
    out = world.run(world.record("gone", ttn(), **wait()))

    assert len(out.replies) == len(out.letters) == 1


def test_a_failed_part_is_answered_empty(world: Any, wait: Wait) -> None:
    """Of a batch, the part that failed is buried and answered empty; the others are not touched,
    and its letter says which part it is, so that a replay does not repeat the others.
    """

    def decode(call: ScriptCall) -> Any:
        first = b64decode(call.argument["bytes"])[0]
        if first == 2:
            raise ScriptError("two", code="script_threw")
        return {"data": {"v": first}}

    world.integration("sf", "sigfox", decode)
    batch = sigfox(*({"device": name, "data": f"0{n}", "ack": True}
                     for n, name in ((1, "AA"), (2, "BB"), (3, "CC"))))  # fmt: skip
    record = world.record("sf", batch, **wait("r1"))
    out = world.run(record)

    assert [(e.device, e.window.part, e.window.of) for e in out.events] == [
        ("AA", 1, 3), ("CC", 3, 3),
    ]  # fmt: skip
    assert out.replies == [Reply("r1", device="BB", part=2, of=3)]
    (letter,) = out.letters
    assert letter.headers == {**record.headers, "replay_part": "1"}
    assert letter.value == record.value

    world.scripts.functions["converters/acme/sf.js"] = returns({"data": {"v": 0}})
    again = Record("uplink.received", 0, 99, RECORD_MS, letter.key, letter.value,
                   {**letter.headers, "replay": letter.id})  # fmt: skip
    replayed = world.run(again)
    assert (replayed.message.device, replayed.message.id) == ("BB", "u1.1")


def test_nothing_wanted_is_answered_empty(world: Any, wait: Wait) -> None:
    """A converter that returns no devices leaves nobody waiting."""
    world.integration("web", "http", returns([]), synchronous=True)
    out = world.run(world.record("web", http({}), **wait()))

    assert [record.topic for record in out.records] == ["reply"]


def test_a_report_is_answered_at_once(world: Any, wait: Wait) -> None:
    """An ACKNOWLEDGE callback is a report, and is answered empty without a window."""
    world.integration("sf", "sigfox")
    body = {"device": "AA", "infoCode": 0, "infoMessage": "Acked", "downlinkAck": True}
    out = world.run(world.record("sf", sigfox(body), **wait("r1")))

    (event,) = out.events
    assert isinstance(event, DownlinkReport)
    assert (event.device, event.report.state) == ("AA", State.ACKNOWLEDGED)
    assert "reply_to" not in out.event_records[0].headers
    assert out.replies == [Reply("r1", device="AA")]


def test_a_replay_waits_for_nothing(world: Any, wait: Wait) -> None:
    """A replayed record says so, so that it passes the repeat check; who waited has gone."""
    world.integration("sf", "sigfox")
    message = {"device": "AA", "data": "01", "ack": True}
    out = world.run(world.record("sf", sigfox(message), **wait(), replay="letter-1"))

    assert out.message.window is None
    assert out.event_records[0].headers["replay"] == "letter-1"
    assert "reply_to" not in out.event_records[0].headers


def test_a_reply_address_that_cannot_be_read(world: Any) -> None:
    """A broken address is nobody's; the uplink counts."""
    world.integration("sf", "sigfox")
    record = world.record("sf", sigfox({"device": "AA", "data": "01"}), reply_to="{")
    message = world.run(record).message

    assert isinstance(message, DeviceMessage)
    assert message.window is None


def test_parts_fit_sigfox_answers(world: Any, wait: Wait) -> None:
    """The parts that convert counts are those that the dialect answers by."""
    world.integration("sf", "sigfox", device_template="meter-{device_id}")
    messages = [{"device": name, "data": "01", "ack": True} for name in ("aa", "bB", "aa", "cc")]
    request = sigfox(*messages)
    out = world.run(world.record("sf", request, **wait("r")))
    replies = [
        Reply("r", device=e.device, part=e.window.part, of=e.window.of, downlink_id="d",
              payload=e.device[-2:].encode() * 4)
        for e in out.events
        if e.window
    ]  # fmt: skip
    dialect = dialects()["sigfox"]

    answered = orjson.loads(dialect.answer(replies, request, dialect.options()).body)
    assert {name: bytes.fromhex(value["downlinkData"])[:2] for name, value in answered.items()} == {
        "aa": b"AA", "bB": b"BB", "cc": b"CC",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "headers", "expected"),
    [
        ("", {}, "plain"),
        ("sensor-7", {}, "plain"),
        ("acme/sensor-7", {}, "plain"),
        ("acme/ns", {}, "ns"),
        ("", {"ce_tenant": "acme"}, "plain"),
        ("acme/ns", {"ce_integration": "plain", "ce_tenant": "acme"}, "plain"),
        ("", {"ce_tenant": "other"}, None),
        ("", {"ce_tenant": "acme", "ce_integration": "none"}, None),
    ],
)
def test_a_record_that_names_no_integration_has_the_default_one(
    world: Any, key: str, headers: dict[str, str], expected: str | None
) -> None:
    """Headers say whose a record is, else its key, else the configured integration; a name that is
    said and wrong is no reason to guess.
    """
    for name in ("ns", "plain"):
        world.integration(name, "http", lambda _: {"deviceName": "d1", "telemetry": {"n": 1}})
    world.stage = Convert(
        lambda: {"acme": world.book()},
        world.scripts,
        world.metrics,
        default_integration="acme/plain",
    )
    record = Record("uplink.received", 0, 1, RECORD_MS, key, b"{}", headers)
    out = world.run(record)

    if expected is None:
        assert out.letter.reason == "no_integration"
    else:
        assert [event.integration for event in out.events] == [expected]


def test_the_devices_converter_goes_along(world: Any) -> None:
    """Where a pattern chooses another converter, the event's link names it for its downlinks."""
    world.integration("ns", "ttn_v2", returns({"data": {}}))
    world.integration("other", "ttn_v2", returns({"data": {"n": 2}}))
    special = world.integrations["other"].converter
    choice = ChoiceConfig(device="*dev2", converter=special)
    world.integrations["ns"] = replace(
        world.integrations["ns"], converters=(Chosen(choice.pattern(), special),)
    )
    events = world.run(*(world.record("ns", ttn(n, b"\x01", f"dev{n}")) for n in (1, 2))).events
    assert [event.telemetry for event in events] == [{}, {"n": 2}]
    assert [event.link.converter for event in events] == ["", special]


def test_measurements_are_kept(world: Any) -> None:
    """What a normalizer made is in the metadata, under The Things Stack's own names."""
    normalized = {"data": [{"air": {"temperature": 1}}], "warnings": ["odd"]}
    result = {"data": {"t": 1}, "warnings": [], "normalized": normalized}
    world.integration("ns", "ttn_v2", returns(result))
    event = world.run(world.record("ns", ttn())).message
    assert event.telemetry == {"t": 1}
    assert event.metadata["normalized_payload"] == [{"air": {"temperature": 1}}]
    assert event.metadata["normalized_payload_warnings"] == ["odd"]
