"""What of a rules folder is to be tested: names of converters and chains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pipeline.errors import UsageError
from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.catalogue import suggest


def check_names(books: Iterable[Rulebook], names: Sequence[str]) -> None:
    """Raise UsageError where one of `names` is neither a converter nor a chain of any book: a
    slip would otherwise look like tests that pass.
    """
    known = sorted({name for book in books for name in (*book.converters, *book.chains)})
    for name in names:
        if name not in known:
            hint = suggest(name, known) or f"there are {', '.join(known) or 'none'}"
            raise UsageError(
                f"there is no converter and no chain called `{name}`: {hint}", code="no_such_test"
            )
