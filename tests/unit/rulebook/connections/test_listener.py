"""Integrations on which Funicular listens: what their connections may say, and what goes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.rulebook.book import Integration
from pipeline.rulebook.connections.listener import Networks
from pipeline.rulebook.connections.tcp_server import TcpServerConfig
from pipeline.rulebook.connections.udp_server import UdpServerConfig
from pipeline.wiring import load_rules

LINES = {"port": 5000, "framing": {"delimiter": "\n"}}
FEW = {
    "tcp": "connection: {port: 5000, framing: {length: 2}}\n",
    "udp": "connection: {port: 5000}\n",
}


def load(folder: Path, text: str) -> Integration:
    (folder / "integrations").mkdir()
    (folder / "funicular.yaml").write_text("tenant: acme\n")
    (folder / "integrations/meters.yaml").write_text(text)
    (book,) = load_rules([folder], None, {}).values()
    return book.integrations["meters"]


def faults(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return "\n".join(f"{fault.message} ({fault.suggestion})" for fault in caught.value.faults)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_device_is_answered_where_it_connects(tmp_path: Path, transport: str) -> None:
    """Without a word about it the way back is that of the uplink, and stays open."""
    made = load(tmp_path, f"dialect: http\ntransport: {transport}\n" + FEW[transport])

    assert made.synchronous
    assert made.stays_open


def test_a_device_may_be_answered_elsewhere(tmp_path: Path) -> None:
    """`synchronous: false`: downlinks go to `downlink_url`, and no window is kept."""
    text = "dialect: http\ntransport: tcp\nsynchronous: false\n" + FEW["tcp"]

    assert not load(tmp_path, text).stays_open


def test_a_network_server_is_asked_as_ever(tmp_path: Path) -> None:
    """A dialect whose answers carry nothing has its downlinks sent by its own requests."""
    made = load(tmp_path, "dialect: chirpstack\ntransport: tcp\n" + FEW["tcp"])

    assert not made.synchronous


def test_the_dialect_must_look_where_the_name_is(tmp_path: Path) -> None:
    """Where the connection names the device, the dialect's option says that it does."""
    text = (
        "dialect: http\ntransport: udp\nconnection: {port: 1, device: {length: 4}}\n"
        "options: {device_field: id}\n"
    )

    assert "(`options: {device_query: device}`)" in faults(tmp_path, text)


def test_topics_do_not_come_over_a_socket(tmp_path: Path) -> None:
    """The dialect `mqtt` needs topics; the hint says what to take."""
    text = "dialect: mqtt\ntransport: tcp\n" + FEW["tcp"]

    assert "`dialect: http`" in faults(tmp_path, text)


@pytest.mark.parametrize(
    "given",
    [
        {"framing": {"delimiter": "\n"}},
        {"port": 5000},
        {**LINES, "port": 70_000},
        {**LINES, "peers": ["10.0.0.1/8"]},
        {**LINES, "peers": "nowhere"},
        {**LINES, "token": "t"},
        {**LINES, "token": "t", "device": "peer"},
        {**LINES, "connections_max": 0},
        {**LINES, "tls": {}},
        {**LINES, "acknowledge": {"hex": "zz"}},
        {**LINES, "no_such": 1},
    ],
)
def test_a_tcp_server_that_cannot_be(given: dict[str, Any]) -> None:
    """What is missing, or does not go together, is found when the rules are read."""
    with pytest.raises(ValidationError):
        TcpServerConfig.model_validate(given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"port": 1, "device": {"handshake": " "}},
        {"port": 1, "token": "t"},
        {"port": 1, "window": "2d"},
    ],
)
def test_a_udp_server_that_cannot_be(given: dict[str, Any]) -> None:
    """UDP has no connections, and so no handshakes."""
    with pytest.raises(ValidationError):
        UdpServerConfig.model_validate(given)


def test_secrets_are_not_shown() -> None:
    """Tokens are in no text of a config."""
    config = TcpServerConfig.model_validate(
        {**LINES, "device": {"handshake": " "}, "token": "everybody", "tokens": {"d1": "own"}}
    )

    assert "everybody" not in repr(config)
    assert "own" not in repr(config)


def test_networks() -> None:
    """A network admits its addresses, IPv4 also as IPv6 says it; none named admits all."""
    networks = Networks(("10.0.0.0/8", "fd00::/8", "192.168.7.7"))

    assert networks.admit("10.1.2.3")
    assert networks.admit("::ffff:10.1.2.3")
    assert networks.admit("fd00::1")
    assert networks.admit("192.168.7.7")
    assert not networks.admit("192.168.7.8")
    assert not networks.admit("fe80::1%eth0")
    assert Networks(()).admit("8.8.8.8")
