"""Who may connect to a server of ours, and how many at a time."""

from __future__ import annotations

from pipeline.ingest.transports.peers import Peers
from pipeline.rulebook.connections.listener import Networks


def test_one_too_many_is_refused() -> None:
    """Of all and of one address; who leaves makes room, and nothing is kept of who has left."""
    peers = Peers(Networks(()), peers_max=3, per_peer_max=2)

    assert [peers.enter(address) for address in ("a", "a", "b")] == ["", "", ""]
    assert peers.enter("c") == "too many at a time"
    peers.leave("b")
    assert peers.enter("a") == "too many of one peer at a time"
    peers.leave("a")
    assert peers.enter("a") == ""
    peers.leave("a")
    peers.leave("a")
    assert (len(peers), dict(peers._of)) == (0, {})


def test_strangers_take_no_room() -> None:
    """Who is of none of the networks is refused, and not counted."""
    peers = Peers(Networks(("10.0.0.0/8",)), peers_max=1, per_peer_max=1)

    assert "networks" in peers.enter("192.0.2.1")
    assert peers.enter("10.0.0.1") == ""
