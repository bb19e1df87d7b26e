"""What the view shows, from news and metrics."""

from __future__ import annotations

import pytest

from pipeline.demo.board import NEWEST_MAX, Board, Changed, in_words, newest
from pipeline.demo.loops import Loops
from pipeline.demo.news import News
from pipeline.metrics import Registry
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import State
from pipeline.model.event import AttributesChange
from tests.unit.demo.stories import life, said


@pytest.fixture
def board() -> Board:
    return Board(Registry(), Loops(1.0))


def test_rates_are_over_the_last_seconds(board: Board) -> None:
    """A step's rate is what it counted over the window, not since the start."""
    board.metrics.add("funicular_stage_records_total", 1_000, stage="convert")
    board.update(News(), 0.0)
    for second in range(1, 8):
        board.metrics.add("funicular_stage_records_total", 40, stage="convert")
        board.metrics.add("funicular_deliveries_total", 10, result="delivered", destination="a")
        board.metrics.add("funicular_deliveries_total", 5, result="retried", destination="a")
        board.update(News(), float(second))

    assert board.rates()["convert"] == pytest.approx(40)
    assert board.rates()["delivered"] == pytest.approx(10)
    assert board.totals()["convert"] == 1_280


def test_rules_that_fired_leave_routine_out(board: Board) -> None:
    """Nodes that every message passes, and what nothing took, are no news; recent ones lead."""

    def passed(node: str, outlet: str, times: int) -> None:
        labels = {"tenant": "demo", "chain": "c", "node": node, "outlet": outlet}
        board.metrics.add("funicular_rule_nodes_total", times, **labels)

    passed("archive", "then", 100)
    passed("how warm", "otherwise", 60)
    passed("rest", "then", 20)
    board.update(News(), 0.0)
    passed("cool", "then", 3)
    board.update(News(), 1.0)

    fired = [(each.node, each.times, each.recently) for each in board.fired()]
    assert fired == [("cool", 3, 3), ("rest", 20, 0)]


def test_changes_come_from_the_api_and_from_rules(board: Board) -> None:
    """An application's change, and what a rule told the application, are both attributes that
    changed; other deliveries are not.
    """

    def told(body: object) -> Delivery:
        return Delivery("x", "demo", "d", "application", 0, body=body)

    changed, _ = board.update(
        News(
            [AttributesChange("e", "demo", "d", "shared", 0, set={"target": 19}, delete=("old",))],
            deliveries=[
                told({"changed": ["valve"], "attributes": {"valve": "open", "other": 1}}),
                told({"device": "d", "interval": 30}),
                told({"device": "d"}),
                told("text"),
            ],
        ),
        0.0,
    )

    assert changed == [
        Changed("d", {"target": 19, "old": None}, "the API"),
        Changed("d", {"valve": "open"}, "a rule"),
        Changed("d", {"interval": 30}, "a rule"),
    ]


def test_lives_and_lists_are_bounded(board: Board) -> None:
    """However much comes, only the newest are kept; a life has each state once."""
    downlinks = [
        downlink
        for number in range(3 * NEWEST_MAX)
        for downlink in life("meter", number, State.REQUESTED, State.QUEUED, id_=f"d{number}")
    ]
    uplinks = [said("meter", number) for number in range(3 * NEWEST_MAX)]
    board.update(News(uplinks, [*downlinks, downlinks[-1]]), 0.0)

    assert len(board.lives) == len(board.uplinks) == NEWEST_MAX
    last = board.lives[f"d{3 * NEWEST_MAX - 1}"]
    assert last.states == [State.REQUESTED, State.QUEUED]
    assert newest(board.uplinks, 2) == [uplinks[-1], uplinks[-2]]


def test_values_in_words() -> None:
    """Values read as in YAML; numbers without needless digits."""
    values = {"a": 21.50, "b": True, "c": None, "d": "x", "e": 1234567}

    assert in_words(values) == "a=21.5 b=true c=gone d=x e=1234567"
