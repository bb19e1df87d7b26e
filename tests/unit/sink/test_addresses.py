from __future__ import annotations

import socket

import pytest

from pipeline.sink.addresses import LOOPBACK, PRIVATE, DeniedError, Outward, networks_of

DENIED = [
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("169.254.169.254", "metadata"),
    ("168.63.129.16", "cloud"),
    ("100.64.0.1", "carrier"),
    ("100.100.100.200", "carrier"),
    ("192.0.0.192", "protocols"),
    ("198.18.0.1", "benchmarks"),
    ("192.88.99.1", "6to4"),
    ("224.0.0.1", "multicast"),
    ("239.255.255.250", "multicast"),
    ("255.255.255.255", "reserved"),
    ("240.0.0.1", "reserved"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::ffff:127.0.0.1", "loopback"),
    ("::ffff:a9fe:a9fe", "metadata"),
    ("::ffff:10.0.0.1", "private"),
    ("::127.0.0.1", "not a public"),
    ("64:ff9b::7f00:1", "loopback"),
    ("64:ff9b::a9fe:a9fe", "metadata"),
    ("64:ff9b:1::a00:1", "not a public"),
    ("2002:7f00:1::", "6to4"),
    ("2002:a00:1::1", "6to4"),
    ("2001:0:53aa:64c:0:0:0:0", "protocols"),
    ("2001:db8::1", "documentation"),
    ("3fff::1", "documentation"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "private"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("fec0::1", "site-local"),
    ("ff02::1", "multicast"),
    ("5f00::1", "not a public"),
    ("4000::1", "not a public"),
    ("localhost", "no numeric address"),
    ("", "no numeric address"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "172.15.0.1", "100.128.0.1"]
PUBLIC += ["2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2a00:1450:4001::1"]


@pytest.mark.parametrize(("address", "kind"), DENIED)
def test_special_addresses_are_denied(address: str, kind: str) -> None:
    """No special address passes, in whatever form, and the refusal says what it is."""
    refusal = Outward().refusal(address)
    assert refusal is not None
    assert kind in refusal


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    """Public addresses pass, also mapped into IPv6 or behind NAT64."""
    assert Outward().refusal(address) is None


@pytest.mark.parametrize(
    ("allowed", "address", "passes"),
    [
        ("10.1.0.0/16", "10.1.2.3", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        ("192.168.7.5", "192.168.7.5", True),
        ("192.168.7.5", "192.168.7.6", False),
        ("loopback", "127.0.0.1", True),
        ("loopback", "::1", True),
        ("loopback", "10.0.0.1", False),
        ("private", "10.9.9.9", True),
        ("private", "fd00::1", True),
        ("private", "169.254.169.254", False),
        ("private", "127.0.0.1", False),
        ("fe80::/10", "fe80::1%eth0", True),
        ("2002::/16", "2002:a00:1::1", True),
        ("0.0.0.0/0", "169.254.169.254", True),
    ],
)
def test_what_the_operator_allows_passes(allowed: str, address: str, passes: bool) -> None:
    """What is in an allowed network passes, and nothing beside it."""
    assert (Outward(networks_of([allowed])).refusal(address) is None) is passes


def test_a_refusal_says_what_to_set() -> None:
    """The refusal names the option and the variable by which an operator allows it."""
    refusal = Outward().refusal("10.0.0.1") or ""
    assert "--allow-network 10.0.0.1" in refusal
    assert "FUNICULAR_ALLOW_NETWORKS" in refusal


def test_words_and_networks() -> None:
    """`loopback`, `private`, networks and single addresses are understood."""
    assert networks_of(["Loopback", "PRIVATE"]) == (*LOOPBACK, *PRIVATE)
    assert [str(network) for network in networks_of(["10.0.0.0/8", "::1"])] == [
        "10.0.0.0/8",
        "::1/128",
    ]


@pytest.mark.parametrize("word", ["10.0.0.1/8", "lan", "10.0.0.0/33", ""])
def test_what_is_no_network_is_refused(word: str) -> None:
    """A word that is no network is refused with how to write one, host bits included."""
    with pytest.raises(ValueError, match="is no network: write one as"):
        networks_of([word])


def test_the_socket_is_for_the_checked_address() -> None:
    """A socket is given for an allowed address alone; a denial is a PermissionError in words."""
    outward = Outward(LOOPBACK)
    kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
    outward.socket((*kind, ("127.0.0.1", 80))).close()
    with pytest.raises(DeniedError, match=r"^10\.0\.0\.1 is private") as caught:
        outward.socket((*kind, ("10.0.0.1", 80)))
    assert isinstance(caught.value, PermissionError)
