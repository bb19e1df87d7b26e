"""The live layout on a terminal. In: the board. Out: a rich renderable; it draws nothing itself."""

from __future__ import annotations

from rich.console import Group
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pipeline.demo.board import Board, in_words, newest
from pipeline.demo.fleet import KINDS
from pipeline.model.downlink import State

ROWS_MAX = 30
DEVICE_WIDTH = 18
FRAME_WIDTH = 4
# Every downlink begins with these; room is short.
_EARLY = {State.REQUESTED, State.ENCODED, State.QUEUED}
_COLOURS = {
    State.ACKNOWLEDGED: "bold green",
    State.ACCEPTED: "green",
    State.SENT: "green",
    State.NOT_ACKNOWLEDGED: "yellow",
    State.EXPIRED: "yellow",
    State.SUPERSEDED: "yellow",
    State.CANCELLED: "yellow",
    State.FAILED: "bold red",
}


def layout(board: Board, intro: list[str], running_s: float, width: int) -> Layout:
    """Return one frame, `width` characters wide. The intro is folded, so that it can be copied."""
    whole = Layout()
    intro_rows = sum(-(-len(line) // max(1, width - FRAME_WIDTH)) for line in intro)
    whole.split_column(
        Layout(_head(board, intro, running_s), size=intro_rows + 3),
        Layout(name="middle", ratio=3),
        Layout(name="below", ratio=3),
        Layout(_loops(board), ratio=2, minimum_size=5),
    )
    whole["middle"].split_row(Layout(_uplinks(board), ratio=3), Layout(_rules(board), ratio=2))
    whole["below"].split_row(Layout(_downlinks(board), ratio=3), Layout(_changed(board), ratio=2))
    return whole


def _head(board: Board, intro: list[str], running_s: float) -> Panel:
    rates, totals = board.rates(), board.totals()
    flow = Text(no_wrap=True, overflow="ellipsis")
    for number, step in enumerate(totals):
        flow.append(" → " if number else "")
        flow.append(step, "bold")
        flow.append(f" {rates.get(step, 0):.0f}/s", "cyan")
        flow.append(f" ({totals[step]:.0f})", "dim")
    about = [Text(line, "dim", overflow="fold") for line in intro]
    minutes, seconds = divmod(int(running_s), 60)
    return Panel(Group(flow, *about), title=f"Funicular demo, {minutes}:{seconds:02d}")


def _table(first: str, second: str, *, width: int = DEVICE_WIDTH) -> Table:
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    table.add_column(first, no_wrap=True, overflow="ellipsis", width=width)
    table.add_column(second, no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def _uplinks(board: Board) -> Panel:
    table = _table("device", "telemetry")
    for message in newest(board.uplinks, ROWS_MAX):
        table.add_row(Text(message.device), Text(in_words(message.telemetry)))
    return Panel(table, title="newest uplinks")


def _rules(board: Board) -> Panel:
    table = _table("times", "rule node, outlet", width=6)
    for fired in board.fired()[:ROWS_MAX]:
        style = "" if fired.recently else "dim"
        outlet = "" if fired.outlet == "then" else f" → {fired.outlet}"
        node = f"{fired.chain}/{fired.node}{outlet}"
        table.add_row(Text(str(fired.times), style), Text(node, style))
    return Panel(table, title="rules that fired")


def _downlinks(board: Board) -> Panel:
    table = _table("device", "bytes, life")
    for life in newest(list(board.lives.values()), ROWS_MAX):
        downlink = life.downlink
        text = Text((downlink.payload or b"").hex() or in_words(downlink.fields or {}))
        text.append(" ")
        told = [state for state in life.states if state not in _EARLY] or life.states[-1:]
        for number, state in enumerate(told):
            text.append(" → " if number else "", "dim")
            text.append(state.value, _COLOURS.get(state, "dim"))
        if downlink.possibly_delivered:
            text.append(" possibly delivered", "yellow")
        if downlink.reason:
            text.append(f" ({downlink.reason})", "red")
        table.add_row(Text(downlink.device), text)
    return Panel(table, title="downlinks")


def _changed(board: Board) -> Panel:
    table = _table("device", "attributes, by")
    for change in newest(board.changed, ROWS_MAX):
        table.add_row(Text(change.device), Text(f"{in_words(change.values)}, by {change.by}"))
    return Panel(table, title="attributes that changed")


def _loops(board: Board) -> Panel:
    table = _table("device", "what happened")
    for loop in newest(board.closed, ROWS_MAX):
        table.add_row(Text(loop.device, "bold"), Text(loop.text))
    counts = ", ".join(f"{board.loops.closed[kind]} {kind}" for kind in KINDS)
    return Panel(table, title=f"closed loops: {counts}", border_style="green")
