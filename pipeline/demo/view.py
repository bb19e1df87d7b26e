"""The demo's view: a live layout where there is a terminal, plain lines elsewhere.

In: a `Feed`, polled by `update` a few times a second. Out: text on a rich console.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.layout import Layout
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.demo.board import Board, Changed, in_words
from pipeline.demo.fleet import KINDS
from pipeline.demo.layout import layout
from pipeline.demo.loops import ClosedLoop, Loops, all_closed
from pipeline.demo.news import Feed, News
from pipeline.demo.process import Addresses
from pipeline.model.downlink import State

RATES_EVERY_S = 5.0
FRAMES_A_SECOND = 4
PLAIN_WIDTH = 160
# The moves that a reader of plain lines wants to see; the others follow one another at once.
_TOLD = {
    State.SENT, State.ACKNOWLEDGED, State.NOT_ACKNOWLEDGED, State.FAILED, State.EXPIRED,
    State.SUPERSEDED, State.CANCELLED,
}  # fmt: skip


class View:
    """Draws what happens. As a context manager it takes the terminal over, and gives it back.

    `update` polls the feed and draws; it blocks for as long as the feed does. Call it about
    `FRAMES_A_SECOND` times a second. `console` None: stdout; `plain` None: as the console is.
    """

    def __init__(
        self,
        feed: Feed,
        addresses: Addresses,
        *,
        funicular: str,
        tenant: str = "demo",
        plain: bool | None = None,
        console: Console | None = None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make it; `funicular` is where the door listens, as http://127.0.0.1:8080."""
        self._console = console or Console(soft_wrap=False)
        self._plain = not self._console.is_terminal if plain is None else plain
        self._feed = feed
        self._clock_s = clock_s
        self._began_s = clock_s()
        self._rates_said_s = self._began_s
        self._intro = intro(addresses, funicular, tenant)
        self.board = Board(feed.metrics, Loops(addresses.minute_s))
        self._live: Live | None = None

    @property
    def closed(self) -> set[str]:
        """The kinds of devices of which a loop has been seen closed."""
        return set(self.board.loops.closed)

    @property
    def all_closed(self) -> bool:
        """Whether loops of all three kinds have been seen closed."""
        return all_closed(self.closed)

    def update(self) -> None:
        """Take in what is new, and show it."""
        now_s = self._clock_s()
        news = self._feed.poll()
        changed, closed = self.board.update(news, now_s)
        if self._plain:
            self._lines(news, changed, closed, now_s)
        elif self._live is not None:
            self._live.update(self._frame(now_s - self._began_s), refresh=True)

    def summary(self) -> None:
        """Show the counts, at the end."""
        self._console.print(summary(self.board))

    def __enter__(self) -> Self:
        if self._plain:
            for line in self._intro:
                self._say(line)
        else:
            self._live = Live(
                self._frame(0.0),
                console=self._console,
                screen=True,
                auto_refresh=False,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _frame(self, running_s: float) -> Layout:
        return layout(self.board, self._intro, running_s, self._console.width)

    def _lines(
        self, news: News, changed: list[Changed], closed: list[ClosedLoop], now_s: float
    ) -> None:
        for downlink in news.downlinks:
            bytes_ = (downlink.payload or b"").hex()
            if downlink.state is State.REQUESTED:
                asked = in_words(downlink.fields or {}) or bytes_
                self._say(f"rule      {downlink.source} → {downlink.device}: {asked}")
            elif downlink.state in _TOLD:
                reason = f" ({downlink.reason})" if downlink.reason else ""
                self._say(f"downlink  {downlink.device}: {bytes_} {downlink.state}{reason}")
        for change in changed:
            self._say(f"attribute {change.device}: {in_words(change.values)}, by {change.by}")
        for loop in closed:
            self._say(f"loop      {loop.device}: {loop.text}")
        if now_s - self._rates_said_s >= RATES_EVERY_S:
            self._rates_said_s = now_s
            rates = " ".join(f"{step} {rate:.0f}/s" for step, rate in self.board.rates().items())
            loops = ", ".join(f"{self.board.loops.closed[kind]} {kind}" for kind in KINDS)
            self._say(f"rate      {rates}; loops closed: {loops}")

    def _say(self, line: str) -> None:
        self._console.print(Text(line), soft_wrap=True)


def intro(addresses: Addresses, funicular: str, tenant: str) -> list[str]:
    """Return the lines that say where everything is, what to try, and how to stop."""
    device = f"{funicular}/api/v1/tenants/{tenant}/devices/acme:thermostat-1"
    return [
        f"Funicular listens at {funicular} (/metrics, /healthz)",
        f"Simulated network servers and application: {addresses.url} (/state)",
        f"Try: curl -X PATCH {device}/attributes/shared -d '{{\"target\": 19}}'",
        f"     curl {device}/downlinks",
        "Ctrl-C stops it.",
    ]


def summary(board: Board) -> Table:
    """Return the table of counts."""
    table = Table(title="What the demo did", show_header=False, title_justify="left")
    table.add_column("what", style="bold")
    table.add_column("count", justify="right")
    totals = board.totals()
    nodes = sum(board.metrics.values("funicular_rule_nodes_total").values())
    table.add_row("requests at the door", f"{totals['door']:.0f}")
    table.add_row("messages through rule nodes", f"{nodes:.0f}")
    for state, count in board.downlink_states().items():
        table.add_row(f"downlinks {state.replace('_', ' ')}", str(count))
    for kind in KINDS:
        table.add_row(f"loops closed, {kind}s", str(board.loops.closed[kind]))
    deliveries = board.metrics.values("funicular_deliveries_total")
    for labels, times in sorted(deliveries.items()):
        said = dict(labels)
        table.add_row(escape(f"{said['result']} to {said['destination']}"), f"{times:.0f}")
    letters = sum(board.metrics.values("funicular_dead_letters_total").values())
    table.add_row("dead letters", f"{letters:.0f}")
    return table
