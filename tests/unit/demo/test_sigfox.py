"""The simulated Sigfox."""

from __future__ import annotations

from random import Random
from typing import Any

import orjson
import pytest

from pipeline.demo.callbacks import Callbacks, Clock
from pipeline.demo.fleet import Meter
from pipeline.demo.sigfox import Sigfox, authorization
from pipeline.integrations.dialect import dialects
from pipeline.model.downlink import State
from pipeline.model.reply import Reply

CLOSE = bytes([0, 0, 10, 0, 0, 0, 0, 0])


@pytest.fixture
def meter() -> Meter:
    meter = Meter("4D0001", Random(1))
    while not meter.asks:
        meter.report(0)
    meter.report(0)  # the next one asks again
    return meter


@pytest.fixture
def sigfox(callbacks: Callbacks) -> Sigfox:
    return Sigfox(callbacks, Clock(0.0001))


async def test_uplink_is_read_by_the_dialect(sigfox: Sigfox, meter: Meter, receiver: Any) -> None:
    """Funicular's dialect reads device, payload, counter and whether it may answer."""
    receiver.answers = [(204, None), (204, None)]

    await sigfox.uplink(meter)
    await sigfox.uplink(meter)

    asks, does_not = receiver.read("sigfox")
    assert asks.device == "4D0001" == sigfox.name(meter)
    assert len(asks.payload) == 8
    assert asks.answerable
    assert not does_not.answerable
    assert (asks.metadata["seq_number"], does_not.metadata["seq_number"]) == (1, 2)
    assert len(receiver.requests) == 2, "nothing was sent down, so nothing is acknowledged"


async def test_answer_by_the_dialect_reaches_the_device(
    sigfox: Sigfox, meter: Meter, receiver: Any
) -> None:
    """The 8 bytes of the dialect's own answer close the valve, and are acknowledged."""
    dialect = dialects()["sigfox"]
    request = dialect.sample(meter.id, 1, b"", 0)
    reply = Reply(request="r", device=meter.id, downlink_id="d1", payload=CLOSE)
    answer = dialect.answer([reply], request, dialect.options())
    receiver.answers = [(answer.status, orjson.loads(answer.body)), (204, None)]

    await sigfox.uplink(meter)

    assert not meter.is_open
    assert sigfox.outcomes["downlinks"] == 1
    (report,) = receiver.read("sigfox")[1].reports
    assert report.state is State.ACKNOWLEDGED


@pytest.mark.parametrize(
    "answer",
    [
        {"4D0001": {"downlinkData": "00"}},
        {"4D0001": {"downlinkData": "zz"}},
        {"other": {"downlinkData": CLOSE.hex()}},
        ["nonsense"],
    ],
)
async def test_bad_answers_are_reported(
    sigfox: Sigfox, meter: Meter, receiver: Any, answer: Any
) -> None:
    """An answer that is not 8 bytes for this device changes nothing and is told as invalid."""
    receiver.answers = [(200, answer), (204, None)]

    await sigfox.uplink(meter)

    assert meter.is_open
    (report,) = receiver.read("sigfox")[1].reports
    assert (report.state, report.reason) == (State.FAILED, "invalid_payload")


async def test_no_data_is_no_downlink(sigfox: Sigfox, meter: Meter, receiver: Any) -> None:
    """An answer that says `noData` is as good as 204."""
    receiver.answers = [(200, {"4D0001": {"noData": True}})]

    await sigfox.uplink(meter)

    assert len(receiver.requests) == 1
    assert meter.received == 0


async def test_failed_callbacks_are_repeated_with_the_same_body(
    sigfox: Sigfox, meter: Meter, receiver: Any
) -> None:
    """After errors the same request comes again, and its answer counts."""
    answer = (200, {"4D0001": {"downlinkData": CLOSE.hex()}})
    receiver.answers = [(503, None), (500, None), answer, (204, None)]

    await sigfox.uplink(meter)

    first, second, third, _ = receiver.requests
    assert first.body == second.body == third.body
    assert not meter.is_open
    assert sigfox.outcomes == {"downlinks": 1, "repeated": 2, "given_up": 0}


async def test_given_up_after_three_repeats(sigfox: Sigfox, meter: Meter) -> None:
    """Where nobody answers, four requests are all, and the loss is counted."""
    sigfox.callbacks.url = "http://127.0.0.1:9/"

    await sigfox.uplink(meter)

    # The uplink and the report that no answer came, four times each.
    assert sigfox.callbacks.counts["unanswered"] == 8
    assert sigfox.outcomes["given_up"] == 2


def test_authorization_is_basic() -> None:
    """The key is sent as the password of user `sigfox`."""
    assert authorization("demo-key")["authorization"] == "Basic c2lnZm94OmRlbW8ta2V5"
