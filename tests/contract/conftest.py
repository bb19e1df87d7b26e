"""The suites' own modules say what was compared when a comparison fails."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.contract.peers")
