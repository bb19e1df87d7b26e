"""What addresses and bodies of the API mean."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec
import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.ingest.commands import (
    ATTRIBUTES_MAX,
    RIGHTS,
    Command,
    Target,
    command_of,
    parse_path,
)
from pipeline.ingest.json_body import DEPTH_MAX
from pipeline.ingest.owner import Origin
from pipeline.model.event import (
    AttributesChange,
    Cancel,
    DeviceEvent,
    DownlinkCommand,
    Forget,
    Query,
)

ROOT = "/api/v1/tenants/acme/devices/"
NOW_MS = 1_790_000_000_000
ORIGIN = Origin("id1", NOW_MS, "key abc")
DOWNLINKS = Target("acme", "d1", "downlinks")
SHARED = Target("acme", "d1", "attributes", "shared")


def ask(target: Target, method: str, body: object = b"", **query: str) -> Command:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return command_of(target, method, query, data, ORIGIN)


def refused(target: Target, method: str, body: object, **query: str) -> MessageError:
    with pytest.raises(MessageError) as caught:
        ask(target, method, body, **query)
    return caught.value


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("d1", Target("acme", "d1", "device")),
        ("app1:d1", Target("acme", "app1:d1", "device")),
        ("a/b/c", Target("acme", "a/b/c", "device")),
        ("a%2Fb%3Ac%20%C3%BC", Target("acme", "a/b:c ü", "device")),
        ("d1/attributes/shared", SHARED),
        ("a/b/attributes/client", Target("acme", "a/b", "attributes", "client")),
        ("d1/downlinks", DOWNLINKS),
        ("a/b/downlinks/x.d1", Target("acme", "a/b", "downlink", "x.d1")),
        ("d1/downlinks/x%2Fy", Target("acme", "d1", "downlink", "x/y")),
        ("a%2Fdownlinks", Target("acme", "a/downlinks", "device")),
        ("downlinks", Target("acme", "downlinks", "device")),
        ("d1/attributes%2Fother", Target("acme", "d1/attributes/other", "device")),
        ("attributes/shared", None),
        ("d1/attributes/other", None),
        ("d1/attributes", None),
        ("d1/attributes/", None),
        ("d1/downlinks/", None),
        ("d1/", None),
        ("", None),
    ],
)
def test_addresses(path: str, target: Target | None) -> None:
    """The end of the path says what is meant; all before it is the device's name, decoded. A slip
    in the end means nothing, rather than another device.
    """
    assert parse_path(ROOT + path) == target


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/tenants/acme",
        "/api/v1/tenants/acme/device/d1",
        "/api/v1/tenants//devices/d1",
        "/api/v2/tenants/acme/devices/d1",
        "/api/v1/tenants/",
    ],
)
def test_other_addresses_mean_nothing(path: str) -> None:
    """What is no address of a device is None."""
    assert parse_path(path) is None


@pytest.mark.parametrize("name", ["a/b", "a/downlinks", "a/attributes/shared", "ü %", "a?b#c"])
def test_any_name_can_be_written(name: str) -> None:
    """A name that is percent-encoded whole always comes back."""
    assert parse_path(ROOT + quote(name, safe="")) == Target("acme", name, "device")


def test_every_command_is_an_event_of_its_device() -> None:
    """Each request that there is makes an event that route can read."""
    items = {"attributes": "shared", "downlink": "x1"}
    bodies = {"PATCH": {"a": 1}, "POST": {"payload": ""}}
    decode = msgspec.json.Decoder(DeviceEvent).decode
    kinds = {}

    for resource, method in RIGHTS:
        target = Target("acme", "d1", resource, items.get(resource, ""))
        event = ask(target, method, bodies.get(method, b""), keys="a")
        assert decode(msgspec.json.encode(event)) == event
        assert (event.id, event.tenant, event.device, event.time_ms) == (
            "id1",
            "acme",
            "d1",
            NOW_MS,
        )
        kinds[resource, method] = event

    assert kinds["device", "DELETE"] == Forget("id1", "acme", "d1", NOW_MS, "key abc")
    assert kinds["device", "GET"] == Query("id1", "acme", "d1", NOW_MS, "device")
    assert kinds["attributes", "GET"] == Query("id1", "acme", "d1", NOW_MS, "attributes", "shared")
    assert kinds["downlinks", "GET"] == Query("id1", "acme", "d1", NOW_MS, "downlinks")
    assert kinds["downlink", "GET"] == Query(
        "id1", "acme", "d1", NOW_MS, "downlink", downlink_id="x1"
    )
    assert kinds["downlinks", "DELETE"] == Cancel("id1", "acme", "d1", NOW_MS, "", "key abc")
    assert kinds["downlink", "DELETE"] == Cancel("id1", "acme", "d1", NOW_MS, "x1", "key abc")


def test_attributes_are_set_and_deleted() -> None:
    """A value sets, null deletes; values keep their JSON types."""
    body = {"target": 21.5, "on": True, "none": None, "list": [1, {"a": None}], "ü": ""}

    change = ask(SHARED, "PATCH", body)

    assert isinstance(change, AttributesChange)
    assert change.set == {"target": 21.5, "on": True, "list": [1, {"a": None}], "ü": ""}
    assert change.delete == ("none",)
    assert (change.scope, change.by) == ("shared", "key abc")
    gone = ask(SHARED, "DELETE", keys="a,b c")
    assert isinstance(gone, AttributesChange)
    assert (gone.set, gone.delete) == ({}, ("a", "b c"))


def nested(depth: int) -> bytes:
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "json"),
        (b"[1]", "json"),
        (b"{", "json"),
        (b'{"a": NaN}', "json"),
        (b'{"a": "\xff"}', "json"),
        (b'{"a": "\\ud800"}', "json"),
        (nested(DEPTH_MAX + 1), "json_depth"),
        (nested(100_000), "json"),
        (b"{}", "empty"),
        (b'{"": 1}', "attribute_name"),
        (b'{"a\\n": 1}', "attribute_name"),
        (orjson.dumps({"x" * 256: 1}), "attribute_name"),
        (orjson.dumps({str(i): 1 for i in range(ATTRIBUTES_MAX + 1)}), "too_many"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_attributes_are_refused(body: bytes, code: str) -> None:
    """What cannot be kept is refused with what is wrong."""
    assert refused(SHARED, "PATCH", body).code == code


def test_the_deepest_value_that_is_taken() -> None:
    """The limit of depth is to the level."""
    assert isinstance(ask(SHARED, "PATCH", nested(DEPTH_MAX)), AttributesChange)


def test_a_downlink_of_bytes() -> None:
    """All that a downlink can say arrives in the request."""
    command = ask(
        DOWNLINKS,
        "POST",
        {
            "payload": "AQID",
            "f_port": 10,
            "confirmed": True,
            "queue": "replace",
            "priority": "high",
            "expires_in": "1h30m",
            "supersede_key": "target",
            "integration": "ttn",
        },
    )

    assert isinstance(command, DownlinkCommand)
    assert command.integration == "ttn"
    request = command.request
    assert (request.payload, request.fields) == (b"\x01\x02\x03", None)
    assert (request.f_port, request.confirmed) == (10, True)
    assert (request.queue, request.priority) == ("replace", "high")
    assert request.expires_at_ms == NOW_MS + 5_400_000
    assert (request.supersede_key, request.source) == ("target", "key abc")


def test_a_downlink_of_fields() -> None:
    """Fields go to the converter as they are; an absolute time is taken with its zone; a port
    of 0 is the downlink stage's to refuse.
    """
    command = ask(
        DOWNLINKS,
        "POST",
        {"fields": {"led": [1, None]}, "f_port": 0, "expires_at": "2026-09-21T16:14:20+02:00"},
    )

    assert isinstance(command, DownlinkCommand)
    assert command.request.fields == {"led": [1, None]}
    assert command.request.f_port == 0
    assert command.request.expires_at_ms == NOW_MS + 60_000


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "payload"),
        ({"payload": "AQ==", "fields": {}}, "payload"),
        ({"payload": "A"}, "payload"),
        ({"payload": "AQ\n=="}, "payload"),
        ({"payload": 1}, "payload"),
        ({"fields": [1]}, "fields"),
        ({"payload": "", "f_port": 256}, "f_port"),
        ({"payload": "", "f_port": "1"}, "f_port"),
        ({"payload": "", "confirmed": 1}, "confirmed"),
        ({"payload": "", "queue": "middle"}, "queue"),
        ({"payload": "", "priority": "urgent"}, "priority"),
        ({"payload": "", "supersede_key": "x" * 129}, "supersede_key"),
        ({"payload": "", "expires_in": "soon"}, "expires_in"),
        ({"payload": "", "expires_in": "0s"}, "expires_in"),
        ({"payload": "", "expires_in": "367d"}, "expires_in"),
        ({"payload": "", "expires_at": "2026-09-21T14:13:20"}, "expires_at"),
        ({"payload": "", "expires_at": "2026-09-21T14:13:20Z"}, "expires_at"),
        ({"payload": "", "expires_at": "9999-12-31T00:00:00Z"}, "expires_at"),
        ({"payload": "", "expires_at": "tomorrow"}, "expires_at"),
        ({"payload": "", "expires_in": "1h", "expires_at": "2027-01-01T00:00:00Z"}, "expires_at"),
    ],
)
def test_bad_downlinks_are_refused(body: dict[str, Any], field: str) -> None:
    """Each wrong field is named."""
    error = refused(DOWNLINKS, "POST", body)

    assert error.detail["field"] == field
    assert len(error.message) > 10


def test_an_unknown_field_is_told() -> None:
    """A misspelt field is not passed over."""
    error = refused(DOWNLINKS, "POST", {"payload": "", "fport": 1})

    assert "fport" in error.message
