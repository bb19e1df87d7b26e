"""Dead letters as people ask for them, and what became of each.

A letter is named by its place in `dead.letter`: `partition-offset`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol

import msgspec

from pipeline.model.dead_letter import DeadLetter

REPLAYED_ELSEWHERE = "replayed_elsewhere"
"""Code of the UsageError of one who began to write earlier than another."""

Fate = Literal["open", "replayed", "dropped"]
Which = Literal["open", "replayed", "dropped", "all"]


class Handled(msgspec.Struct, frozen=True, omit_defaults=True):
    """`dead.letter.handled`: somebody replayed or dropped the letter at `place`.

    `number` counts the letter's replays. It is written in one step with what was replayed.
    """

    place: str
    letter: str
    fate: Fate
    time_ms: int
    tenant: str
    number: int = 1
    by: str = ""


class LettersFilter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which letters are meant; what is empty does not matter. Times are when they were buried."""

    tenant: str = ""
    stage: str = ""
    destination: str = ""
    reason: str = ""
    device: str = ""
    since_ms: int = 0
    until_ms: int = 0
    fate: Which = "open"


class Letter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A dead letter with its place and what became of it; `handled` None: nothing yet."""

    place: str
    letter: DeadLetter
    destination: str = ""
    handled: Handled | None = None

    @property
    def fate(self) -> Fate:
        """What became of it."""
        return "open" if self.handled is None else self.handled.fate

    def summary(self) -> dict[str, Any]:
        """Return what a list shows of it: all but its bytes and headers."""
        letter = self.letter
        return {
            "place": self.place,
            "id": letter.id,
            "tenant": letter.tenant,
            "stage": letter.stage,
            "reason": letter.reason,
            "message": letter.message,
            "time_ms": letter.time_ms,
            "device": device_of(letter),
            "topic": letter.topic,
            "destination": self.destination,
            "bytes": len(letter.value or b""),
            "fate": self.fate,
            "detail": letter.detail,
        }


class Refused(msgspec.Struct, frozen=True):
    """A letter that was not replayed or dropped, and why."""

    place: str
    code: str
    message: str


class Done(msgspec.Struct, frozen=True):
    """What came of one step: places that were handled, in order, and those that were not."""

    done: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()


class Letters(Protocol):
    """The dead letters of a log. Methods block; one thread at a time. RetryableError: the log
    does not answer. UsageError: it cannot be written from here.
    """

    def find(self, wanted: LettersFilter, after: str = "") -> Iterator[Letter]:
        """Yield letters in the order in which each partition has them, past some places: one a
        partition, joined by commas.
        """
        ...

    def get(self, place: str) -> Letter | None:
        """Return the letter at a place; None: there is none (any more)."""
        ...

    def replay(self, letters: Sequence[Letter], by: str, *, again: bool = False) -> Done:
        """Send letters once more, in this order, in one step with the note of it. One that was
        replayed or dropped already is refused, unless `again`.
        """
        ...

    def drop(self, letters: Sequence[Letter], by: str) -> Done:
        """Note that letters need no replay any more, in one step. They stay readable."""
        ...


class LetterBox(Protocol):
    """Where a log's letters are. `open` blocks, and raises what `Letters` does."""

    def open(self, *, write: bool) -> AbstractContextManager[Letters]:
        """Return the letters, for one reader, or for one who replays and drops."""
        ...


class OpenBox:
    """The box of letters that are always at hand: those of the process's own log."""

    def __init__(self, letters: Letters) -> None:
        self._letters = letters

    def open(self, *, write: bool) -> AbstractContextManager[Letters]:  # noqa: ARG002 - the port's
        """See the port."""
        return nullcontext(self._letters)


def device_of(letter: DeadLetter) -> str:
    """Return the device that a letter is about, empty where its key names none."""
    return letter.key.partition("/")[2]


def chosen(letters: Iterable[Letter], wanted: LettersFilter) -> Iterator[Letter]:
    """Yield those that a filter means."""
    for one in letters:
        letter = one.letter
        if (
            wanted.tenant in ("", letter.tenant)
            and wanted.stage in ("", letter.stage)
            and wanted.destination in ("", one.destination)
            and wanted.reason in ("", letter.reason)
            and wanted.device in ("", device_of(letter))
            and letter.time_ms >= wanted.since_ms
            and (not wanted.until_ms or letter.time_ms < wanted.until_ms)
            and wanted.fate in ("all", one.fate)
        ):
            yield one
