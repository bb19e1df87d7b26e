"""ChirpStack's own queue of a device, of both versions: asked for, read, flushed."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.integrations.chirpstack import DIALECT as V4
from pipeline.integrations.chirpstack import ChirpStackOptions
from pipeline.integrations.chirpstack_v3 import DIALECT as V3
from pipeline.integrations.dialect import Queued, QueueDialect
from pipeline.model.http import Response
from pipeline.model.uplink import Link

API = ChirpStackOptions.model_validate({"server": "https://cs.example/", "api_key": "key"})
LINK = Link(application_id="17c82e96", device_id="0101010101010101")
ITEM = "aa1b5f3e-4a1c-4f8b-9c5e-0d6a4a4f7c11"
V4_QUEUE = {
    "totalCount": 2,
    "result": [
        {"id": ITEM, "devEui": "0101010101010101", "confirmed": True, "fPort": 10, "data": "AQI=",
         "object": None, "isPending": True, "fCntDown": 7, "isEncrypted": False,
         "expiresAt": "2026-11-21T13:00:00Z"},
        {"id": "b", "fPort": 2, "data": "/w=="},
    ],
}  # fmt: skip
V3_QUEUE = {
    "deviceQueueItems": [
        {"devEUI": "0101010101010101", "confirmed": False, "fCnt": 12, "fPort": 10, "data": "AQI=",
         "jsonObject": ""},
    ],
    "totalCount": 1,
}  # fmt: skip


@pytest.mark.parametrize("dialect", [V3, V4], ids=["v3", "v4"])
def test_requests(dialect: Any) -> None:
    """The queue is listed and flushed at the address where it is appended to, with the key."""
    assert isinstance(dialect, QueueDialect)
    asked, flushed = dialect.ask_queue(LINK, API), dialect.clear_queue(LINK, API)

    assert (asked.method, flushed.method) == ("GET", "DELETE")
    for call in (asked, flushed):
        assert call.url == "https://cs.example/api/devices/0101010101010101/queue"
        assert call.headers["grpc-metadata-authorization"] == "Bearer key"
        assert call.body == b""


def test_v4_queue() -> None:
    """Each item with what ChirpStack calls it, which of it is on its way, and when it ends."""
    first, second = V4.read_queue(Response(200, orjson.dumps(V4_QUEUE)))

    assert first == Queued(
        f_port=10,
        payload=b"\x01\x02",
        confirmed=True,
        detail={"pending": True, "f_cnt": 7, "expires_at": "2026-11-21T13:00:00Z"},
        reference=ITEM,
    )
    assert (second.payload, second.confirmed, second.reference) == (b"\xff", False, "b")


def test_v3_queue() -> None:
    """Each item by its frame counter, as the reports name it."""
    (item,) = V3.read_queue(Response(200, orjson.dumps(V3_QUEUE)))

    assert (item.f_port, item.payload, item.reference) == (10, b"\x01\x02", "f_cnt:12")


@pytest.mark.parametrize("dialect", [V3, V4], ids=["v3", "v4"])
def test_empty_queue(dialect: Any) -> None:
    """Zero values are left out, so that an empty object is an empty queue."""
    assert dialect.read_queue(Response(200, b"{}")) == []


@pytest.mark.parametrize("dialect", [V3, V4], ids=["v3", "v4"])
@pytest.mark.parametrize("body", [b"", b"[]", b'{"result": 1, "deviceQueueItems": 1}'])
def test_answer_that_is_no_queue(dialect: Any, body: bytes) -> None:
    """It is a fault that says so, not an empty queue."""
    with pytest.raises(MessageError):
        dialect.read_queue(Response(200, body))


@pytest.mark.parametrize("dialect", [V3, V4], ids=["v3", "v4"])
@pytest.mark.parametrize(("link", "options"), [(Link(), API), (LINK, ChirpStackOptions())])
def test_no_way_there(dialect: Any, link: Link, options: ChirpStackOptions) -> None:
    """Without the device's EUI, or a server, nothing is asked."""
    for ask in (dialect.ask_queue, dialect.clear_queue):
        with pytest.raises(MessageError) as caught:
            ask(link, options)
        assert caught.value.code == "no_link"
