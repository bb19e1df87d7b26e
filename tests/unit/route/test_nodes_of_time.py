"""Nodes that wait: their timers are in the state, fire once, and outlive failures."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.event import Forget
from pipeline.route.limits import Limits
from tests.unit.route.bench import KEY, START_MS, Bench, problems_of, record, rulebook, uplink
from tests.unit.route.talk import Talk, chain, metadata, outlets, reasons, telemetry

FAILING = """
chain: main
on: {messages: uplink}
nodes:
  - name: a
    %s
  - {name: fail, filter: telemetry.none > 1}
"""


def test_delay_holds_each_message() -> None:
    """Each message goes on after its time, in order, also those of one moment."""
    talk = Talk("delay: 10s")
    assert list(talk.at(1, {"n": 1})) == []
    talk.at(1, {"n": 2})
    talk.at(5, {"n": 3})

    assert telemetry(talk.until(10.999)) == []
    assert telemetry(talk.until(11)) == [{"n": 1}, {"n": 2}]
    assert telemetry(talk.until(15)) == [{"n": 3}]
    assert telemetry(talk.until(100)) == []


def test_delay_takes_the_same_message_twice() -> None:
    """A message that comes by two ways waits twice."""
    text = """
chain: main
on: {messages: uplink}
nodes:
  - {name: two, split: {list: telemetry.l, into: telemetry.x}}
  - {name: same, map: {telemetry: {}}}
  - {name: a, delay: 1s}
  - {name: archive, send: {to: archive, body: x}}
"""
    bench = Bench(rulebook(text))
    bench.take(record(uplink(telemetry={"l": [1, 2]})))

    assert bench.wait(1_000).bodies == ["x", "x"]


def test_delay_has_a_limit() -> None:
    """A device cannot have more messages wait than it has timers."""
    talk = Talk("delay: 10s", limits=Limits(timers_max=2))
    talk.at(1)
    talk.at(2)

    assert reasons(talk.at(3)) == ["timers"]
    assert len(telemetry(talk.until(20))) == 2


def test_delay_in_a_called_chain() -> None:
    """A message that waits in a called chain goes on there; the caller does not wait."""
    other = """
chain: other
nodes:
  - {name: a, delay: 10s}
  - {name: late, send: {to: archive, body: late}}
  - {name: back, output: warm}
"""
    text = """
chain: main
on: {messages: uplink}
nodes:
  - {name: run, chain: other, outputs: {warm: stop}}
  - {name: archive, send: {to: archive, body: now}}
"""
    bench = Bench(rulebook(text, other))

    assert bench.take(record(uplink())).bodies == ["now"]
    assert bench.wait(10_000).bodies == ["late"]


def test_timer_of_another_node() -> None:
    """A message whose node has become another kind is a dead letter."""
    for before, after in (
        ("delay: 10s", "debounce: {quiet: 10s}"),
        ("debounce: {quiet: 10s}", "delay: 10s"),
        ("debounce: {quiet: 10s}", "silence: {after: 10s}"),
        ("silence: {after: 10s}", "throttle: {per: 10s, take: last}"),
        ("delay: 10s", "window: {length: 10s, values: {n: {count: telemetry.n}}}"),
    ):
        talk = Talk(before)
        talk.at(1)
        talk.change(after)
        assert reasons(talk.until(100)) == ["node"], (before, after)


def test_debounce_waits_for_quiet() -> None:
    """The last message goes on when nothing came for a while; each leaves by `otherwise` first."""
    talk = Talk("debounce: {quiet: 10s}", "otherwise")
    assert outlets(talk.at(1, {"n": 1})) == ["otherwise"]
    assert outlets(talk.at(9, {"n": 2})) == ["otherwise"]
    assert outlets(talk.until(18.9)) == []
    assert telemetry(talk.until(19)) == [{"n": 2}]
    assert talk.kept() is None


def test_debounce_waits_no_longer_than_it_may() -> None:
    """With `at_most`, a device that never stops is heard now and then."""
    talk = Talk("debounce: {quiet: 10s, at_most: 15s}")
    for at in range(1, 16):
        assert telemetry(talk.at(at, {"n": at})) == []

    assert telemetry(talk.until(16)) == [{"n": 15}]
    talk.at(20, {"n": 20})
    assert telemetry(talk.until(30)) == [{"n": 20}]


def test_throttle_takes_the_last() -> None:
    """The last message of each span goes on at its end."""
    talk = Talk("throttle: {per: 10s, take: last}", "otherwise")
    made = talk.at(1, {"n": 1})
    made += talk.at(5, {"n": 2})
    assert outlets(made) == ["otherwise", "otherwise"]
    assert telemetry(talk.until(11)) == [{"n": 2}]
    assert telemetry(talk.at(30, {"n": 3})) == []
    assert telemetry(talk.until(39.9)) == []
    assert telemetry(talk.until(40)) == [{"n": 3}]


def test_silence_is_noticed() -> None:
    """A silent device is told of once, and once more when it is back."""
    talk = Talk("silence: {after: 10s}", "otherwise", "back")
    assert outlets(talk.at(1, {"n": 1})) == ["otherwise"]
    assert outlets(talk.at(10, {"n": 2})) == ["otherwise"]
    silent = talk.until(20)
    assert telemetry(silent) == [{"n": 2}]
    assert metadata(silent)[0]["silence"] == {"since": "2025-11-21T08:00:10.000Z", "notice": 1}
    assert list(talk.until(1_000)) == []
    assert outlets(talk.at(1_001)) == ["back"]
    assert outlets(talk.at(1_002)) == ["otherwise"]
    assert outlets(talk.until(1_012)) == ["then"]


def test_silence_is_told_again() -> None:
    """With `again_every`, a silence is told of until it ends."""
    talk = Talk("silence: {after: 10s, again_every: 5s}", "otherwise")
    talk.at(1)

    made = talk.until(22)

    assert [body[2]["silence"]["notice"] for body in made.bodies] == [1, 2, 3]
    assert outlets(talk.at(23)) == ["otherwise"]
    assert outlets(talk.until(32.9)) == []


def test_forgotten_device_is_not_silent() -> None:
    """Nothing is told of a device that was forgotten."""
    talk = Talk("silence: {after: 10s}")
    talk.at(1)
    talk.bench.take(record(Forget(id="f", tenant="t", device="dev", time_ms=START_MS)))

    assert list(talk.until(100)) == []


def test_schedule_comes_again_and_again() -> None:
    """The last message goes on at each full multiple, as a new message of that time."""
    talk = Talk("schedule: {every: 10s}", "otherwise")
    assert outlets(talk.at(3, {"n": 1})) == ["otherwise"]
    talk.at(14, {"n": 2})
    made = talk.until(30)

    assert telemetry(made) == [{"n": 2}, {"n": 2}]
    assert [one["schedule"]["due"] for one in metadata(made)] == [
        "2025-11-21T08:00:20.000Z",
        "2025-11-21T08:00:30.000Z",
    ]
    assert len({body[3] for body in made.bodies}) == 2


def test_schedule_after_a_long_stop() -> None:
    """What was due while nothing ran comes once, and the next at its own time."""
    talk = Talk("schedule: {every: 10s}")
    talk.at(1)

    late = talk.bench.wait(95_000 - 1_000)

    assert [one["schedule"]["due"] for one in metadata(late)] == ["2025-11-21T08:00:10.000Z"]
    assert telemetry(talk.until(99)) == []
    assert len(telemetry(talk.until(100))) == 1


def test_schedule_outlives_a_failure() -> None:
    """A node that fails after it buries each message, and the schedule goes on."""
    bench = Bench(rulebook(FAILING % "schedule: {every: 10s}"))
    bench.take(record(uplink()))

    letters = [bench.wait(10_000).letters for _ in range(3)]

    assert [[letter.detail["node"] for letter in each] for each in letters] == [["fail"]] * 3
    assert len({letter.id for each in letters for letter in each}) == 3


def test_silence_outlives_a_failure() -> None:
    """A notice that cannot be told does not end the notices."""
    bench = Bench(rulebook(FAILING % "silence: {after: 10s, again_every: 10s}"))
    bench.take(record(uplink()))

    assert [reasons(bench.wait(10_000)) for _ in range(3)] == [["expression"]] * 3


def test_schedule_by_the_clock() -> None:
    """A cron expression means local time: 06:00 in Amsterdam is 05:00 UTC in winter."""
    talk = Talk("schedule: {cron: '0 6 * * *', timezone: Europe/Amsterdam}")
    talk.at(1)
    day_s = 86_400

    made = talk.until(2 * day_s)

    assert [one["schedule"]["due"] for one in metadata(made)] == [
        "2025-11-22T05:00:00.000Z",
        "2025-11-23T05:00:00.000Z",
    ]


@pytest.mark.parametrize("when", ["every: 1h", "cron: '0 * * * *'"])
def test_schedule_spreads_devices(when: str) -> None:
    """Devices come at different times of the spread, each at the same one every time."""
    bench = Bench(rulebook(chain(f"schedule: {{{when}, spread: 10m}}")))
    bench.take(*(record(uplink(1, device=f"d{number}")) for number in range(20)))
    hour_ms = 3_600_000
    first = {key: due_ms for key, (due_ms, _) in bench.timers.items()}
    bench.wait(2 * hour_ms)
    second = {key: due_ms for key, (due_ms, _) in bench.timers.items()}

    offsets = {key: due_ms % hour_ms for key, due_ms in first.items()}
    assert all(offset < 600_000 for offset in offsets.values())
    assert len(set(offsets.values())) > 15
    assert {key: due_ms % hour_ms for key, due_ms in second.items()} == offsets


def test_schedule_that_was_edited() -> None:
    """The timer of the old schedule only begins the new one."""
    talk = Talk("schedule: {every: 10s}")
    talk.at(1)
    talk.change("schedule: {every: 60s}")

    assert telemetry(talk.until(59)) == []
    assert len(telemetry(talk.until(60))) == 1


WINDOW = (
    "window: {length: 60s, lateness: 5s, values: {m: {mean: telemetry.a}, n: {count: telemetry.a}}}"
)


def test_window_sums_up_at_its_end() -> None:
    """One message a window, when its time and lateness have passed, as of its end."""
    talk = Talk(WINDOW, "otherwise")
    talk.at(10, {"a": 1})
    talk.at(20, {"b": 1})
    assert outlets(talk.at(30, {"a": 3})) == ["otherwise"]

    assert telemetry(talk.until(64.9)) == []
    made = talk.until(65)

    assert telemetry(made) == [{"m": 2.0, "n": 2}]
    assert metadata(made)[0]["window"] == {
        "start": "2025-11-21T08:00:00.000Z",
        "end": "2025-11-21T08:01:00.000Z",
        "messages": 3,
    }
    assert list(talk.until(1_000)) == []
    assert talk.bench.timers == {}


def test_window_closes_by_a_later_message() -> None:
    """A message past the end and lateness closes the window before it is counted itself."""
    talk = Talk(WINDOW, "otherwise")
    talk.at(10, {"a": 1})
    made = talk.bench.take(
        record(uplink(2, telemetry={"a": 2}, time_ms=START_MS, received_ms=START_MS))
    )
    talk.bench.now_ms = START_MS + 65_000  # its timer is still to come
    made += talk.at(65, {"a": 9})

    assert telemetry(made) == [{"m": 1.5, "n": 2}]
    assert telemetry(talk.until(200)) == [{"m": 9.0, "n": 1}]


def test_window_takes_and_refuses_late_messages() -> None:
    """What comes within `lateness` is counted; what comes later leaves by `late`.
    A message that came late makes the window wait as long once more.
    """
    talk = Talk(WINDOW, "otherwise", "late")
    talk.at(50, {"a": 1})
    assert outlets(talk.at(63, {"a": 3}, time_ms=START_MS + 55_000)) == ["otherwise"]
    assert telemetry(talk.until(67.9)) == []
    assert telemetry(talk.until(68)) == [{"m": 2.0, "n": 2}]
    assert outlets(talk.at(69, {"a": 3}, time_ms=START_MS + 55_000)) == ["late"]


def test_window_of_a_worker_that_is_behind() -> None:
    """A worker that catches up counts messages in their own time, and none twice or too late."""
    talk = Talk(WINDOW, "otherwise", "late")
    behind_s = 3_600
    made = talk.at(behind_s, {"a": 0}, time_ms=START_MS, received_ms=START_MS)
    for number in range(1, 20):
        at_ms = START_MS + number * 10_000
        made += talk.at(
            behind_s + number * 0.1, {"a": number}, time_ms=at_ms, received_ms=at_ms
        )  # fmt: skip
    made += talk.until(3 * behind_s)

    assert [body[1]["n"] for body in made.bodies if body[0] == "then"] == [6, 6, 6, 2]
    assert "late" not in outlets(made)


def test_window_that_slides() -> None:
    """Windows that overlap each count a message; one without messages is not made."""
    talk = Talk(
        "window: {length: 60s, every: 20s, lateness: 1s, values: {n: {count: telemetry.a}, "
        "f: {first: telemetry.a}, d: {distinct: telemetry.a}, hi: {max: telemetry.a}}}"
    )
    talk.at(5, {"a": 1})
    made = talk.at(25, {"a": 2})
    made += talk.until(500)

    assert [(body[1]["n"], body[1]["f"], body[1]["d"], body[1]["hi"]) for body in made.bodies] == [
        (1, 1, 1, 1), (2, 1, 2, 2), (2, 1, 2, 2), (1, 2, 1, 2),
    ]  # fmt: skip
    assert [one["window"]["end"][14:19] for one in metadata(made)] == [
        "00:20", "00:40", "01:00", "01:20",
    ]  # fmt: skip


def test_window_outlives_a_failure() -> None:
    """A window that cannot be told is buried once, and the next one is counted."""
    bench = Bench(rulebook(FAILING % "window: {length: 10s, values: {n: {count: telemetry.n}}}"))
    made = []
    for number in range(3):
        bench.now_ms = START_MS + number * 60_000
        made += reasons(bench.take(record(uplink(number * 60, telemetry={"n": 1}))))
        made += reasons(bench.wait(30_000))

    assert made == ["expression"] * 3


def test_window_is_bounded() -> None:
    """Whatever times a device claims, what is kept has an end, and each message its way."""
    talk = Talk(
        "window: {length: 10s, every: 1s, lateness: 10s, values: {n: {count: telemetry.a}}}",
        "otherwise",
        "late",
    )
    went: list[str] = []
    for number in range(300):
        claimed_ms = START_MS + (number * 7_919 % 1_000 - 500) * 1_000
        made = talk.at(600 + number * 0.01, {"a": 1}, time_ms=claimed_ms)
        went += [outlet for outlet in outlets(made) if outlet != "then"]
        assert len(talk.kept()["panes"]) <= 21
    assert len(went) == 300


def test_window_that_was_edited() -> None:
    """Another length begins anew; the old window's timer is a dead letter of its last message."""
    talk = Talk(WINDOW)
    talk.at(10, {"a": 1})
    talk.change(WINDOW.replace("60s", "30s"))

    assert reasons(talk.until(100)) == ["node"]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("delay: 0s", "must be a duration from"),
        ("delay: soon", "must be a duration like"),
        ("debounce: {quiet: 367d}", "must be a duration from"),
        ("silence: {after: -1}", "must be a duration like"),
        ("schedule: {}", "needs either `every`"),
        ("schedule: {every: 1h, cron: '* * * * *'}", "needs either `every`"),
        ("schedule: {cron: '61 * * * *'}", "`61` is no minute"),
        ("schedule: {cron: '0 0 30 2 *'}", "the cron expression names a day that never comes"),
        ("schedule: {cron: '* * * * *', timezone: Mars/Olympus}", "must be a time zone"),
        ("schedule: {cron: '* * * * *', timezone: ../etc/passwd}", "must be a time zone"),
        ("window: {length: 1h, values: {}}", "must not be empty"),
        ("window: {length: 1h, every: 7m, values: {n: {count: telemetry.a}}}", "`length` must be"),
        ("window: {length: 1h, every: 1s, values: {n: {count: telemetry.a}}}", "`length` and"),
        ("window: {length: 0.5, values: {n: {count: telemetry.a}}}", "windows last at least"),
    ],
)
def test_check_says_what_is_wrong_with_times(node: str, message: str) -> None:
    """What can be known without a message is a problem."""
    assert problems_of(chain(node))[0].message.startswith(message)


def test_what_waits_is_only_data() -> None:
    """Everything that a waiting node needs is in the state: a new stage goes on with it."""
    talk = Talk(WINDOW)
    talk.at(10, {"a": 1})
    parts: dict[str, Any] = talk.bench.parts
    other = Talk(WINDOW)
    other.bench.parts, other.bench.timers = parts, talk.bench.timers

    assert telemetry(other.until(65)) == [{"m": 1.0, "n": 1}]
    assert KEY in parts


def test_collect_until_it_is_full_or_over() -> None:
    """A list goes on when it has its messages, or when its time is over; then another begins."""
    talk = Talk(
        "collect: {of: telemetry.a, into: telemetry.list, messages: 3, within: 10s}", "otherwise"
    )
    made = talk.at(1, {"a": 1, "b": 2})
    made += talk.at(2, {"b": 2})
    made += talk.at(3, {"a": 2})
    assert outlets(made) == ["otherwise"] * 3
    full = talk.at(4, {"a": 3})
    assert outlets(full) == ["then", "otherwise"]
    ((items,),) = [list(each.values()) for each in telemetry(full)]
    assert [(item["time"][17:19], item["value"]) for item in items] == [
        ("01", 1), ("03", 2), ("04", 3),
    ]  # fmt: skip
    talk.at(9, {"a": 4})
    assert telemetry(talk.until(18.9)) == []
    over = talk.until(19)
    assert [item["value"] for item in telemetry(over)[0]["list"]] == [4]
    assert talk.kept() is None
    assert list(talk.until(1_000)) == []


def test_collect_has_a_limit() -> None:
    """A message that would make the list too large is a dead letter; the list still goes on."""
    talk = Talk(
        "collect: {into: telemetry.list, within: 10s}", limits=Limits(node_state_bytes_max=150)
    )
    talk.at(1, {"a": 1})

    assert reasons(talk.at(2, {"a": "x" * 200})) == ["node_state"]
    assert [item["value"] for item in telemetry(talk.until(11))[0]["list"]] == [{"a": 1}]
