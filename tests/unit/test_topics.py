from __future__ import annotations

from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator, FormatChecker

from pipeline.model.dead_letter import DeadLetter
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink, DownlinkRequest, State
from pipeline.model.event import (
    AttributesChange,
    Cancel,
    DeviceMessage,
    DownlinkCommand,
    DownlinkReport,
    DownlinksCommand,
    Forget,
    Query,
    ReplyWindow,
    RequestedDownlink,
    RequestedDownlinks,
    Window,
)
from pipeline.model.letters import Handled
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link, Report
from pipeline.topics import MODELS, TOPICS, schemas

NOW_MS = 1_790_000_000_000
REQUEST = DownlinkRequest(payload=b"\x01\xff", f_port=10, queue="replace", priority="high")
LINK = Link(application_id="app", urls={"push": "https://ns.example/push"})
DOWNLINK = Downlink(
    id="l1",
    tenant="acme",
    device="d1",
    integration="ns",
    state=State.QUEUED,
    requested_ms=NOW_MS,
    changed_ms=NOW_MS,
    fields={"cooling": True},
)
MESSAGE = DeviceMessage(
    id="u1.0",
    type="uplink",
    tenant="acme",
    device="d1",
    integration="ns",
    time_ms=NOW_MS,
    received_ms=NOW_MS,
    payload=b"\x00\x01\x02",
    telemetry={"temperature": 21.5, "tags": ["a", None], "deep": {"n": 1}},
    window=Window("key", 1, 2),
    link=LINK,
)
VALUES: dict[str, list[Any]] = {
    "device.events": [
        MESSAGE,
        AttributesChange("c1", "acme", "d1", "shared", NOW_MS, {"target": 21}, ("old",), "me"),
        Query("q1", "acme", "d1", NOW_MS, "attributes", "client"),
        DownlinkCommand("c2", "acme", "d1", NOW_MS, REQUEST),
        DownlinksCommand("c4", "acme", "d1", NOW_MS, (REQUEST, REQUEST), replace=True),
        Cancel("c3", "acme", "d1", NOW_MS),
        DownlinkReport("r1", "acme", "d1", NOW_MS, Report(State.SENT, "l1")),
        Forget("f1", "acme", "d1", NOW_MS),
    ],
    "downlink.requested": [
        RequestedDownlink("l1", "acme", "d1", "ns", NOW_MS, REQUEST, link=LINK),
        RequestedDownlinks("l2", "acme", "d1", "ns", NOW_MS, (REQUEST,), link=LINK),
        ReplyWindow("w1", "acme", "d1", "ns", NOW_MS, Window("key")),
        Cancel("c3", "acme", "d1", NOW_MS, "l1"),
    ],
    "downlink.status": [DOWNLINK],
    "delivery.": [
        Delivery("d1", "acme", "d1", "app", NOW_MS, body={"n": 1}),
        Delivery("d2", "acme", "d1", "downlink-ns", NOW_MS, downlink=DOWNLINK, link=LINK),
    ],
    "reply": [Reply("u1", "d1", downlink_id="l1", payload=b"\x01"), Reply("q1", body=[1])],
    "dead.letter": [
        DeadLetter(
            id="u1.convert-x",
            stage="convert",
            reason="script_threw",
            message="it threw",
            time_ms=NOW_MS,
            tenant="acme",
            topic="uplink.received",
            partition=3,
            offset=17,
            key="acme/ns",
            value=b"\xff",
        )
    ],
    "dead.letter.handled": [
        Handled("3-17", "u1.convert-x", "replayed", NOW_MS, "acme", by="local")
    ],
}


def test_each_topic_has_a_schema() -> None:
    """Every row of the table has a valid JSON Schema that says what the topic holds."""
    found = schemas()
    assert list(found) == [topic.name for topic in TOPICS]
    for name, schema in found.items():
        Draft202012Validator.check_schema(schema)
        assert schema["title"] == name
        assert schema["description"]


@pytest.mark.parametrize("topic", MODELS)
def test_a_schema_takes_what_we_write_and_nothing_else(topic: str) -> None:
    """Each kind of value that the topic holds is valid, as it is written; one with a field of
    another type, or without its tenant, is not.
    """
    validator = Draft202012Validator(schemas()[topic], format_checker=FormatChecker())
    for value in VALUES[topic]:
        written = msgspec.json.decode(msgspec.json.encode(value))
        validator.validate(written)
        first = "request" if topic == "reply" else "tenant"
        assert not validator.is_valid(written | {first: 7})
        assert not validator.is_valid({name: written[name] for name in written if name != first})
