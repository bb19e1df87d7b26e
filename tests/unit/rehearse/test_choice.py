"""Names of what is to be tested."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.rehearse.choice import check_names


def test_names_that_are_there(book: Any) -> None:
    """Converters and chains may be named."""
    check_names([book], ["acme/sensor", "cool"])


def test_a_name_that_is_not(book: Any) -> None:
    """A slip is refused, and not taken for tests that pass."""
    with pytest.raises(UsageError, match="did you mean `cool`"):
        check_names([book], ["cols"])
