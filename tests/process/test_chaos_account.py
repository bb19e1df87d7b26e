"""What the runner of faults on Kafka (`make chaos`) tells of topics that do not add up."""

from __future__ import annotations

from pathlib import Path

import msgspec
import orjson
import pytest

from pipeline import topics
from pipeline.model.event import DeviceMessage
from tests.chaos.account import account, check_order
from tests.process.ledger import Ledger
from tests.process.program import Servers


def message(n: int) -> DeviceMessage:
    return DeviceMessage(str(n), "uplink", "t", "a", "ttn", 1, 1, telemetry={"n": n})


def test_account_names_each_uplink_that_is_missing_or_doubled(tmp_path: Path) -> None:
    """An accepted uplink that is in no topic is missing; one that is in a topic twice, or at the
    application under two ids, is doubled; a downlink that two uplinks carried unflagged is shared.
    """
    numbers = {1, 2, 3, 4, 6}
    delivered = [orjson.dumps({"body": {"n": n}}) for n in sorted(numbers - {6})]
    events = [msgspec.json.encode(message(n)) for n in (1, 2, 2, 3, 4, 6)]
    held = {
        topics.DEVICE_EVENTS: events,
        topics.delivery_topic("t", "application"): delivered,
        topics.delivery_topic("t", "archive"): delivered,
    }
    ledger = Ledger(next_n=6, accepted=numbers)
    ledger.given[5] = {1, 2}
    servers = Servers()
    for n in numbers - {6}:
        servers.application[n] = {"one"} if n != 3 else {"one", "other"}
    archive = tmp_path / "archive"
    archive.write_bytes(b"\n".join(delivered))

    found = account(lambda topic: [({}, v) for v in held.get(topic, [])], ledger, servers, archive)

    assert (found.missing, found.doubled, found.shared) == ({6}, {2, 3}, {5})
    assert any(each.startswith("uplinks:") for each in found.broken)


def test_order_of_one_sender_is_held() -> None:
    """Uplinks of one device that one sender had accepted one after the other stand in that order;
    another sender's may stand anywhere between.
    """
    ledger = Ledger(runs=[[1, 3], [2]])
    check_order([message(2), message(1), message(3)], ledger)
    with pytest.raises(AssertionError, match="stands before an earlier one"):
        check_order([message(3), message(2), message(1)], ledger)
