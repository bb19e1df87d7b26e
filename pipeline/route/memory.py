"""What nodes keep of a device, safe against nodes that were rewritten meanwhile.

In: a visit. Out: what this kind of node kept there before. A node that keeps its name and becomes
another kind must not read what the former kept; it begins anew.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from pipeline.errors import MessageError
from pipeline.route.visit import Visit

_OF = "of"


def recall(visit: Visit, verb: str, shape: str = "") -> dict[str, Any]:
    """Return what nodes of this verb kept here, empty where nothing or another's is.

    `shape` is of the node's config: what was kept under another one is not returned either.
    """
    kept = visit.recall()
    if isinstance(kept, dict) and kept.get(_OF) == verb + shape:
        return kept
    return {}


def remember(visit: Visit, verb: str, values: dict[str, Any], shape: str = "") -> None:
    """Keep values for `recall`; nothing is written where they are what was kept before."""
    kept = {**values, _OF: verb + shape}
    if visit.recall() != kept:
        visit.remember(kept)


def expect(kept: Sized, verb: str) -> None:
    """Raise MessageError (code `node`) where a timer finds nothing of its kind of node."""
    if not kept:
        raise MessageError(
            f"the timer is of another `{verb}` node than the one that is here now", code="node"
        )
