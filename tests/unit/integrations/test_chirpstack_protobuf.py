"""ChirpStack v4 in Protocol Buffers, read as its JSON is. `chirpstack_api_4_20.binpb` holds the
descriptors of ChirpStack's own package `chirpstack-api` 4.20 (MIT), which write the events here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import duration_pb2, json_format, struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from pipeline.convert.codecs.proto_text import compile_text
from pipeline.errors import MessageError
from pipeline.integrations import chirpstack_protobuf
from pipeline.integrations.chirpstack import DIALECT, ChirpStackOptions
from pipeline.integrations.chirpstack_protobuf import MESSAGES, SCHEMA, descriptor_of, json_of
from pipeline.integrations.chirpstack_v3 import DIALECT as V3
from pipeline.model.downlink import Downlink, State
from pipeline.model.http import Request
from pipeline.model.uplink import Link, Uplink

OFFICIAL = Path(__file__).with_name("chirpstack_api_4_20.binpb").read_bytes()
GONE = {"IntegrationEvent"}  # from ChirpStack's schema, in October 2025
PROTOBUF = ChirpStackOptions(encoding="protobuf")
BYTES = {"content-type": "application/octet-stream"}
INFO: dict[str, Any] = {
    "tenantId": "52f14cd4",
    "tenantName": "ChirpStack",
    "applicationId": "17c82e96",
    "applicationName": "Test application",
    "deviceProfileId": "14855bf7",
    "deviceProfileName": "Test device-profile",
    "deviceName": "Test device",
    "devEui": "0101010101010101",
    "deviceClassEnabled": "CLASS_C",
    "tags": {"key": "value"},
}
HEAD: dict[str, Any] = {
    "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
    "time": "2022-07-18T09:34:15.775023242+00:00",
    "deviceInfo": INFO,
}
RX = {
    "gatewayId": "0016c001f153a14c",
    "uplinkId": 4217106255,
    "gwTime": "2022-07-18T09:34:15.775023+00:00",
    "nsTime": "2022-07-18T09:34:15+00:00",
    "timeSinceGpsEpoch": "1342172073.775s",
    "rssi": -36,
    "snr": 10.2,
    "channel": 7,
    "rfChain": 1,
    "location": {"latitude": 48.1, "longitude": 11.5, "source": "GPS", "accuracy": 2.5},
    "context": "E3OWOQ==",
    "metadata": {"region_name": "eu868"},
    "crcStatus": "CRC_OK",
}
UP = {
    **HEAD,
    "devAddr": "00189440",
    "adr": True,
    "dr": 1,
    "fCnt": 4,
    "fPort": 1,
    "confirmed": True,
    "data": "qv8=",
    "object": {"t": 21.5, "on": True, "none": None, "list": [1, "a", {"b": 2}], "s": "ü"},
    "rxInfo": [RX, {"gatewayId": "0016c001f153a14d", "rssi": -90, "snr": -3.25}],
    "txInfo": {
        "frequency": 867100000,
        "modulation": {"lora": {"bandwidth": 125000, "spreadingFactor": 11, "codeRate": "CR_4_5"}},
    },
    "relayRxInfo": {"devEui": "0202020202020202", "frequency": 868100000, "dr": 3, "snr": 4,
                    "rssi": -70, "worChannel": 1},
    "joinServerContext": {"sessionKeyId": "secret"},
    "regionConfigId": "eu868",
}  # fmt: skip
EVENTS: dict[str, list[dict[str, Any]]] = {
    "up": [UP, HEAD],
    "join": [{**HEAD, "devAddr": "00189440", "regionConfigId": "eu868"}],
    "ack": [
        {**HEAD, "queueItemId": "item", "acknowledged": True, "fCntDown": 8},
        {**HEAD, "queueItemId": "item"},
    ],
    "txack": [
        {**HEAD, "queueItemId": "item", "downlinkId": 99, "fCntDown": 8, "gatewayId": "00160000"}
    ],
    "log": [
        {**HEAD, "level": "ERROR", "code": "DOWNLINK_PAYLOAD_SIZE", "description": "too large",
         "context": {"queue_item_id": "item"}},
        HEAD,
    ],
    "status": [
        {**HEAD, "margin": -10, "batteryLevel": 75.5},
        {**HEAD, "externalPowerSource": True, "batteryLevelUnavailable": True},
    ],
    "location": [{**HEAD, "location": {"latitude": 1.5, "longitude": -2.25, "altitude": 99.0,
                                       "source": "GEO_RESOLVER_TDOA"}}],
}  # fmt: skip
CASES = [(kind, event) for kind, events in EVENTS.items() for event in events]
LINK = Link(application_id="17c82e96", device_id="0101010101010101", dev_eui="0101010101010101")


@pytest.fixture(scope="module")
def official() -> DescriptorPool:
    pool = DescriptorPool()
    for module in (duration_pb2, struct_pb2, timestamp_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    for file in FileDescriptorSet.FromString(OFFICIAL).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


def message_of(official: DescriptorPool, name: str) -> Any:
    return GetMessageClass(official.FindMessageTypeByName(f"integration.{name}"))


def serialised(official: DescriptorPool, kind: str, event: dict[str, Any]) -> bytes:
    """What ChirpStack's package writes of an event."""
    made = message_of(official, MESSAGES[kind])()
    return json_format.ParseDict(without_id(kind, event), made).SerializeToString()


def without_id(kind: str, event: dict[str, Any]) -> dict[str, Any]:
    """A log and a txack have no deduplication id."""
    left_out = {"deduplicationId"} if kind in ("log", "txack") else set()
    return {key: value for key, value in event.items() if key not in left_out}


def read(kind: str, body: bytes, options: ChirpStackOptions = PROTOBUF) -> Uplink:
    request = Request(body=body, query={"event": kind}, headers=BYTES)
    (uplink,) = DIALECT.read(request, options, "{dev_eui}")
    return uplink


@pytest.mark.parametrize(("kind", "event"), CASES)
def test_each_event_is_read_as_its_json_is(
    official: DescriptorPool, kind: str, event: dict[str, Any]
) -> None:
    """Bytes that ChirpStack's package writes say the same as ChirpStack's JSON of the event, which
    has the zeros of an event and none of what lies deeper.
    """
    body = serialised(official, kind, event)
    made = message_of(official, MESSAGES[kind]).FromString(body)
    said = json_format.MessageToDict(made, always_print_fields_with_no_presence=True)
    flat = without_id(kind, event)
    zeros = {key: value for key, value in said.items() if key not in flat and value not in ([], {})}
    document = {**zeros, **flat}
    document.pop("joinServerContext", None)

    assert orjson.loads(json_of(kind, body)) == document
    json_body = Request(body=orjson.dumps(document), query={"event": kind})
    assert [read(kind, body)] == DIALECT.read(json_body, ChirpStackOptions(), "{dev_eui}")


def test_an_uplink_whole(official: DescriptorPool) -> None:
    """Payload, counters, radio and what the codec decoded come out; the session's key does not."""
    uplink = read("up", serialised(official, "up", UP))

    assert (uplink.device, uplink.payload) == ("0101010101010101", b"\xaa\xff")
    assert (uplink.f_port, uplink.f_cnt, uplink.confirmed) == (1, 4, True)
    assert uplink.fields == UP["object"]
    assert uplink.time_ms == 1_658_136_855_775
    assert uplink.metadata["rx_info"] == UP["rxInfo"]
    assert uplink.metadata["device_class_enabled"] == "CLASS_C"
    assert (uplink.metadata["rssi"], uplink.metadata["snr"]) == (-36, 10.2)
    assert (uplink.metadata["frequency"], uplink.metadata["coding_rate"]) == (867100000, "4/5")
    assert "secret" not in repr(uplink)
    assert uplink.repeat_key == HEAD["deduplicationId"]


def test_the_integration_event_of_older_servers() -> None:
    """The event that ChirpStack had until October 2025 is read by the numbers that it had."""
    classes, _ = chirpstack_protobuf._schema()
    event = {**HEAD, "integrationName": "loracloud", "eventType": "dm", "object": {"a": 1.5}}
    body = json_format.ParseDict(event, classes["IntegrationEvent"]()).SerializeToString()
    uplink = read("integration", body)

    assert (uplink.type, uplink.fields) == ("service_data", {"a": 1.5})
    assert (uplink.metadata["service"], uplink.metadata["event_type"]) == ("loracloud", "dm")


def test_the_schema_is_chirpstacks(official: DescriptorPool) -> None:
    """Each field of our schema has the number, the type and the name that ChirpStack's has, and
    each enum its names and numbers.
    """
    ours = DescriptorPool()
    for module in (duration_pb2, struct_pb2, timestamp_pb2):
        ours.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    file = descriptor_of(SCHEMA.read_text())
    ours.AddSerializedFile(file.SerializeToString())
    packages = ("integration", "gw", "common")
    for name in (each.name for each in file.message_type if each.name not in GONE):
        mine = ours.FindMessageTypeByName(f"{file.package}.{name}")
        theirs = next(
            found for package in packages if (found := find(official, f"{package}.{name}"))
        )
        for field in mine.fields:
            other = theirs.fields_by_number[field.number]
            assert (field.name, field.type, field.is_repeated, field.json_name) == (
                other.name, other.type, other.is_repeated, other.json_name
            )  # fmt: skip
            if field.message_type is not None:
                assert field.message_type.name == other.message_type.name
            if field.enum_type is not None:
                assert names(field.enum_type) == names(other.enum_type)


def find(pool: DescriptorPool, name: str) -> Any:
    try:
        return pool.FindMessageTypeByName(name)
    except KeyError:
        return None


def names(enum: Any) -> dict[str, int]:
    return {each.name: each.number for each in enum.values}


def test_the_schema_is_protobufs() -> None:
    """What the small reader makes of the schema is what a reader of all `.proto` files makes."""
    text = SCHEMA.read_text()
    (file,) = (each for each in compile_text({"chirpstack.proto": text}, "chirpstack.proto").file
               if each.name == "chirpstack.proto")  # fmt: skip
    assert shape(descriptor_of(text)) == shape(file)


def shape(file: Any) -> Any:
    return file.package, list(file.dependency), [of_message(each) for each in file.message_type]


def of_message(message: Any) -> Any:
    fields = [
        (each.name, each.number, each.label, each.type_name.rpartition(".")[2])
        for each in message.field
    ]
    enums = [
        (each.name, [(value.name, value.number) for value in each.value])
        for each in message.enum_type
    ]
    is_map = message.options.map_entry
    return message.name, fields, enums, is_map, [of_message(each) for each in message.nested_type]


def test_a_schema_that_is_not_understood() -> None:
    """A line that is none says which it is."""
    with pytest.raises(ValueError, match="line 2 "):
        descriptor_of("message A {\n  oneof b {\n")


def test_what_is_newer_than_the_schema(official: DescriptorPool) -> None:
    """Unknown fields are passed over, an unknown enum's value is its number."""
    body = serialised(official, "up", HEAD) + b"\xba\x3e\x02hi"  # field 999
    assert read("up", body).f_port == 0
    log = serialised(official, "log", HEAD) + b"\x20\x63"
    assert orjson.loads(json_of("log", log))["code"] == 99


@pytest.mark.parametrize(
    ("kind", "body", "code"),
    [
        ("up", b"\xff\xff", "not_protobuf"),
        ("up", b"\x0a\x7fshort", "not_protobuf"),
        ("up", b'{"deviceInfo": {}}', "not_protobuf"),
        ("up", b"", "device_missing"),
        ("up", b"\x0a\x02id", "device_missing"),
        ("up", b"\x12\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "field"),
        ("down", b"", "field"),
        ("", b"", "field"),
    ],
)
def test_garbage(kind: str, body: bytes, code: str) -> None:
    """What is no event is refused, and the error says what it is not."""
    with pytest.raises(MessageError) as caught:
        read(kind, body)
    assert caught.value.code == code


def test_a_deep_object(official: DescriptorPool) -> None:
    """A decoded object past the limit of levels is refused as JSON's is."""
    deep: Any = 1
    for _ in range(45):
        deep = {"d": deep}
    made = message_of(official, "UplinkEvent")()
    json_format.ParseDict({**HEAD, "object": deep}, made, max_recursion_depth=200)
    with pytest.raises(MessageError) as caught:
        read("up", made.SerializeToString())
    assert caught.value.code in ("too_deep", "not_protobuf")


def test_the_encoding_is_said_at_both_ends() -> None:
    """Without the option, Protocol Buffers are refused with what to do; JSON is read with it."""
    with pytest.raises(MessageError, match="encoding: protobuf"):
        read("up", b"", ChirpStackOptions())
    request = Request(body=b"", query={"event": "up"}, headers=BYTES)
    with pytest.raises(MessageError, match="JSON"):
        V3.read(request, V3.options(), "{dev_eui}")
    sample = DIALECT.sample("0101010101010101", 1, b"\x01", 1_700_000_000_000)
    (uplink,) = DIALECT.read(sample, PROTOBUF, "{dev_eui}")
    assert uplink.payload == b"\x01"


def test_over_mqtt(official: DescriptorPool) -> None:
    """A topic's message is bytes where the option says so, but JSON where it begins as that."""
    topic = "application/17c82e96/device/0101010101010101/event/up"
    body = serialised(official, "up", UP)
    request = DIALECT.from_topic(topic, body, PROTOBUF)
    assert request is not None
    assert DIALECT.read(request, PROTOBUF, "{dev_eui}") == [read("up", body)]
    sample = DIALECT.sample("0101010101010101", 1, b"\x01", 1_700_000_000_000)
    request = DIALECT.from_topic(topic, sample.body, PROTOBUF)
    assert request is not None
    assert DIALECT.read(request, PROTOBUF, "{dev_eui}")[0].payload == b"\x01"


@pytest.mark.parametrize("expires_at_ms", [None, 1_700_000_000_123])
def test_the_command_is_chirpstacks(official: DescriptorPool, expires_at_ms: int | None) -> None:
    """A command's bytes are those that ChirpStack's package writes of the same fields."""
    downlink = Downlink(
        id="d-1", tenant="acme", device="x", integration="barn", state=State.REQUESTED,
        requested_ms=1, changed_ms=1, confirmed=True, f_port=10, payload=b"\x00\xff",
        expires_at_ms=expires_at_ms,
    )  # fmt: skip
    published = DIALECT.publication(downlink, LINK, PROTOBUF)
    as_json = DIALECT.publication(downlink, LINK, ChirpStackOptions())
    made = message_of(official, "DownlinkCommand")()
    json_format.ParseDict(orjson.loads(as_json.payload), made)

    assert published.payload == made.SerializeToString(deterministic=True)
    assert (published.topic, published.reference) == (as_json.topic, as_json.reference)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library is missing, the option says how to install it."""
    monkeypatch.setattr(chirpstack_protobuf, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install"):
        ChirpStackOptions(encoding="protobuf")
