"""What nodes said while nobody listened, where the server keeps it.

In: a Session, nodes and since when. Out: pages of values, each node's in order of time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from asyncua import ua

from .nodes import Node
from .session import Session, asking, in_batches
from .subscription import Said

PAGE_MAX = 1_000  # values of one node in one answer; the rest is asked for
NODES_MAX = 20  # in one request, so that an answer stays small
_HISTORY_READ = 1 << 2  # of AccessLevel
_TICK = timedelta(microseconds=1)


async def kept(session: Session, nodes: Sequence[Node]) -> list[Node]:
    """Return those whose history the server keeps."""
    found: list[Node] = []
    with asking("the server does not say of which nodes it has history"):
        for batch in in_batches(nodes, session.limit("read")):
            ids = [node.id for node in batch]
            levels = await session.client.uaclient.read_attributes(ids, ua.AttributeIds.AccessLevel)
            found += [
                node for node, level in zip(batch, levels, strict=True) if _has_history(level)
            ]
    return found


async def server_time(session: Session) -> datetime:
    """Return the server's own time, by which its history goes."""
    node = session.client.get_node(ua.NodeId(ua.ObjectIds.Server_ServerStatus_CurrentTime))
    with asking("the server does not say its time"):
        time: datetime = await node.read_value()
    return time


async def missed(
    session: Session, nodes: Sequence[Node], since: Mapping[str, datetime], until: datetime
) -> AsyncIterator[list[Said]]:
    """Yield what each node said after its moment in `since` (by its key), up to `until`."""
    most = min(NODES_MAX, session.limit("history"))
    # One request has one beginning: nodes of about one moment go together.
    ordered = sorted(nodes, key=lambda node: since[node.key])
    for batch in in_batches(ordered, most):
        begin = since[batch[0].key] + _TICK
        points: dict[int, bytes | None] = dict.fromkeys(range(len(batch)))
        while points:
            page: list[Said] = []
            with asking("the server does not give its history"):
                results = await _read(session, [batch[at].id for at in points], points.values(),
                                      begin, until)  # fmt: skip
            following: dict[int, bytes | None] = {}
            for at, result in zip(points, results, strict=True):
                node = batch[at]
                values = _values(result)
                page += [(node, value) for value in values if _after(value, since[node.key])]
                again = result.ContinuationPoint
                if again and again != points[at] and values:
                    following[at] = again
            points = following
            if page:
                yield page


async def _read(
    session: Session,
    ids: Sequence[ua.NodeId],
    points: Iterable[bytes | None],
    begin: datetime,
    until: datetime,
) -> list[ua.HistoryReadResult]:
    details = ua.ReadRawModifiedDetails()
    details.IsReadModified = False
    details.StartTime = begin
    details.EndTime = until
    details.NumValuesPerNode = PAGE_MAX
    details.ReturnBounds = False
    parameters = ua.HistoryReadParameters()
    parameters.HistoryReadDetails = details
    parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
    for node_id, point in zip(ids, points, strict=True):
        asked = ua.HistoryReadValueId()
        asked.NodeId = node_id
        asked.ContinuationPoint = point
        parameters.NodesToRead.append(asked)
    results: list[ua.HistoryReadResult] = await session.client.uaclient.history_read(parameters)
    return results


def _values(result: ua.HistoryReadResult) -> list[ua.DataValue]:
    """Return a result's values; none where the server has lost that node's history."""
    if result.StatusCode.is_bad() or not isinstance(result.HistoryData, ua.HistoryData):
        return []
    return list(result.HistoryData.DataValues or ())


def _after(value: ua.DataValue, moment: datetime) -> bool:
    time = value.SourceTimestamp or value.ServerTimestamp
    return time is not None and time > moment


def _has_history(level: ua.DataValue) -> bool:
    bits = level.Value.Value if level.Value is not None else None
    return isinstance(bits, int) and bool(bits & _HISTORY_READ)
