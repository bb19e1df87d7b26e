"""What LoRaWAN network servers have in common."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline.errors import MessageError
from pipeline.integrations import lorawan
from pipeline.model.downlink import Downlink


@pytest.mark.parametrize("f_port", [None, -1, 0, 224, 255])
def test_ports_that_cannot_be(downlink: Callable[..., Downlink], f_port: int | None) -> None:
    """A downlink needs a port from 1 to 223; 0 is LoRaWAN's own."""
    with pytest.raises(MessageError, match="f_port from 1 to 223") as caught:
        lorawan.check(downlink(f_port=f_port))
    assert caught.value.code == "f_port"


@pytest.mark.parametrize("payload", [None, b"", b"x" * 243])
def test_lengths_that_cannot_be(downlink: Callable[..., Downlink], payload: bytes | None) -> None:
    """A downlink has 1 to 242 bytes."""
    with pytest.raises(MessageError, match="1 to 242 bytes") as caught:
        lorawan.check(downlink(payload=payload))
    assert caught.value.code == "payload_length"


@pytest.mark.parametrize(("f_port", "length"), [(1, 1), (223, 242)])
def test_limits_pass(downlink: Callable[..., Downlink], f_port: int, length: int) -> None:
    """The limits themselves are allowed."""
    lorawan.check(downlink(f_port=f_port, payload=b"x" * length))


def test_best_reception() -> None:
    """The gateway with the highest rssi says how well the uplink was heard."""
    gateways = [{"rssi": -100, "snr": 7}, "nonsense", {"rssi": -40.5}, {"rssi": None}, {}]

    assert lorawan.best_reception(gateways) == {"gateway_count": 4, "rssi": -40.5}
    assert lorawan.best_reception(gateways[:1]) == {"gateway_count": 1, "rssi": -100, "snr": 7}
    assert lorawan.best_reception([]) == {"gateway_count": 0}
