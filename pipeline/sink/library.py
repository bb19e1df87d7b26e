"""Client libraries, which are extras: whether one is there, said while the rules are checked."""

from __future__ import annotations

from importlib.util import find_spec


def check_library(module: str, transport: str) -> None:
    """ValueError: the library that a transport stands on is not installed."""
    if find_spec(module) is None:
        raise ValueError(
            f"the transport {transport} needs a library: pip install 'funicular[{transport}]'"
        )
