from __future__ import annotations

import pytest

from pipeline.rulebook.catalogue import suggest


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("dialekt", "did you mean `dialect`?"),
        ("DIALECT", "did you mean `dialect`?"),
        ("filename", "did you mean `fileName`?"),
        ("zzz", ""),
    ],
)
def test_suggests_the_nearest_name(wrong: str, expected: str) -> None:
    """The case of letters does not matter; far names are not offered."""
    assert suggest(wrong, ["dialect", "device", "fileName"]) == expected
