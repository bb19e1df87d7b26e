"""Who may connect or send to a server of ours, and how many at a time.

In: addresses. Out: admitted, or why not.
"""

from __future__ import annotations

from collections import Counter

from pipeline.rulebook.connections.listener import Networks


class Peers:
    """Of one server: what is there now, by address."""

    def __init__(self, networks: Networks, *, peers_max: int, per_peer_max: int) -> None:
        self._networks = networks
        self._peers_max = peers_max
        self._per_peer_max = per_peer_max
        self._of: Counter[str] = Counter()
        self._all = 0

    def enter(self, address: str) -> str:
        """Count one more of an address; return why it may not be, empty: it may."""
        if not self._networks.admit(address):
            return "the peer is of none of the networks under `peers`"
        if self._all >= self._peers_max:
            return "too many at a time"
        if self._of[address] >= self._per_peer_max:
            return "too many of one peer at a time"
        self._all += 1
        self._of[address] += 1
        return ""

    def leave(self, address: str) -> None:
        """Count one less."""
        self._all -= 1
        self._of[address] -= 1
        if not self._of[address]:
            del self._of[address]

    def __len__(self) -> int:
        return self._all
