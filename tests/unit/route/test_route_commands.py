"""Commands on `device.events`: attributes, queries, downlinks of applications, forgetting."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pipeline import topics
from pipeline.model.downlink import DownlinkRequest, State
from pipeline.model.event import (
    AttributesChange,
    Cancel,
    DownlinkCommand,
    DownlinkReport,
    Forget,
    Query,
)
from pipeline.model.record import REPLY_TO
from pipeline.model.uplink import Report
from pipeline.route.limits import Limits
from tests.unit.route.bench import KEY, LINK, START_MS, Bench, record, rulebook, uplink

WAITS = {REPLY_TO: '{"instance":"i1","request":"r1","deadline_ms":9,"partition":2}'}
TELL = """
chain: main
on: {messages: attributes_updated}
nodes:
  - name: target
    filter: '"target" in changed'
  - name: tell the device
    send_downlink: {f_port: 10, payload: {target: "${attributes.shared.target}"}}
  - name: archive
    send: {to: archive, body: ["${previous}", "${metadata}", "${device.type}"]}
"""


def plain(**fields: Any) -> dict[str, Any]:
    return {"id": "c1", "tenant": "t", "device": "dev", "time_ms": START_MS, **fields}


def change(**fields: Any) -> AttributesChange:
    return AttributesChange(**plain(scope="shared", **fields))


def heard(text: str = TELL, **options: Any) -> Bench:
    """A stage that has had one uplink of the device."""
    bench = Bench(rulebook(text), **options)
    bench.take(record(uplink(1)))
    return bench


def test_shared_attribute_becomes_a_downlink() -> None:
    """A person's change of a shared attribute leaves as a downlink, with the device's link."""
    bench = heard()

    made = bench.take(record(change(set={"target": 21}, by="key k1"), **WAITS))

    (downlink,) = made.downlinks
    assert downlink.request.fields == {"target": 21}
    assert (downlink.integration, downlink.link) == ("lora", LINK)
    assert made.bodies == [[{}, {"scope": "shared", "by": "key k1"}, "thermostat"]]
    (reply,) = made.replies
    assert (reply.request, reply.status, reply.body) == ("r1", 200, {"target": 21})
    (out,) = made.of(topics.REPLY)
    assert (out.key, out.partition) == ("i1", 2)


def test_unchanged_attribute_causes_nothing() -> None:
    """An update that changes nothing is answered and nothing else."""
    bench = heard()
    bench.take(record(change(set={"target": 21})))

    made = bench.take(record(change(set={"target": 21}), **WAITS))

    assert [out.topic for out in made] == [topics.REPLY]
    assert bench.writes == []


def test_deleted_attribute_is_a_change() -> None:
    """A deletion enters the chains with the value that was."""
    bench = heard()
    bench.take(record(change(set={"target": 21, "mode": "eco"})))
    bench.books["t"] = rulebook(TELL.replace("attributes.shared.target", "previous.target"))

    made = bench.take(record(change(delete=("target",)), **WAITS))

    assert made.downlinks[0].request.fields == {"target": 21}
    assert made.replies[0].body == {"mode": "eco"}


def test_attributes_over_the_limit_are_refused() -> None:
    """Who waits gets 413; where nobody waits, the change is a dead letter."""
    bench = heard(limits=Limits(attributes_bytes_max=50))
    large = change(set={"text": "x" * 100})

    waiting = bench.take(record(large, **WAITS))
    alone = bench.take(record(large))

    assert (waiting.replies[0].status, waiting.letters) == (413, [])
    assert waiting.replies[0].body["error"]["code"] == "attributes_limit"
    assert [letter.reason for letter in alone.letters] == ["attributes_limit"]


def test_query_of_attributes() -> None:
    """A query is answered with one scope, or with all."""
    bench = heard()
    bench.take(record(change(set={"target": 21})))

    one = bench.take(record(Query(**plain(what="attributes", scope="shared")), **WAITS))
    every = bench.take(record(Query(**plain(what="attributes")), **WAITS))

    assert one.replies[0].body == {"target": 21}
    assert every.replies[0].body == {"client": {}, "shared": {"target": 21}, "server": {}}


def test_query_of_the_device_hides_secrets() -> None:
    """What is shown of a device has its link, without the addresses that hold keys."""
    bench = heard()

    made = bench.take(record(Query(**plain(what="device")), **WAITS))

    body = made.replies[0].body
    assert body["device"] == "dev"
    assert body["integration"] == "lora"
    assert body["link"] == {"application_id": "app", "device_id": "dev"}
    assert "s3cret" not in str(body)


@pytest.mark.parametrize("what", ["attributes", "device"])
def test_query_of_an_unknown_device(what: str) -> None:
    """Nobody was ever heard by that name: 404."""
    bench = Bench(rulebook(TELL))

    made = bench.take(record(Query(**plain(what=what)), **WAITS))

    assert made.replies[0].status == 404
    assert made.replies[0].body["error"]["code"] == "device_unknown"


@pytest.mark.parametrize(
    "event",
    [
        Query(**plain(what="downlinks")),
        Query(**plain(what="downlink", downlink_id="d1")),
        Cancel(**plain(downlink_id="d1")),
        DownlinkReport(**plain(report=Report(state=State.SENT, downlink_id="d1"))),
    ],
    ids=lambda event: type(event).__name__,
)
def test_downlinks_are_another_s(event: Any) -> None:
    """What is about downlinks is handed on as it is, with who waits for the answer."""
    bench = heard()

    made = bench.take(record(event, **WAITS))

    (out,) = made
    assert (out.topic, out.partition) == (topics.DOWNLINK_REQUESTED, 3)
    assert made.work == [event]
    assert out.headers[REPLY_TO] == WAITS[REPLY_TO]


def test_application_asks_for_a_downlink() -> None:
    """A command becomes a request with the device's integration, type and link."""
    bench = heard()
    command = DownlinkCommand(**plain(request=DownlinkRequest(payload=b"\1")))

    made = bench.take(record(command, **WAITS))

    (downlink,) = made.downlinks
    assert downlink.request.payload == b"\1"
    assert (downlink.integration, downlink.device_type) == ("lora", "thermostat")
    assert downlink.link == LINK
    assert made[0].headers[REPLY_TO] == WAITS[REPLY_TO]


def test_application_names_another_integration() -> None:
    """A command that names an integration goes by it, without the link that another one told."""
    command = DownlinkCommand(**plain(request=DownlinkRequest(payload=b"\1"), integration="other"))

    (downlink,) = heard().take(record(command)).downlinks

    assert (downlink.integration, downlink.link) == ("other", None)


def test_downlink_to_an_unknown_device() -> None:
    """404 to who waits, a dead letter else; a command that names its integration goes on."""
    bench = Bench(rulebook(TELL))
    command = DownlinkCommand(**plain(request=DownlinkRequest(payload=b"\1")))
    named = msgspec.structs.replace(command, integration="lora")

    assert bench.take(record(command, **WAITS)).replies[0].status == 404
    assert [x.reason for x in bench.take(record(command)).letters] == ["device_unknown"]
    assert bench.take(record(named)).downlinks[0].integration == "lora"


def test_forget_removes_all() -> None:
    """Forgetting removes every part and hands the rest on."""
    bench = heard()
    bench.take(record(change(set={"target": 21})))

    made = bench.take(record(Forget(**plain()), **WAITS))

    assert bench.parts[KEY] == {}
    assert made.work == [Forget(**plain())]


def test_command_without_rules() -> None:
    """A command of a tenant without rules is answered 404, and kept as a dead letter."""
    bench = heard()
    bench.books.clear()

    made = bench.take(record(change(set={"a": 1}), **WAITS))

    assert made.replies[0].status == 404
    assert [letter.reason for letter in made.letters] == ["no_rules"]
