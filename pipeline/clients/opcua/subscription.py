"""One subscription: which nodes are watched, and what they say, in order, a notification at a time.

In: a Session and nodes. Out: calls of `take`; a notification is acknowledged to the server, and the
next one asked for, after `take` has returned.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import ua

from pipeline.rulebook.connections.opcua_server import OpcuaSourceConfig

from .nodes import Node
from .session import ServerError, Session, asking, in_batches
from .values import name_of

Said = tuple[Node, ua.DataValue]
_LIFETIME_MIN_S = 600.0  # so long the server keeps it while the log takes nothing
_COUNT_MAX = 2**31 - 1
_NO_FILTER = (ua.StatusCodes.BadFilterNotAllowed, ua.StatusCodes.BadMonitoredItemFilterUnsupported)
_FAULTS_TOLD_MAX = 3


class Subscription:
    """A subscription of one session; `ended` has an exception once it tells nothing any more."""

    def __init__(
        self,
        session: Session,
        config: OpcuaSourceConfig,
        take: Callable[[Sequence[Said], datetime | None], Awaitable[None]],
        missed: Callable[[int], None],
    ) -> None:
        """`take` gets what a notification says, and up to when it says all (the server's time;
        None: more follows). `missed` is told how many notifications could not be read.
        """
        self._session = session
        self._config = config
        self._take = take
        self._missed = missed
        self._id = 0
        self._nodes: list[Node] = []
        self._sequence = 0
        self._busy = False
        self._heard_s = 0.0
        self._quiet_s = math.inf
        self._slack = timedelta(seconds=2 * config.publishing_interval)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Make it; it watches nothing yet. ServerError: the server refuses it."""
        config = self._config
        parameters = ua.CreateSubscriptionParameters()
        interval_s = config.publishing_interval
        parameters.RequestedPublishingInterval = interval_s * 1_000
        parameters.RequestedMaxKeepAliveCount = max(1, round(config.keepalive / interval_s))
        lifetime_s = max(_LIFETIME_MIN_S, 3 * config.keepalive)
        parameters.RequestedLifetimeCount = min(math.ceil(lifetime_s / interval_s), _COUNT_MAX)
        parameters.MaxNotificationsPerPublish = config.notifications_max
        parameters.PublishingEnabled = True
        self._heard_s = asyncio.get_running_loop().time()
        with asking("the server makes no subscription"):
            made = await self._session.client.uaclient.create_subscription(parameters, self._hear)
        self._id = made.SubscriptionId
        # The server says something at least so often; a late sign is forgiven once.
        every_s = made.RevisedPublishingInterval * made.RevisedMaxKeepAliveCount / 1_000
        self._quiet_s = 2 * every_s + 1

    async def watch(self, nodes: Sequence[Node]) -> str:
        """Watch more nodes; return what is wrong with those that cannot be, in a sentence."""
        filtered = self._config.deadband > 0
        faults: dict[str, list[str]] = {}
        for batch in in_batches(nodes, self._session.limit("watch")):
            first = len(self._nodes)
            self._nodes += batch
            asked = [self._request(at, filtered) for at in range(first, len(self._nodes))]
            codes = await self._create(asked)
            again = [at for at, code in enumerate(codes, first) if code.value in _NO_FILTER]
            if filtered and again:
                retried = await self._create([self._request(at, filtered=False) for at in again])
                for at, code in zip(again, retried, strict=True):
                    codes[at - first] = code
            for node, code in zip(batch, codes, strict=True):
                if code.is_bad():
                    faults.setdefault(name_of(code), []).append(node.key)
        if not faults:
            return ""
        told = "; ".join(
            f"{len(keys)} by {name} ({', '.join(keys[:_FAULTS_TOLD_MAX])}…)"
            for name, keys in faults.items()
        )
        return f"some nodes cannot be watched: {told}"

    async def quiet(self) -> None:
        """Wait until the server has been silent for too long, and raise ServerError then."""
        loop = asyncio.get_running_loop()
        while True:
            left_s = self._heard_s + self._quiet_s - loop.time()
            if self._busy:
                left_s = self._quiet_s
            if left_s <= 0:
                raise ServerError(f"the subscription said nothing for {self._quiet_s:.0f} s")
            await asyncio.sleep(left_s)

    def _request(self, at: int, filtered: bool) -> ua.MonitoredItemCreateRequest:
        config = self._config
        request = ua.MonitoredItemCreateRequest()
        request.ItemToMonitor.NodeId = self._nodes[at].id
        request.ItemToMonitor.AttributeId = ua.AttributeIds.Value
        request.MonitoringMode = ua.MonitoringMode.Reporting
        parameters = request.RequestedParameters
        parameters.ClientHandle = at
        sampling_s = config.sampling_interval
        # -1: as often as it publishes.
        parameters.SamplingInterval = -1 if sampling_s is None else sampling_s * 1_000
        parameters.QueueSize = config.queue_size
        parameters.DiscardOldest = True
        if filtered:
            parameters.Filter = ua.DataChangeFilter(
                Trigger=ua.DataChangeTrigger.StatusValue,
                DeadbandType=ua.DeadbandType.Absolute,
                DeadbandValue=config.deadband,
            )
        return request

    async def _create(self, asked: list[ua.MonitoredItemCreateRequest]) -> list[ua.StatusCode]:
        parameters = ua.CreateMonitoredItemsParameters()
        parameters.SubscriptionId = self._id
        parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        parameters.ItemsToCreate = asked
        with asking("the server watches no nodes"):
            made = await self._session.client.uaclient.create_monitored_items(parameters)
            return [each.StatusCode for each in made]

    async def _hear(self, published: ua.PublishResult) -> None:
        """Take one notification. The library's loop calls it, acknowledges what it returns from,
        and only then asks for the next.
        """
        if self.ended.done():
            return
        self._busy = True
        try:
            await self._notified(published)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - `ended` carries it to who waits
            self._end(error)
        self._busy = False
        self._heard_s = asyncio.get_running_loop().time()
        if self.ended.done():
            await asyncio.Event().wait()  # so that it is not acknowledged; ends with the session

    async def _notified(self, published: ua.PublishResult) -> None:
        message = published.NotificationMessage
        parts: list[Any] = message.NotificationData or []
        if not parts:
            return  # a sign of life
        if self._sequence and message.SequenceNumber > self._sequence + 1:
            self._missed(message.SequenceNumber - self._sequence - 1)
        said: list[Said] = []
        for part in parts:
            if isinstance(part, ua.DataChangeNotification):
                said += [
                    (self._nodes[item.ClientHandle], item.Value)
                    for item in part.MonitoredItems
                    if 0 <= item.ClientHandle < len(self._nodes)
                ]
            elif isinstance(part, ua.StatusChangeNotification) and part.Status.is_bad():
                raise ServerError(f"the server ended the subscription: {name_of(part.Status)}")
        told = message.PublishTime
        if told is not None and not told.tzinfo:
            told = told.replace(tzinfo=UTC)
        # What a node says may be sampled now and told in the next notification.
        all_of = None if published.MoreNotifications or told is None else told - self._slack
        await self._take(said, all_of)
        self._sequence = message.SequenceNumber

    def _end(self, error: BaseException) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
            self.ended.exception()  # whoever is interested looks
