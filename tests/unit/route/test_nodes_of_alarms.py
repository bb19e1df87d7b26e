"""Alarms: raised, made worse, seen, cleared, and raised anew."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.route.limits import Limits
from tests.unit.route.bench import KEY, START_MS, Bench, Made, problems_of, record, rulebook, uplink
from tests.unit.route.talk import chain

ALARMS = """
chain: main
on: {messages: uplink}
nodes:
  - name: what
    switch:
      - {when: "telemetry.do == 'raise'", to: raise}
      - {when: "telemetry.do == 'clear'", to: clear}
      - {when: "telemetry.do == 'see'", to: see}
  - name: raise
    raise_alarm: {type: "${telemetry.type}", severity: "${telemetry.severity}", details: {t: 1}}
    created: created
    updated: updated
    otherwise: no
  - {name: changed, send: {to: archive, body: [then, "${metadata.alarm}"]}, then: stop}
  - {name: created, send: {to: archive, body: [created, "${metadata.alarm}"]}, then: stop}
  - {name: updated, send: {to: archive, body: [updated, "${metadata.alarm}"]}, then: stop}
  - {name: clear, clear_alarm: {type: "${telemetry.type}"}, otherwise: no, then: cleared}
  - {name: cleared, send: {to: archive, body: [cleared, "${metadata.alarm}"]}, then: stop}
  - {name: see, acknowledge_alarm: {type: "${telemetry.type}"}, otherwise: no, then: seen}
  - {name: seen, send: {to: archive, body: [seen, "${metadata.alarm}"]}, then: stop}
  - {name: no, send: {to: archive, body: [otherwise]}}
"""


class Alarms:
    """A device and its alarms."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.bench = Bench(rulebook(ALARMS), limits=limits or Limits())

    def tell(self, at_s: int, do: str, severity: str = "major", kind: str = "hot") -> Made:
        """Let the device say something at a time; the state sees it at the latest time so far."""
        at_ms = START_MS + at_s * 1_000
        self.bench.now_ms = max(self.bench.now_ms, at_ms)
        telemetry = {"do": do, "severity": severity, "type": kind}
        return self.bench.take(record(uplink(at_s, telemetry=telemetry)))

    def went(self, *said: Any, **more: Any) -> str:
        """By which way."""
        made = self.tell(*said, **more)
        assert made.letters == [], made.letters
        (body,) = made.bodies
        way: str = body[0]
        return way


def test_life_of_an_alarm() -> None:
    """It is created, updated, made worse, seen and cleared; each shows in the message."""
    alarms = Alarms()

    assert alarms.tell(1, "raise").bodies == [
        [
            "created",
            {
                "type": "hot",
                "event": "created",
                "severity": "major",
                "active": True,
                "acknowledged": False,
                "since": "2025-11-21T08:00:01.000Z",
                "last": "2025-11-21T08:00:01.000Z",
                "count": 1,
                "details": {"t": 1},
            },
        ]
    ]
    assert alarms.went(2, "raise") == "updated"
    ((way, alarm),) = alarms.tell(3, "raise", "critical").bodies
    assert (way, alarm["event"], alarm["severity"], alarm["count"]) == (
        "then", "severity_changed", "critical", 3,
    )  # fmt: skip
    ((_, alarm),) = alarms.tell(4, "see").bodies
    assert (alarm["event"], alarm["acknowledged"], alarm["active"]) == ("acknowledged", True, True)
    assert alarms.went(5, "see") == "otherwise"
    ((_, alarm),) = alarms.tell(6, "clear").bodies
    assert (alarm["event"], alarm["active"], alarm["acknowledged"]) == ("cleared", False, True)
    assert (alarm["since"][17:19], alarm["last"][17:19], alarm["cleared"][17:19]) == (
        "01", "03", "06",
    )  # fmt: skip
    assert alarms.went(7, "clear") == "otherwise"


def test_raised_anew() -> None:
    """After its end an alarm begins anew: not seen, count 1, its own start."""
    alarms = Alarms()
    for at, do in enumerate(("raise", "raise", "see", "clear"), 1):
        alarms.tell(at, do)

    ((way, alarm),) = alarms.tell(9, "raise").bodies

    assert (way, alarm["count"], alarm["acknowledged"]) == ("created", 1, False)
    assert alarm["since"] == "2025-11-21T08:00:09.000Z"


def test_cleared_alarm_can_be_seen() -> None:
    """Somebody may look at an alarm after its end."""
    alarms = Alarms()
    alarms.tell(1, "raise")
    alarms.tell(2, "clear")

    assert alarms.went(3, "see") == "seen"


def test_messages_that_come_late() -> None:
    """An older message neither raises an alarm that ended after it, nor clears one that was raised
    after it, nor changes how bad it is.
    """
    alarms = Alarms()
    alarms.tell(5, "raise")
    assert alarms.went(3, "clear") == "otherwise"
    assert alarms.went(4, "raise", "critical") == "updated"
    alarms.tell(10, "clear")
    assert alarms.went(7, "raise") == "otherwise"
    assert alarms.bench.parts[KEY]["alarms/hot"] == {
        "severity": "major",
        "since_ms": START_MS + 4_000,
        "last_ms": START_MS + 5_000,
        "count": 2,
        "cleared_ms": START_MS + 10_000,
        "details": {"t": 1},
    }


def test_nothing_to_see_or_clear() -> None:
    """Where there is no alarm, the message leaves as it came."""
    alarms = Alarms()

    assert alarms.went(1, "clear") == alarms.went(2, "see") == "otherwise"
    assert not [part for part in alarms.bench.parts[KEY] if part.startswith("alarms/")]


def test_alarms_have_a_limit() -> None:
    """A device has so many types; those cleared make room, the first one first."""
    alarms = Alarms(Limits(alarms_max=2))
    alarms.tell(1, "raise", kind="a")
    alarms.tell(2, "raise", kind="b")
    assert [letter.reason for letter in alarms.tell(3, "raise", kind="c").letters] == ["alarms"]
    alarms.tell(4, "clear", kind="b")
    alarms.tell(5, "clear", kind="a")
    assert alarms.went(6, "raise", kind="c") == "created"
    assert {part for part in alarms.bench.parts[KEY] if part.startswith("alarms/")} == {
        "alarms/a",
        "alarms/c",
    }


@pytest.mark.parametrize(
    ("severity", "kind", "reason"),
    [
        ("worst", "a", "alarm_severity"),
        ("major", "", "alarm_type"),
        ("major", "a/b", "alarm_type"),
        ("major", "x" * 65, "alarm_type"),
    ],
)
def test_alarm_that_is_none(severity: str, kind: str, reason: str) -> None:
    """A type or severity that an expression gave and that is none fails the message."""
    made = Alarms().tell(1, "raise", severity, kind)

    assert [letter.reason for letter in made.letters] == [reason]


def test_alarm_that_is_too_large() -> None:
    """Details have a limit."""
    made = Alarms(Limits(alarm_bytes_max=50)).tell(1, "raise")

    assert [letter.reason for letter in made.letters] == ["alarm_size"]


@pytest.mark.parametrize(
    ("wanted", "raised", "seen", "cleared"),
    [
        ("{type: hot}", True, True, False),
        ("{type: hot, acknowledged: false}", True, False, False),
        ("{type: hot, active: false}", False, False, True),
        ("{type: hot, active: null, acknowledged: true}", False, True, True),
        ("{type: hot, severity: [critical]}", False, False, False),
        ("{type: hot, severity: [critical, major]}", True, True, False),
        ("{type: cold}", False, False, False),
    ],
)
def test_match_alarm(wanted: str, raised: bool, seen: bool, cleared: bool) -> None:
    """A message goes on where the alarm is in the state that is asked for."""
    alarms = Alarms()
    text = chain(f"match_alarm: {wanted}", "otherwise").replace("main", "other")
    alarms.bench.books["t"] = rulebook(ALARMS, text.replace("chain: main", "chain: other"))
    matched = []
    for at, do in enumerate(("raise", "see", "clear"), 1):
        made = alarms.tell(at, do)
        matched.append(made.bodies[-1][0] == "then")

    assert matched == [raised, seen, cleared]


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("raise_alarm: {type: hot, severity: worst}", "an alarm's severity must be one of"),
        ("raise_alarm: {type: a/b, severity: major}", "an alarm's type must be text"),
        ("raise_alarm: {type: hot}", "`severity` is missing"),
        ("clear_alarm: {type: ''}", "an alarm's type must be text"),
        ("match_alarm: {type: hot, severity: [worst]}", "must be one of"),
    ],
)
def test_check_says_what_is_wrong_with_an_alarm(node: str, message: str) -> None:
    """What can be known without a message is a problem."""
    assert problems_of(chain(node))[0].message.startswith(message)
