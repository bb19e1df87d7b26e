"""The simulated The Things Network v2."""

from __future__ import annotations

from base64 import b64encode
from random import Random
from typing import Any

import aiohttp
import pytest

from pipeline.demo import ttn_v2
from pipeline.demo.callbacks import Callbacks, Clock
from pipeline.demo.fleet import Thermostat
from pipeline.demo.ttn_v2 import TtnV2
from pipeline.integrations.dialect import dialects
from pipeline.model.downlink import Downlink, State


@pytest.fixture
def thermostat() -> Thermostat:
    return Thermostat("thermostat-1", Random(1))


@pytest.fixture
async def server(thermostat: Thermostat, callbacks: Callbacks, serve: Any) -> TtnV2:
    made = TtnV2([thermostat], callbacks, Clock(1.0), application="acme", key="s", window_s=0)
    made.listens_at(await serve(made))
    return made


def order(cooling: int) -> str:
    return b64encode(bytes([cooling, 0, 220])).decode()


async def test_uplink_is_read_by_the_dialect(
    server: TtnV2, thermostat: Thermostat, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Funicular's dialect reads device, payload, port, counter, time and the way back."""
    # No two transmissions are of one millisecond.
    times = iter(("2026-09-20T12:46:40.001000000Z", "2026-09-20T12:46:40.002000000Z"))
    monkeypatch.setattr(ttn_v2, "timestamp", lambda: next(times))
    await server.uplink(thermostat)
    await server.uplink(thermostat)

    first, second = receiver.read("ttn_v2")
    assert first.device == "acme:thermostat-1" == server.name(thermostat)
    assert len(first.payload) == 4
    assert (first.f_port, first.f_cnt, second.f_cnt) == (1, 0, 1)
    assert first.time_ms == 1_789_908_400_001
    assert first.metadata["rssi"] == -60
    assert first.link.urls["downlink"] == server.downlink_url
    assert first.repeat_key != second.repeat_key
    assert server.callbacks.counts == {"sent": 2, "accepted": 2, "refused": 0, "unanswered": 0}


async def test_downlink_by_the_dialect_reaches_the_device(
    server: TtnV2, thermostat: Thermostat, receiver: Any, session: aiohttp.ClientSession
) -> None:
    """The request that Funicular's dialect makes is answered 202; the device obeys after its next
    uplink, not before.
    """
    await server.uplink(thermostat)
    (uplink,) = receiver.read("ttn_v2")
    downlink = Downlink(
        id="d1", tenant="demo", device=uplink.device, integration="x", state=State.SENDING,
        requested_ms=0, changed_ms=0, payload=bytes([1, 0, 220]), f_port=10, queue="replace",
    )  # fmt: skip
    dialect = dialects()["ttn_v2"]
    call = dialect.send(downlink, uplink.link, dialect.options())

    async with session.post(call.url, data=call.body, headers=call.headers) as answer:
        assert answer.status == 202
    assert not thermostat.cooling
    assert server.waiting(thermostat) == 1
    await server.uplink(thermostat)

    assert thermostat.cooling
    assert thermostat.received == 1
    assert server.waiting(thermostat) == 0


async def test_schedules(
    server: TtnV2, thermostat: Thermostat, session: aiohttp.ClientSession
) -> None:
    """`last` waits behind, `first` goes before, `replace` (the default) alone stays."""
    for schedule, cooling, waiting in (
        ("last", 0, 1), ("last", 0, 2), ("first", 1, 3),
    ):  # fmt: skip
        asked = {"dev_id": thermostat.id, "port": 10, "schedule": schedule,
                 "payload_raw": order(cooling)}  # fmt: skip
        async with session.put(server.downlink_url, json=asked) as answer:
            assert answer.status == 202
        assert server.waiting(thermostat) == waiting
    await server.uplink(thermostat)
    assert thermostat.cooling, "the first one went first"
    asked = {"dev_id": thermostat.id, "port": 10, "payload_raw": order(0)}
    async with session.post(server.downlink_url, json=asked) as answer:
        assert answer.status == 202
    assert server.waiting(thermostat) == 1


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"port": 0}, 400),
        ({"port": None}, 400),
        ({"payload_raw": "§"}, 400),
        ({"schedule": "sometime"}, 400),
        ({"dev_id": "stranger"}, 404),
    ],
)
async def test_bad_downlinks_are_refused(
    server: TtnV2,
    thermostat: Thermostat,
    session: aiohttp.ClientSession,
    change: dict[str, Any],
    status: int,
) -> None:
    """A downlink with a fault is refused with its status and queued nowhere."""
    asked = {"dev_id": thermostat.id, "port": 10, "payload_raw": order(1), **change}

    async with session.post(server.downlink_url, json=asked) as answer:
        assert answer.status == status
        assert "error" in await answer.json()

    assert server.waiting(thermostat) == 0


async def test_wrong_key_is_refused(server: TtnV2, session: aiohttp.ClientSession) -> None:
    """A downlink URL with another key is answered 401."""
    async with session.post(server.downlink_url + "x", json={}) as answer:
        assert answer.status == 401


async def test_refused_uplinks_are_lost_and_counted(
    server: TtnV2, thermostat: Thermostat, receiver: Any
) -> None:
    """What Funicular refuses is not sent again; what reaches nobody is counted apart."""
    receiver.answers = [(503, None)]
    await server.uplink(thermostat)
    server.callbacks.url = "http://127.0.0.1:9/"
    await server.uplink(thermostat)

    assert len(receiver.requests) == 1
    assert server.callbacks.counts == {"sent": 2, "accepted": 0, "refused": 1, "unanswered": 1}
