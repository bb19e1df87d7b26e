"""The suite that every transport passes, with a real peer at the other side: nothing acknowledged
before it is durable, nothing lost in a reconnect, garbage never stops the door, downlinks in order.

A transport's peers are in `peers/<transport>.py`; where a claim is not for a transport, its peer
says why (`limits`), and the suite shows what holds in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.convert.received import Received, read
from pipeline.errors import MessageError
from pipeline.ingest.source import connection_models
from pipeline.integrations.dialect import HTTP
from pipeline.model.record import Record
from pipeline.sink.transport import handover_of
from pipeline.topics import UPLINK_RECEIVED
from tests.contract.peers.peer import KINDS, Peer, Peers, Place, bytes_of
from tests.real.sink_servers import SinkServers
from tests.real.source_work import NOW_MS, Process, until

PLACE = "tests.contract.peers"
TRANSPORTS = [HTTP, *sorted(connection_models())]
LEFT_OUT = {"amqp1"} if find_spec("proton") is None else set[str]()  # as tests/conftest.py says
SETTLED_S = 0.3
"""So long after a message arrived here its peer would have had an acknowledgement."""


def peers_of(transport: str) -> Peers:
    """Return the peers of a transport; none, where there is no file of them."""
    if transport in LEFT_OUT or find_spec(f"{PLACE}.{transport}") is None:
        return {}
    found: Peers = import_module(f"{PLACE}.{transport}").PEERS
    return found


MADE: Peers = {label: made for each in TRANSPORTS for label, made in peers_of(each).items()}
ON_KAFKA = [pytest.mark.kafka, pytest.mark.xdist_group("kafka")]


def labels(claim: str = "", *, limited: bool = False) -> list[object]:
    """Return the peers for which a claim holds, or, `limited`, those that say why it does not."""
    return [
        pytest.param(label, marks=ON_KAFKA if label == "kafka" else [])
        for label, made in MADE.items()
        if (claim in limits_of(made)) is limited
    ]


def limits_of(made: Callable[[Place], Peer]) -> dict[str, str]:
    return dict(getattr(made, "limits", {}))


@pytest.fixture
async def peer(
    request: pytest.FixtureRequest, sink_servers: SinkServers, tmp_path: Path
) -> AsyncIterator[Peer]:
    """The other side, started."""
    made = MADE[request.param](Place(sink_servers, tmp_path))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def of_all(claim: str = "", *, limited: bool = False) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("peer", labels(claim, limited=limited), indirect=True)


async def has_arrived(peer: Peer, *numbers: int) -> None:
    await until(lambda: {*numbers} <= {*peer.numbers()}, 60)


async def is_acknowledged(peer: Peer, count: int) -> None:
    """Wait until the peer knows: what was on its way to it when the worker went may still be."""
    async with asyncio.timeout(20):
        while await peer.acknowledged() != count:  # noqa: ASYNC110 - it is about another process
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_each_transport_has_a_peer(transport: str) -> None:
    """A transport that the folder has and this suite has not is a fault of the suite."""
    assert transport in LEFT_OUT or peers_of(transport), f"no contract peer for {transport}"


@pytest.mark.parametrize("label", MADE)
def test_what_is_not_claimed_has_its_reason(label: str) -> None:
    """A peer that leaves a claim out says why, in a sentence, which is shown here."""
    for claim, why in limits_of(MADE[label]).items():
        assert claim in {"acknowledged", "downlinks", "once", *KINDS}
        assert len(why.split()) > 5
        print(f"{label}, {claim}: {why}")  # noqa: T201 - what is not proven is said


@of_all("acknowledged")
async def test_nothing_is_acknowledged_before_it_is_durable(peer: Peer) -> None:
    """A worker that dies before its append has acknowledged nothing, and the next one gets all of
    it; what was acknowledged does not come again.
    """
    assert peer.acknowledges
    peer.log.open.clear()
    async with peer.serving():
        await peer.send(*range(10))
        await until(lambda: peer.log.asked, 60)
        await asyncio.sleep(SETTLED_S)
    assert peer.log.records == []
    assert await peer.acknowledged() == 0

    peer.log.open.set()
    async with peer.serving():
        await has_arrived(peer, *range(10))
        await asyncio.sleep(SETTLED_S)
    assert list(dict.fromkeys(peer.numbers())) == list(range(10))
    await is_acknowledged(peer, 10)

    before = len(peer.numbers())
    # What is the present value when it connects is told once more.
    again = [9] if "once" in peer.limits else []
    async with peer.serving():
        await until(lambda: peer.numbers()[before:] == again)
        await peer.send(10)
        await has_arrived(peer, 10)
    assert peer.numbers()[before:] == [*again, 10]


@of_all("acknowledged", limited=True)
async def test_without_acknowledgements_what_comes_is_taken_in_order(peer: Peer) -> None:
    """What came while nothing could be stored arrives in order as soon as it can, and what comes
    after a worker's end arrives at the next.
    """
    assert not peer.acknowledges
    peer.log.open.clear()
    async with peer.serving():
        await peer.send(*range(10))
        await until(lambda: peer.log.asked)
        await asyncio.sleep(SETTLED_S)
        assert peer.log.records == []
        peer.log.open.set()
        await has_arrived(peer, *range(10))
    async with peer.serving():
        await peer.send(*range(10, 40))
        await has_arrived(peer, 39)
    numbers = peer.numbers()
    assert numbers[:10] == list(range(10))
    assert numbers == sorted(numbers)


@of_all()
async def test_nothing_is_lost_in_a_reconnect(peer: Peer) -> None:
    """Messages go on while the connection is cut; each that the peer could keep arrives, in order,
    and who connects has told that the peer was away.
    """
    async with peer.serving() as process:
        await peer.send(*range(20))
        await has_arrived(peer, *range(20))
        await peer.cut()
        if peer.connects:
            await until(lambda: process.status().state == "lost", 60)
        await peer.send(*range(20, 40))
        await peer.mend()
        if peer.acknowledges:
            await has_arrived(peer, *range(20, 40))
        else:
            await peer.send(40)
            await has_arrived(peer, 40)
        if peer.connects:
            assert process.status().state == "connected"
            assert process.status().connects >= 2
    # What was stored and not acknowledged when the connection broke comes twice.
    numbers = list(dict.fromkeys(peer.numbers()))
    assert numbers == sorted(numbers)


@of_all()
async def test_garbage_never_stops_the_door(peer: Peer) -> None:
    """After each kind of garbage the next message arrives; what the peer cannot know of itself has
    left a trace here, and convert refuses or reads all that was stored.
    """
    shown = [kind for kind in KINDS if kind not in peer.limits]
    assert shown
    async with peer.serving() as process:
        for number, kind in enumerate(shown):
            before = peer.traces(process)
            traces = await peer.garbage(kind, process)
            await peer.send(number)
            try:
                await has_arrived(peer, number)
                least = before + traces
                await until(lambda least=least: peer.traces(process) >= least)
            except TimeoutError:
                pytest.fail(f"after garbage: {kind}: {peer.numbers()}, {peer.traces(process)}")
        await until(lambda: refused_or_read(peer, process) == len(peer.log.uplinks()))
    assert not process.bugs


def refused_or_read(peer: Peer, process: Process) -> int:
    """Return how many records convert can handle, one way or the other."""
    handled = 0
    for out in peer.log.of(UPLINK_RECEIVED):
        record = Record(out.topic, 0, 0, NOW_MS, out.key, out.value, out.headers)
        with suppress(MessageError):  # Then it is a dead letter; any other fault is ours.
            read(Received(record), process.rulebooks())
        handled += 1
    return handled


@of_all("downlinks")
async def test_downlinks_arrive_in_order(peer: Peer) -> None:
    """Downlinks that were handed over one after the other are heard so, each once."""
    async with peer.serving() as process:
        assert await peer.downlinks(process, 5) == bytes_of(5)


@of_all("downlinks", limited=True)
async def test_without_a_way_of_its_own_downlinks_leave_by_http(peer: Peer) -> None:
    """A transport that carries no downlinks has no way out that nobody tests: they are the
    dialect's requests, as they are for `http`.
    """
    made = peer.integration()
    assert handover_of(made.transport) is None
    assert not made.connection.stays_open
    assert "downlinks" not in limits_of(MADE[HTTP])
