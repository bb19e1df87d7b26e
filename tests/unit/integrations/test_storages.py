"""What network servers keep, asked for: the same messages as they brought, and the same keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Stored, dialects
from pipeline.model.http import Request, Response

NOW_MS = 1_790_000_000_000
V2: Any = dialects()["ttn_v2"]
V3: Any = dialects()["tts_v3"]
V2_OPTIONS = V2.options(application_id="sample-app")
V3_OPTIONS = V3.options(application_id="app1")


def the_one(dialect: Any, request: Request, options: Any) -> Any:
    (uplink,) = dialect.read(request, options, dialect.device_template)
    return uplink


def test_which_dialects_have_a_storage() -> None:
    """Those of The Things Network, both versions; others cannot be asked."""
    found = {name for name, dialect in dialects().items() if isinstance(dialect, Stored)}

    assert found == {"ttn_v2", "tts_v3"}


def test_v3_is_asked_by_time() -> None:
    """Application, moment, order and page size are in the address, the key in its header."""
    call = V3.ask_stored("https://ns.example", "k", NOW_MS, NOW_MS, V3_OPTIONS)

    assert call.url == (
        "https://ns.example/api/v3/as/applications/app1/packages/storage/uplink_message"
        "?after=2026-09-21T14%3A13%3A20.000Z&order=received_at&limit=1000"
    )
    assert (call.method, call.headers["authorization"]) == ("GET", "Bearer k")
    assert call.headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("separator", [b"\n\n", b"\n", b"\n\ndata: "])
def test_a_stored_message_of_v3_is_known(separator: bytes) -> None:
    """The stored message, which has no correlation ids, is the live one, with its repeat key."""
    live = orjson.loads(V3.sample("dev1", 5, b"\x01\x02", NOW_MS).body)
    live["uplink_message"].setdefault("session_key_id", "AXPoziFRvbcEguvZQoCCZw==")
    live["uplink_message"].setdefault("received_at", live["received_at"])
    stored = {name: live[name] for name in live if name != "correlation_ids"}
    body = separator.join([orjson.dumps({"result": stored})] * 2)
    first, again = V3.read_stored(Response(200, body), V3_OPTIONS)

    ours = the_one(V3, first.request, V3_OPTIONS)
    theirs = the_one(V3, Request(orjson.dumps(live)), V3_OPTIONS)
    assert ours.repeat_key == theirs.repeat_key != ""
    assert (ours.device, ours.payload, ours.f_cnt) == (theirs.device, theirs.payload, 5)
    assert first.request == again.request
    assert first.time_ms == NOW_MS


def test_a_stored_message_of_v2_is_known() -> None:
    """The storage keeps device, bytes and time: enough to know an uplink that came by itself."""
    live = V2.sample("dev1", 5, b"\x01\x02", NOW_MS)
    time = orjson.loads(live.body)["metadata"]["time"]
    stored = [
        {"device_id": "dev2", "raw": "AQI=", "time": "2027-01-01T00:00:00.5Z", "led": None},
        {"device_id": "dev1", "raw": "AQI=", "time": time, "led": True, "lux": None},
    ]
    first, second = V2.read_stored(Response(200, orjson.dumps(stored)), V2_OPTIONS)

    ours = the_one(V2, first.request, V2_OPTIONS)
    theirs = the_one(V2, live, V2_OPTIONS)
    assert ours.repeat_key == theirs.repeat_key != ""
    assert (ours.device, ours.payload, ours.fields) == (
        "sample-app:dev1",
        b"\x01\x02",
        {"led": True},
    )
    assert first.time_ms == NOW_MS
    assert the_one(V2, second.request, V2_OPTIONS).fields is None


@pytest.mark.parametrize(
    ("since_ms", "last"),
    [
        (NOW_MS - 61_500, "62s"),
        (NOW_MS + 5_000, "1s"),
        (NOW_MS - 30 * 86_400_000, "604800s"),
    ],
)
def test_v2_is_asked_by_age(since_ms: int, last: str) -> None:
    """`last` is a whole number of seconds, rounded up, a week at most."""
    call = V2.ask_stored("https://a.data.example", "k", since_ms, NOW_MS, V2_OPTIONS)

    assert call.url == f"https://a.data.example/api/v2/query?last={last}"
    assert call.headers["authorization"] == "key k"


def test_nothing_is_kept() -> None:
    """An empty answer has no messages."""
    assert V2.read_stored(Response(204), V2_OPTIONS) == []
    assert V3.read_stored(Response(200, b"\n\n"), V3_OPTIONS) == []


def test_an_error_in_the_stream_is_the_answers() -> None:
    """What The Things Stack says in its stream is told, bounded."""
    error = {"error": {"message": "error:pkg/rights:no_rights (no rights)" + "x" * 1_000}}
    with pytest.raises(MessageError, match="no_rights") as caught:
        V3.read_stored(Response(200, orjson.dumps(error)), V3_OPTIONS)

    assert len(caught.value.message) < 400
    with pytest.raises(MessageError, match="must be a JSON array"):
        V2.read_stored(Response(200, b'{"a":1}'), V2_OPTIONS)


@pytest.mark.parametrize(
    "broken", [b"{", b"5", b'"x"', b'{"result":5}', b'{"result":{"received_at":"x"}}', b"\xff"]
)
def test_broken_lines_go_on_as_dead_letters(broken: bytes) -> None:
    """One line that is no message is a request that the dialect refuses; others are read."""
    good = orjson.dumps({"result": orjson.loads(V3.sample("dev1", 5, b"", NOW_MS).body)})
    kept = V3.read_stored(Response(200, broken + b"\n\n" + good), V3_OPTIONS)

    assert len(kept) == 2
    with pytest.raises(MessageError):
        V3.read(kept[0].request, V3_OPTIONS, V3.device_template)
    assert the_one(V3, kept[1].request, V3_OPTIONS).device


@pytest.mark.parametrize("broken", [5, "x", {}, {"device_id": 5}, {"device_id": "d", "time": "x"}])
def test_broken_items_go_on_as_dead_letters(broken: Any) -> None:
    """One item of v2's list that is no message stops no other."""
    good = {"device_id": "dev1", "raw": "AQI=", "time": datetime.now(UTC).isoformat()}
    kept = V2.read_stored(Response(200, orjson.dumps([good, broken])), V2_OPTIONS)

    refused = 0
    for each in kept:
        try:
            the_one(V2, each.request, V2_OPTIONS)
        except MessageError:
            refused += 1
    assert (len(kept), refused) == (2, 1)
