"""What can be wrong with an expression before any message is seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from pipeline.errors import FunicularError

PathPart = str | int


class ExpressionFault(FunicularError):  # noqa: N818 - a fault of the user's file, as `errors.Fault`
    """The user's expression is wrong; no message can make it right.

    `offset` counts characters from 0: in the source of an expression, or in the text that holds
    a template. `path` leads to that text inside a nested value; it is empty for an expression.
    `suggestion` is empty or a hint for the user. The rulebook makes file, line and column of these.
    """

    code = "expression"

    def __init__(
        self,
        message: str,
        offset: int = 0,
        suggestion: str = "",
        path: tuple[PathPart, ...] = (),
    ) -> None:
        super().__init__(message)
        self.offset = offset
        self.suggestion = suggestion
        self.path = path

    def moved(self, path: tuple[PathPart, ...], by: int) -> ExpressionFault:
        """Return the same fault as seen from a value that holds the expression at `path`."""
        return ExpressionFault(self.message, self.offset + by, self.suggestion, path)


@dataclass(frozen=True, slots=True)
class Limits:
    """How large an expression, and what it makes, may be.

    `nesting_max` also bounds a row of operators without brackets (`a + b + c` is two deep);
    rows of `&&` and of `||` count as one. The CEL definition asks for 24 to 32 at least.
    `steps_max` counts operations inside of `all exists exists_one map filter`, elements compared,
    and eighths of the characters that `matches` and `contains` search.
    `size_max` counts characters, bytes and elements of all strings, bytes and lists that one
    evaluation makes, and of its result through all levels.
    """

    source_chars_max: int = 8_192
    nesting_max: int = 64
    steps_max: int = 1_000_000
    size_max: int = 4_194_304  # four times the largest body that a door takes by default


LIMITS = Limits()


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint with the known word that looks most like `word`, or an empty string."""
    near = get_close_matches(word, sorted(known), n=1)
    return f"did you mean `{near[0]}`?" if near else ""
