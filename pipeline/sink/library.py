"""Client libraries, which are extras: whether one is there, said while the rules are checked."""

from __future__ import annotations

from importlib.util import find_spec


def check_library(module: str, extra: str, what: str = "") -> None:
    """ValueError: the library that `what` (else the transport of that name) stands on is not
    installed.
    """
    if find_spec(module) is None:
        needs = what or f"the transport {extra}"
        raise ValueError(f"{needs} needs a library: pip install 'funicular[{extra}]'")
