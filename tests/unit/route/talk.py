"""A device that says something now and then, to nodes under test; time passes as in real life."""

from __future__ import annotations

from typing import Any

from pipeline.route.limits import Limits
from tests.unit.route.bench import KEY, START_MS, Bench, Made, record, rulebook, uplink


def chain(node: str, *outlets: str, on: str = "uplink") -> str:
    """A chain of one node, which delivers all that leaves by an outlet as `[outlet, message]`."""
    ends = "".join(
        f"""
  - name: out {outlet}
    send: {{to: archive, body: [{outlet}, "${{telemetry}}", "${{metadata}}", "${{message.id}}"]}}
    then: stop"""
        for outlet in ("then", *outlets)
    )
    ways = "".join(f"\n    {outlet}: out {outlet}" for outlet in outlets)
    return f"chain: main\non: {{messages: {on}}}\nnodes:\n  - name: a\n    {node}{ways}{ends}"


class Talk:
    """One device, and a chain of one node. Times are seconds since the test began."""

    def __init__(self, node: str, *outlets: str, limits: Limits | None = None) -> None:
        self.bench = Bench(rulebook(chain(node, *outlets)), limits=limits or Limits())
        self.said = 0

    def change(self, node: str, *outlets: str) -> None:
        """Edit the rules."""
        self.bench.books["t"] = rulebook(chain(node, *outlets), version="v2")

    def until(self, at_s: float) -> Made:
        """Let time pass; each timer is due at its own time."""
        made = Made()
        end_ms = START_MS + round(at_s * 1_000)
        while True:
            due = [due_ms for due_ms, _ in self.bench.timers.values() if due_ms <= end_ms]
            if not due:
                break
            made += self.bench.wait(max(min(due) - self.bench.now_ms, 0))
        self.bench.now_ms = end_ms
        return made

    def at(self, at_s: float, telemetry: dict[str, Any] | None = None, **fields: Any) -> Made:
        """Let time pass, then let the device say something."""
        made = self.until(at_s)
        self.said += 1
        said = {
            "id": f"u{self.said}.0",
            "time_ms": self.bench.now_ms,
            "received_ms": self.bench.now_ms,
            **({"telemetry": telemetry} if telemetry is not None else {}),
            **fields,
        }
        made += self.bench.take(record(uplink(self.said, **said)))
        return made

    def kept(self) -> Any:
        """What the node keeps of the device."""
        return self.bench.parts[KEY].get("node/main/a")


def outlets(made: Made) -> list[str]:
    """By which outlets messages left."""
    assert made.letters == [], made.letters
    return [body[0] for body in made.bodies]


def telemetry(made: Made) -> list[Any]:
    """What messages that left by `then` had."""
    assert made.letters == [], made.letters
    return [body[1] for body in made.bodies if body[0] == "then"]


def metadata(made: Made) -> list[Any]:
    """What messages that left by `then` had beside it."""
    return [body[2] for body in made.bodies if body[0] == "then"]


def reasons(made: Made) -> list[str]:
    """Why messages became dead letters."""
    return [letter.reason for letter in made.letters]
