"""A ledger of uplinks that carry a number, and the account of what became of each of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from base64 import b64decode, b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import orjson

from pipeline import topics
from pipeline.model.downlink import Downlink, State, may_move
from pipeline.model.event import DeviceEvent, DeviceMessage, DownlinkWork, RequestedDownlink
from tests.process.program import Program, Servers

DEVICES = 4
KINDS = ("ttn", "tts", "sigfox", "plain")

Read = Callable[[str], list[tuple[dict[str, str], bytes]]]
"""Gives all committed records of a topic: headers and values."""


@dataclass
class Ledger:
    """What was sent: `accepted` got a 2xx, `unknown` got no answer; `given` are answers'
    downlinks. `kinds` is who sent what; `runs` what each sender had accepted, in order.
    `rest_s` is how long a sender rests after an error. After an answer it waits for the next
    multiple of `tick_s`: all send at once, as meters do at the full hour, which leaves workers and
    brokers a rest in between.
    """

    next_n: int = 0
    rest_s: float = 0.01
    tick_s: float = 0
    kinds: dict[int, str] = field(default_factory=dict)
    runs: list[list[int]] = field(default_factory=list)
    accepted: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    refused: Counter[int] = field(default_factory=Counter)
    given: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))

    @property
    def wait_s(self) -> float:
        """How long it is until the next tick."""
        return self.tick_s - time.monotonic() % self.tick_s if self.tick_s else 0

    def take(self, kind: str = "") -> int:
        self.next_n += 1
        self.kinds[self.next_n] = kind
        return self.next_n


def request_of(kind: str, n: int, servers: str) -> dict[str, Any]:
    """Return one uplink that carries `n`, in the kind's own format."""
    payload = n.to_bytes(4, "big")
    device = f"{kind}-{n % DEVICES}"
    if kind == "ttn":
        body: dict[str, Any] = {
            "app_id": "app",
            "dev_id": device,
            "hardware_serial": "0102030405060708",
            "port": 1,
            "counter": n,
            "payload_raw": b64encode(payload).decode(),
            "metadata": {"time": "2026-11-21T10:00:00Z"},
            "downlink_url": f"{servers}/down/ttn",
        }
        return {"json": body, "headers": {"X-Key": "secret"}}
    if kind == "tts":
        body = {
            "end_device_ids": {"device_id": device, "application_ids": {"application_id": "app"}},
            "correlation_ids": [f"as:up:{n}"],
            "uplink_message": {
                "f_port": 1,
                "f_cnt": n,
                "frm_payload": b64encode(payload).decode(),
            },
        }
        return {"json": body, "headers": {"Authorization": "Bearer secret"}}
    if kind == "sigfox":
        body = {
            "device": f"{n % DEVICES:06X}",
            "time": str(1_790_000_000 + n),
            "data": payload.hex(),
            "seqNumber": str(n),
            "ack": "true",
        }
        return {"json": body, "params": {"key": "secret"}}
    return {
        "json": {"device": device, "n": n},
        "headers": {
            "Authorization": "Basic " + b64encode(b"u:secret").decode(),
            "Idempotency-Key": f"plain-{n}",
        },
    }


def downlink_in(kind: str, body: bytes) -> int | None:
    """Return the number of the downlink in an answer, None where it carries none."""
    if not body:
        return None
    answer = orjson.loads(body)
    if kind == "sigfox":
        (device,) = answer.values()
        return int(device["downlinkData"][:8], 16)
    if kind == "plain":
        # The deadline passed where it says nothing of downlinks.
        for downlink in answer.get("downlinks", ()):
            return int(downlink["fields"]["n"])
    return None


def downlink_number(kind: str, sent: Mapping[str, Any]) -> int:
    """Return the number of a downlink that came to a network server."""
    return int.from_bytes(b64decode(sent["payload_raw" if kind == "ttn" else "frm_payload"])[:4])


async def send_all(
    kind: str, program: Program, servers: str, ledger: Ledger, until: asyncio.Event
) -> None:
    """Send uplinks of one kind, one after the other, through all kills."""
    run: list[int] = []
    ledger.runs.append(run)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=8)) as session:
        while not until.is_set():
            n = ledger.take(kind)
            try:
                async with session.post(
                    f"{program.url}/in/t/{kind}", **request_of(kind, n, servers)
                ) as answer:
                    body = await answer.read()
                    if answer.status // 100 == 2:
                        ledger.accepted.add(n)
                        run.append(n)
                        given = downlink_in(kind, body)
                        if given is not None:
                            ledger.given[given].add(n)
                    else:
                        ledger.refused[answer.status] += 1
                await asyncio.sleep(ledger.wait_s if answer.status // 100 == 2 else ledger.rest_s)
            except (aiohttp.ClientError, TimeoutError):
                ledger.unknown.add(n)
                await asyncio.sleep(ledger.rest_s)


async def settled(
    programs: Sequence[Program], session: aiohttp.ClientSession, timeout_s: float = 60
) -> None:
    """Wait until nothing waits, three times in a row: the gauge is a second old."""
    deadline = time.monotonic() + timeout_s
    quiet = 0
    while quiet < 3:
        assert time.monotonic() < deadline, [program.said() for program in programs]
        await asyncio.sleep(1.1)
        waiting = [await program.waiting(session) for program in programs]
        quiet = quiet + 1 if sum(waiting) == 0 else 0


def check_uplinks(read: Read, ledger: Ledger, servers: Servers, archive: Path) -> None:
    """Account for every uplink, in each topic up to the sinks."""
    events = [
        msgspec.json.decode(value, type=DeviceEvent) for _, value in read(topics.DEVICE_EVENTS)
    ]
    seen = Counter(event.telemetry["n"] for event in events if isinstance(event, DeviceMessage))
    assert [n for n in ledger.accepted if seen[n] != 1] == [], "lost or doubled uplinks"
    assert set(seen) <= set(range(ledger.next_n + 1)), "numbers that nobody sent"
    assert max(seen.values(), default=0) <= 1, "doubled uplinks"
    assert read(topics.DEAD_LETTER) == [], "dead letters"
    for destination in ("application", "archive"):
        sent = Counter(
            orjson.loads(value)["body"]["n"]
            for _, value in read(topics.delivery_topic("t", destination))
        )
        assert sent == seen, f"{destination}: one delivery an uplink"
    assert set(servers.application) ^ set(seen) == set(), "not all came to the application"
    assert all(len(ids) == 1 for ids in servers.application.values()), "a repeat has the same id"
    lines = [orjson.loads(line) for line in archive.read_bytes().splitlines()]
    assert {line["body"]["n"] for line in lines} ^ set(seen) == set(), "not all are in the file"


def check_downlinks(read: Read, ledger: Ledger, servers: Servers) -> None:
    """Account for every downlink: asked for once, one legal life, given to one uplink."""
    asked = [
        work
        for _, value in read(topics.DOWNLINK_REQUESTED)
        if isinstance(work := msgspec.json.decode(value, type=DownlinkWork), RequestedDownlink)
    ]
    wanted = Counter(int((work.request.fields or {})["n"]) for work in asked)
    assert max(wanted.values(), default=0) <= 1
    assert {n for n in ledger.accepted if n % 5 == 0} <= set(wanted)
    lives: dict[str, list[Downlink]] = defaultdict(list)
    for _, value in read(topics.DOWNLINK_STATUS):
        downlink = msgspec.json.decode(value, type=Downlink)
        lives[downlink.id].append(downlink)
    assert set(lives) == {work.id for work in asked}
    flagged, refused = set(), set()
    for life in lives.values():
        states = [downlink.state for downlink in life]
        assert states[0] is State.REQUESTED
        assert all(may_move(a, b) for a, b in itertools.pairwise(states)), states
        n = int((life[0].fields or {})["n"])
        if any(downlink.possibly_delivered for downlink in life):
            flagged.add(n)
        if life[0].integration in {"ttn", "tts"}:
            full = life[-1].reason == "queue_full"
            assert full or states[-1] is State.SENT, (states, life[-1].reason)
            if full:
                refused.add(n)
    shared = {n for n, uplinks in ledger.given.items() if len(uplinks) > 1}
    assert shared <= flagged, "two uplinks carried a downlink that was not flagged"
    for kind in ("ttn", "tts"):
        got = {downlink_number(kind, sent) for sent in servers.downlinks[kind]}
        ours = {int((work.request.fields or {})["n"]) for work in asked if work.integration == kind}
        assert got == ours - refused, f"{kind}: every downlink reached its network server"
