"""What a test of rules came to: one Result a test, with what differs, place by place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as the test says. `path` leads to it in what was expected.

    `expected` and `got` are JSON, shortened; where neither says it, `message` does. `line` is
    where the expectation stands, 0 where that is not known.
    """

    path: Path = ()
    expected: str = ""
    got: str = ""
    message: str = ""
    line: int = 0

    def __str__(self) -> str:
        said = self.message or f"expected {self.expected}, got {self.got}"
        where = path_text(self.path)
        return f"{where}: {said}" if where else said


@dataclass(frozen=True, slots=True)
class Result:
    """One example of a converter, or one test of a chain. `file` is relative to the rules folder.

    `ok` is whether there are no differences; `given` is what went in, shortened.
    """

    kind: Literal["example", "chain"]
    name: str
    file: str
    line: int
    differences: tuple[Difference, ...] = ()
    duration_s: float = 0.0
    given: str = ""

    @property
    def ok(self) -> bool:
        """Whether all is as the test says."""
        return not self.differences


def path_text(path: Path) -> str:
    """Return a path as people write it: `downlinks[0].bytes`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.replace("_", "a").isalnum():
            text += f".{step}" if text else step
        else:
            text += f"[{step!r}]"
    return text
