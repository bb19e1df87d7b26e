"""The source over Kafka: reads topics of another system as a member of a consumer group.

In: records of the topics that the user names, each partition's in order; all ingest workers share
the partitions. A position is committed after the log has the records up to it. A record that comes
again (its worker ended between the two, or its partition moved) is known by cluster, topic,
partition and offset, or by the dialect's own key.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.clients.kafka import (
    POLL_INTERVAL_MAX_MS,
    fetch,
    only_our_cancellation,
    quiet,
    sticky,
    stop,
)
from pipeline.errors import RetryableError
from pipeline.ingest.source import Context, Health, Inlet, SourceError
from pipeline.rulebook.connections.kafka_topics import KafkaSourceConfig

from .kafka_record import request_of

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

# What comes of nothing for so long is looked at: whether there is nothing, or nobody who tells.
LOOK_EVERY_S = 15.0
REBALANCE_S = 30.0
_TOMBSTONES = "records without a value (tombstones)"
_NO_DEVICES = "keys that say nothing of a device"
_DELETED = "records that the brokers deleted before they were read"


class KafkaSource:
    """See `source.Source`."""

    name = "kafka"
    Config = KafkaSourceConfig

    def __init__(self, config: KafkaSourceConfig, context: Context) -> None:
        integration = context.integration
        self._config = config
        self._context = context
        self._integration = integration
        self._group = config.group or f"funicular-{integration.tenant}-{integration.name}"
        self._cluster = config.cluster or integration.name
        self._busy = asyncio.Lock()  # held while records are read, stored and committed
        self._steady = asyncio.Event()  # set while partitions do not move
        self._heard_s = 0.0  # when something was last read, or known to be nothing
        self._last_s = 0.0  # when a record last came
        self._inlet: Inlet | None = None

    async def run(self, inlet: Inlet, health: Health) -> None:
        """See `source.Source`."""
        from aiokafka.errors import (  # noqa: PLC0415 - an extra
            ConsumerStoppedError,
            IllegalStateError,
            KafkaError,
        )

        quiet()
        self._inlet = inlet
        self._busy, self._steady = asyncio.Lock(), asyncio.Event()
        consumer = self._consumer()
        try:
            with only_our_cancellation():
                await self._connect(consumer)
                health.connected()
                await self._read(consumer, inlet)
        except TimeoutError as error:
            raise SourceError(str(error) or "the brokers did not answer in time") from None
        except (KafkaError, ConsumerStoppedError, IllegalStateError, OSError) as error:
            raise SourceError(_said(error)) from None
        finally:
            await stop(consumer)

    def _consumer(self) -> AIOKafkaConsumer:
        from aiokafka import AIOKafkaConsumer  # noqa: PLC0415 - an extra

        config = self._config
        session_ms = round(config.session_timeout * 1_000)
        try:
            options = config.client_options()
        except RetryableError as error:
            raise SourceError(error.message) from None
        return AIOKafkaConsumer(
            **options,
            client_id=f"funicular-{self._context.worker}",
            group_id=self._group,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="none",
            partition_assignment_strategy=sticky(),
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=max(1, session_ms // 4),
            rebalance_timeout_ms=round(REBALANCE_S * 1_000),
            max_poll_interval_ms=POLL_INTERVAL_MAX_MS,
            metadata_max_age_ms=10_000,
            fetch_max_bytes=config.fetch_bytes_max,
        )

    async def _connect(self, consumer: AIOKafkaConsumer) -> None:
        config = self._config
        async with asyncio.timeout(config.connect_timeout):
            await consumer.start()
            known = await consumer.topics()
        missing = sorted(set(config.topics) - set(known))
        if missing:
            raise SourceError(
                f"the Kafka has no topic {', '.join(f'`{topic}`' for topic in missing)}, or this"
                " user may not see it"
            )
        listener = _listener(self, consumer)
        if config.pattern:
            # The client matches the beginning of a name alone.
            whole = rf"(?:{config.pattern})\Z"
            consumer.subscribe(pattern=re.compile(whole).pattern, listener=listener)
        else:
            consumer.subscribe(list(config.topics), listener=listener)
        self._heard_s = self._last_s = asyncio.get_running_loop().time()

    async def _read(self, consumer: AIOKafkaConsumer, inlet: Inlet) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with asyncio.timeout(2 * REBALANCE_S):
                await self._steady.wait()
            async with self._busy:
                # Not waited for in here, as who moves the partitions waits for us.
                read = self._steady.is_set() and await self._read_some(consumer, inlet)
            now_s = loop.time()
            if read:
                self._heard_s = self._last_s = now_s
                continue
            silence_s = self._config.silence_max
            if silence_s is not None and now_s - self._last_s > silence_s:
                raise SourceError(f"no record for {silence_s:g} s (`silence_max`)")
            if now_s - self._heard_s > LOOK_EVERY_S:
                await self._look_after(consumer)
                self._heard_s = loop.time()

    async def _read_some(self, consumer: AIOKafkaConsumer, inlet: Inlet) -> bool:
        """Read, store, and commit; return whether anything came."""
        from aiokafka.errors import OffsetOutOfRangeError  # noqa: PLC0415 - an extra

        try:
            found = await fetch(consumer, self._context.batch_max)
        except OffsetOutOfRangeError as error:
            await self._past_deleted(consumer, error.args[0])
            return True
        if not found:
            return False
        await self._hand_over([record for some in found.values() for record in some], inlet)
        await self._commit(
            consumer, {place: records[-1].offset + 1 for place, records in found.items()}
        )
        return True

    async def _hand_over(self, records: Sequence[Any], inlet: Inlet) -> None:
        requests = []
        tombstones = others = 0
        for record in records:
            if record.value is None:
                tombstones += 1
                continue
            request = request_of(record, self._integration, self._cluster)
            if request is None:
                others += 1
            else:
                requests.append(request)
        await inlet.take(requests)
        for count, reason in ((tombstones, _TOMBSTONES), (others, _NO_DEVICES)):
            if count:
                inlet.pass_over(count, reason)

    async def _commit(
        self, consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]
    ) -> None:
        from aiokafka.errors import (  # noqa: PLC0415 - an extra
            CommitFailedError,
            IllegalStateError,
        )

        try:
            async with asyncio.timeout(self._config.connect_timeout):
                await consumer.commit(dict(positions))
        except (CommitFailedError, IllegalStateError):
            return  # The partitions moved; their next owner reads these again, and they are known.

    async def _look_after(self, consumer: AIOKafkaConsumer) -> None:
        """See whether there is nothing to read, or nobody who tells. TimeoutError: the latter."""
        async with asyncio.timeout(self._config.connect_timeout), self._busy:
            places = sorted(consumer.assignment())
            if not places:
                await consumer.topics()
                return
            for place, end in (await consumer.end_offsets(places)).items():
                if await consumer.position(place) < end:
                    raise TimeoutError(f"nothing comes of {place.topic}-{place.partition}")

    async def _past_deleted(
        self, consumer: AIOKafkaConsumer, places: Mapping[TopicPartition, int]
    ) -> None:
        """Go on where the brokers still have something, and count what they deleted."""
        first = await consumer.beginning_offsets(list(places))
        for place, at in places.items():
            # Past the end: the topic was made anew.
            consumer.seek(place, first[place])
            if self._inlet is not None and first[place] > at:
                self._inlet.pass_over(first[place] - at, _DELETED)

    # Partitions come and go

    async def revoked(self) -> None:
        """Finish what is under way, while the partitions still are ours."""
        self._steady.clear()
        try:
            # The others wait for us no longer than that.
            async with asyncio.timeout(REBALANCE_S / 2), self._busy:
                pass
        except TimeoutError:
            return  # What is being stored comes again at another worker, and is known.

    async def assigned(self, consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]) -> None:
        """Begin where the group stands; where it never stood, as `start` says. A partition that is
        new among others is read from its beginning: it came after us.
        """
        found = {place: await consumer.committed(place) for place in places}
        new = [place for place, at in found.items() if at is None]
        if new:
            known = {place.topic for place in await self._stood(consumer, new)}
            late = [p for p in new if self._config.start == "latest" and p.topic not in known]
            at = dict(await consumer.beginning_offsets([p for p in new if p not in late]))
            at |= await consumer.end_offsets(late) if late else {}
            for place, position in at.items():
                consumer.seek(place, position)
            # Where a crash came before the first commit, `latest` would pass over what is between.
            await self._commit(consumer, at)
        self._steady.set()

    @staticmethod
    async def _stood(
        consumer: AIOKafkaConsumer, places: Sequence[TopicPartition]
    ) -> list[TopicPartition]:
        """Return the partitions of these topics, whoever has them, where the group has a place."""
        from aiokafka import TopicPartition  # noqa: PLC0415 - an extra

        every = [
            TopicPartition(topic, partition)
            for topic in {place.topic for place in places}
            for partition in consumer.partitions_for_topic(topic) or ()
        ]
        return [place for place in every if await consumer.committed(place) is not None]


def _listener(source: KafkaSource, consumer: AIOKafkaConsumer) -> Any:
    """Return what aiokafka tells of partitions that come and go."""
    from aiokafka import ConsumerRebalanceListener  # noqa: PLC0415 - an extra

    class Listener(ConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:  # noqa: ARG002
            await source.revoked()

        async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
            await source.assigned(consumer, sorted(assigned))

    return Listener()


def _said(error: BaseException) -> str:
    return f"the Kafka cannot be read: {str(error) or type(error).__name__}"


SOURCE = KafkaSource
