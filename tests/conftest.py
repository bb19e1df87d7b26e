"""For every test: logging as structlog has it by default."""

from __future__ import annotations

import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_as_by_default() -> None:
    """Undo what an earlier test's command has set, such as a level that hides what is said."""
    structlog.reset_defaults()
