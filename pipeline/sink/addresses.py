"""Which addresses requests may go to: the public ones, and what the operator allows besides.

In: the numeric address that a connection is about to be made to, after all resolving, so that no
spelling, redirect or name that changes its address gets by. Out: a socket, or a refusal in words.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SETTING = "--allow-network"
VARIABLE = "FUNICULAR_ALLOW_NETWORKS"

# IANA's registries of special-purpose addresses (RFC 6890), and what clouds put among the rest.
_V4 = tuple(
    (IPv4Network(network), kind)
    for network, kind in (
        ("127.0.0.0/8", "loopback"),
        ("10.0.0.0/8", "private"),
        ("172.16.0.0/12", "private"),
        ("192.168.0.0/16", "private"),
        ("169.254.0.0/16", "link-local, where clouds keep their metadata"),
        ("168.63.129.16/32", "a cloud's own service"),  # Azure's
        ("100.64.0.0/10", "shared by a carrier's customers"),
        ("0.0.0.0/8", "unspecified"),
        ("224.0.0.0/4", "multicast"),
        ("192.0.0.0/24", "reserved for protocols"),
        ("192.0.2.0/24", "for documentation"),
        ("198.51.100.0/24", "for documentation"),
        ("203.0.113.0/24", "for documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("198.18.0.0/15", "for benchmarks"),
        ("240.0.0.0/4", "reserved"),
    )
)
_V6 = tuple(
    (IPv6Network(network), kind)
    for network, kind in (
        ("::1/128", "loopback"),
        ("::/128", "unspecified"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved for protocols"),  # Teredo's tunnels among them
        ("2002::/16", "a 6to4 tunnel"),
        ("2001:db8::/32", "for documentation"),
        ("3fff::/20", "for documentation"),
    )
)
_V6_PUBLIC = IPv6Network("2000::/3")  # All that is given out to anybody is in it.
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address.

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
PRIVATE: tuple[Network, ...] = (
    *(network for network, kind in _V4 if kind == "private"),
    *(network for network, kind in _V6 if kind == "private"),
)
WORDS = {"loopback": LOOPBACK, "private": PRIVATE}


def networks_of(words: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of `10.1.0.0/16`, `192.168.7.5`, `fd00::/8`, `loopback`, `private`.

    ValueError: a word is none of these.
    """
    found: list[Network] = []
    for word in words:
        named = WORDS.get(word.lower())
        if named is not None:
            found += named
            continue
        try:
            found.append(ip_network(word))
        except ValueError as error:
            raise ValueError(
                f"`{word}` is no network: write one as 10.1.0.0/16 or fd00::/8, or `loopback` or"
                f" `private` ({error})"
            ) from None
    return tuple(found)


class DeniedError(PermissionError):
    """A connection that the operator has not allowed; the text says to what, and what to set.

    Its `errno` keeps it a PermissionError where several addresses' errors are put into one.
    """

    def __init__(self, message: str) -> None:
        super().__init__(errno.EACCES, message)

    def __str__(self) -> str:
        return str(self.strerror)


class Outward:
    """Where one process may connect to. Equal networks, equal answers; it holds no state."""

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def refusal(self, host: str) -> str | None:
        """Return why no connection may be made to a numeric address; None: it may."""
        try:
            address = ip_address(host)
        except ValueError:
            return f"`{host}` is no numeric address, and cannot be judged"
        inner = _inside(address)
        if self._is_allowed(address) or self._is_allowed(inner):
            return None
        kind = _special(inner)
        if kind is None:
            return None
        return (
            f"{host} is {kind}, and requests there are not allowed; an operator who wants them"
            f" sets {SETTING} {inner} or {VARIABLE}"
        )

    def socket(self, about: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        """Return a socket for what `getaddrinfo` gave, which is then connected to that very
        address. DeniedError: it must not be.
        """
        family, kind, protocol, _, address = about
        refusal = self.refusal(str(address[0]))
        if refusal is not None:
            raise DeniedError(refusal)
        return socket.socket(family, kind, protocol)

    def _is_allowed(self, address: Address) -> bool:
        # A zone (`fe80::1%eth0`) is no part of any network.
        plain = ip_address(int(address)) if address.version == 4 else IPv6Address(int(address))
        return any(plain in network for network in self._allowed)


def _inside(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for: mapped, or behind NAT64."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if IPv6Address(int(address)) in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _special(address: Address) -> str | None:
    """Return what kind of address it is, if it is not a public one."""
    if isinstance(address, IPv4Address):
        return next((kind for network, kind in _V4 if address in network), None)
    plain = IPv6Address(int(address))
    kind = next((kind for network, kind in _V6 if plain in network), None)
    return kind or (None if plain in _V6_PUBLIC else "not a public address")
