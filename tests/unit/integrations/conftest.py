"""Downlinks and links, as the dialects' tests need them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline.model.downlink import Downlink, State

_DOWNLINK = Downlink(
    id="0197.d1",
    tenant="acme",
    device="app1:dev1",
    integration="ns",
    state=State.SENDING,
    requested_ms=1,
    changed_ms=1,
    payload=b"\xbe\xef",
    f_port=15,
)


@pytest.fixture
def downlink() -> Callable[..., Downlink]:
    """Return a maker of downlinks: `downlink(payload=…, queue=…)`."""

    def make(**changes: Any) -> Downlink:
        return msgspec.structs.replace(_DOWNLINK, **changes)

    return make
