"""The view, on a terminal and without one."""

from __future__ import annotations

import io
import re

import msgspec
import pytest
from rich.console import Console

from pipeline.demo.news import News
from pipeline.demo.process import Addresses
from pipeline.demo.view import View
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import State
from tests.unit.demo.stories import ScriptedFeed, life, said

ADDRESSES = Addresses(
    url="http://127.0.0.1:9000",
    tts="http://127.0.0.1:9000/tts",
    application="http://127.0.0.1:9000/messages",
    state="http://127.0.0.1:9000/state",
    minute_s=0.3,
)
FUNICULAR = "http://127.0.0.1:8080"
SENT = (State.REQUESTED, State.ENCODED, State.QUEUED, State.SENDING, State.SENT)

PLAIN = """\
Funicular listens at http://127.0.0.1:8080 (/metrics, /healthz)
Simulated network servers and application: http://127.0.0.1:9000 (/state)
Try: curl -X PATCH http://127.0.0.1:8080/api/v1/tenants/demo/devices/acme:thermostat-1/\
attributes/shared -d '{"target": 19}'
     curl http://127.0.0.1:8080/api/v1/tenants/demo/devices/acme:thermostat-1/downlinks
Ctrl-C stops it.
rule      thermostats/tell the device → acme:thermostat-1: cooling=true target=22
downlink  acme:thermostat-1: 0100dc sent
attribute acme:thermostat-1: cooling=true, by a rule
loop      acme:thermostat-1: too warm 23.1 °C → cooling on → downlink 0100dc → 23 °C, cooling
rate      door 0/s convert 10/s route 0/s downlink 0/s delivered 0/s; \
loops closed: 1 thermostat, 0 tracker, 0 meter
"""


def story() -> ScriptedFeed:
    told = {"changed": ["cooling"], "attributes": {"cooling": True}}
    return ScriptedFeed(
        News(
            [said("thermostat", 1_000, temperature=23.1, fan="off")],
            life("thermostat", 1_010, *SENT, cooling=True, target=22),
            [Delivery("x", "demo", "acme:thermostat-1", "application", 0, body=told)],
        ),
        News([said("thermostat", 2_000, temperature=23.0, fan="on")]),
    )


def written(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=120, height=50), text


def test_plain_lines() -> None:
    """Without a terminal: the addresses, a line each for rule, downlink, attribute and closed
    loop, and the rates every 5 seconds.
    """
    console, text = written(terminal=False)
    feed, times = story(), iter((0.0, 0.25, 0.5, 5.5))
    view = View(feed, ADDRESSES, funicular=FUNICULAR, console=console, clock_s=lambda: next(times))
    with view:
        for _ in range(3):
            view.update()
            feed.metrics.add("funicular_stage_records_total", 50, stage="convert")
        assert view.closed == {"thermostat"}
        assert not view.all_closed

    assert text.getvalue() == PLAIN


def test_layout_on_a_terminal() -> None:
    """On a terminal every frame shows rates, uplinks, downlinks with their life, attributes and
    loops, and the terminal is given back at the end.
    """
    console, text = written(terminal=True)
    feed = story()
    feed.metrics.add(
        "funicular_rule_nodes_total", 7, tenant="demo", chain="thermostats", node="cool",
        outlet="then",
    )  # fmt: skip
    feed.metrics.add(
        "funicular_rule_nodes_total", 90, tenant="demo", chain="thermostats", node="archive",
        outlet="then",
    )  # fmt: skip
    with View(feed, ADDRESSES, funicular=FUNICULAR, console=console) as view:
        view.update()
        view.update()

    shown = text.getvalue()
    for part in (
        "newest uplinks", "temperature=23 fan=on", "thermostats/cool", "0100dc",
        "sending", "cooling=true, by a rule", "too warm 23.1 °C", "closed loops: 1 thermostat",
        "curl -X PATCH", "Ctrl-C",
    ):  # fmt: skip
        assert part in shown, part
    assert "thermostats/archive" not in shown
    assert shown.index("\x1b[?1049h") < shown.index("\x1b[?1049l"), "the screen is given back"


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (8, 3)])
def test_small_terminals(width: int, height: int) -> None:
    """However small the terminal, a frame is drawn; where it fits, the `curl` line is whole."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=width, height=height)
    view = View(story(), ADDRESSES, funicular=FUNICULAR, console=console, plain=False)
    view.update()

    console.print(view._frame(3.0))

    if width == 80:
        shown = "".join(text.getvalue().split()).replace("│", "")
        assert "acme:thermostat-1/attributes/shared" in re.sub(r"\x1b\[\d*m", "", shown)


def test_failed_downlink_says_why() -> None:
    """A downlink that failed is a plain line with its reason."""
    console, text = written(terminal=False)
    (failed,) = life("meter", 1_000, State.FAILED, valve="shut")
    feed = ScriptedFeed(News([], [msgspec.structs.replace(failed, reason="script_errors")]))
    view = View(feed, ADDRESSES, funicular=FUNICULAR, console=console, plain=True)
    view.update()

    assert text.getvalue() == "downlink  acme:meter-1: 0100dc failed (script_errors)\n"


def test_summary_counts() -> None:
    """The last table has uplinks, rules, downlinks by state, loops by kind and deliveries."""
    console, text = written(terminal=False)
    feed = story()
    count = feed.metrics.add
    count("funicular_requests_total", 12, tenant="demo", integration="i", status="202")
    count("funicular_rule_nodes_total", 34, tenant="demo", chain="c", node="n", outlet="then")
    count("funicular_downlinks_total", 5, state="not_acknowledged")
    count("funicular_deliveries_total", 6, tenant="demo", destination="archive", result="delivered")
    view = View(feed, ADDRESSES, funicular=FUNICULAR, console=console)
    view.update()
    view.update()
    text.truncate(0)

    view.summary()

    lines = [" ".join(line.strip("│ \n").split()) for line in text.getvalue().splitlines()]
    for line in (
        "requests at the door │ 12", "messages through rule nodes │ 34",
        "downlinks not acknowledged │ 5", "loops closed, thermostats │ 1",
        "loops closed, meters │ 0", "delivered to archive │ 6", "dead letters │ 0",
    ):  # fmt: skip
        assert line in lines, lines
