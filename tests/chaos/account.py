"""The account of a crew: what is missing, doubled or shared, by the number of each uplink."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import orjson

from pipeline import topics
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.downlink import Downlink
from pipeline.model.event import DeviceEvent, DeviceMessage, DownlinkWork, RequestedDownlink
from pipeline.stream.kafka_changes import Change, replay
from pipeline.stream.kafka_records import key_text
from pipeline.stream.kafka_settings import KafkaSettings
from tests.contract.kafka_harness import read_all
from tests.process.ledger import Ledger, Read, check_downlinks, check_uplinks
from tests.process.program import Servers


@dataclass
class Account:
    """Numbers of uplinks; `broken` are the invariants that do not hold, in words."""

    missing: set[int] = field(default_factory=set)
    doubled: set[int] = field(default_factory=set)
    shared: set[int] = field(default_factory=set)
    broken: list[str] = field(default_factory=list)


def account(read: Read, ledger: Ledger, servers: Servers, archive: Path) -> Account:
    """Hold the topics, the servers and the archive against the ledger."""
    found = Account()
    events = [msgspec.json.decode(v, type=DeviceEvent) for _, v in read(topics.DEVICE_EVENTS)]
    messages = [event for event in events if isinstance(event, DeviceMessage)]
    work = [msgspec.json.decode(v, type=DownlinkWork) for _, v in read(topics.DOWNLINK_REQUESTED)]
    asked = [each for each in work if isinstance(each, RequestedDownlink)]
    counts = [Counter(event.telemetry["n"] for event in messages)]
    for destination in ("application", "archive"):
        sent = read(topics.delivery_topic("t", destination))
        counts.append(Counter(orjson.loads(value)["body"]["n"] for _, value in sent))
    lines = archive.read_bytes().splitlines()
    arrived = [set(servers.application), {orjson.loads(line)["body"]["n"] for line in lines}]
    for held in (*counts, *arrived):
        found.missing |= ledger.accepted - set(held)
    wanted = Counter(int((each.request.fields or {})["n"]) for each in asked)
    found.missing |= {n for n in ledger.accepted if n % 5 == 0} - set(wanted)
    for count in (*counts, wanted):
        found.doubled |= {n for n, times in count.items() if times > 1}
    found.doubled |= {n for n, ids in servers.application.items() if len(ids) > 1}
    flagged = set()
    for _, value in read(topics.DOWNLINK_STATUS):
        downlink = msgspec.json.decode(value, type=Downlink)
        if downlink.possibly_delivered:
            flagged.add(int((downlink.fields or {})["n"]))
    found.shared = {n for n, given in ledger.given.items() if len(given) > 1} - flagged
    letters = [msgspec.json.decode(value, type=DeadLetter) for _, value in read(topics.DEAD_LETTER)]
    found.broken += [
        f"dead letter: {each.stage}: {each.reason}: {each.message}" for each in letters
    ]
    _hold(found, "uplinks", lambda: check_uplinks(read, ledger, servers, archive))
    _hold(found, "downlinks", lambda: check_downlinks(read, ledger, servers))
    _hold(found, "order", lambda: check_order(messages, ledger))
    return found


def _hold(found: Account, name: str, check: Callable[[], None]) -> None:
    try:
        check()
    except AssertionError as error:
        found.broken.append(f"{name}: {str(error)[:500]}")


def check_order(messages: list[DeviceMessage], ledger: Ledger) -> None:
    """What one sender had accepted for one device, one after the other, stands in that order."""
    places: dict[str, dict[int, int]] = defaultdict(dict)
    device_of: dict[int, str] = {}
    for place, message in enumerate(messages):
        n = message.telemetry["n"]
        device_of[n] = message.device
        places[message.device].setdefault(n, place)
    for run in ledger.runs:
        last: dict[str, int] = {}
        for n in run:
            device = device_of.get(n, "")
            place = places[device].get(n, -1)
            assert place >= last.get(device, -1), f"{device}: {n} stands before an earlier one"
            last[device] = place


def check_state(kafka: KafkaSettings, read: Read) -> None:
    """The replay of the changelog is what a run of the recorded order gives: each device's
    attribute `last` is the number of its last message.
    """
    last: dict[str, int] = {}
    for _, value in read(topics.DEVICE_EVENTS):
        event = msgspec.json.decode(value, type=DeviceEvent)
        if isinstance(event, DeviceMessage) and event.type == "uplink":
            last[f"t/{event.device}"] = event.telemetry["n"]
    changes = read_all(kafka, topics.DEVICE_STATE)
    state, _ = replay(Change(each.key(), each.value()) for each in changes)
    kept = {key_text(key.encode()): parts for key, parts in state.items()}
    for key, n in last.items():
        attributes = [parts for parts in kept.get(key, {}).values() if _has(parts, n)]
        assert attributes, f"{key}: state is {kept.get(key)}, the last message was {n}"


def _has(part: object, n: int) -> bool:
    """Tell whether a part of a device's state holds this `last`, at whatever depth."""
    if isinstance(part, dict):
        return part.get("last") in (n, [n]) or any(_has(each, n) for each in part.values())
    if isinstance(part, list):
        return any(_has(each, n) for each in part)
    return False
