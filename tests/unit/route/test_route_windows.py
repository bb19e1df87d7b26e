"""A way to a device that no message came by goes on to the owner of its downlinks."""

from __future__ import annotations

import msgspec

from pipeline import topics
from pipeline.model.event import ReplyWindow, WindowOpened
from pipeline.model.record import REPLY_TO
from tests.unit.route.bench import START_MS, Bench, record, rulebook

ALL = """
chain: all
on: {messages: uplink}
nodes:
  - name: archive
    send: {to: archive, body: "${telemetry}"}
"""
WAY = '{"instance":"i1","request":"w1","deadline_ms":9,"partition":2,"mode":"open"}'


def test_a_window_is_told_of_on() -> None:
    """It says who it leads to and by what, and enters no chain: the device has said nothing."""
    bench = Bench(rulebook(ALL))
    event = WindowOpened(id="w", tenant="t", device="dev", integration="lorawan", time_ms=START_MS)

    made = bench.take(record(event, **{REPLY_TO: WAY}))

    (out,) = made
    assert (out.topic, out.headers[REPLY_TO]) == (topics.DOWNLINK_REQUESTED, WAY)
    window = msgspec.json.decode(out.value or b"", type=ReplyWindow)
    assert (window.device, window.integration, window.repeated) == ("dev", "lorawan", False)
    assert window.window.carries
