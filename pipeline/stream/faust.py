"""The engine for shops that run Faust: the stages as agents and tables of a Faust app.

In: the same stages as on the other engines. Out: a `faust.App` (for `faust -A … worker`), or an
engine that runs it in a thread.

What is given: at least once, in order per partition, one batch under way a stage. A batch's outputs
are acknowledged by all in-sync replicas before its state goes to the changelog, and that before its
offset is committed. A stage with state knows by its changelog what was done, also where no offset
was committed; timers are in the changelog too, and fire after a restart or in another worker; the
time a stage is told never goes back. A stop, and a worker that comes or goes in good order, repeat
nothing. State is in memory, and read from the changelog at each start.

What is not given:
- Outputs, state and offset are not one step. A worker killed between them leaves outputs that come
  again, and one killed amid a batch's changelog leaves a part of the batch's state, on which the
  batch is handled again. A stage without state (convert) repeats up to `commit_s` of its work.
- Hence answers in the response to a device's request are refused: requests are answered empty, and
  downlinks wait. `synchronous_downlinks` allows them, with a warning.
- A worker that stood still past its session may still write what it had under way: nothing fences
  it off.
- The time of a stage without state may go back over a restart, by as much as the clock does.

Faults of faust-streaming 0.15.3 that were met, and what is done about them:
- Its own commits can lose records (its issue 606, and gaps between offsets that count as handled
  as a whole). Its acks are off; offsets are committed from here.
- It lets records in before it seeks the committed offsets, then reads them twice: 4 of 20 restarts
  amid work repeated some, and 2 crawled on by one offset a commit. The flow is held until it has.
- Its restore drops records that it has read now and then, and waits for them for ever (4 of about
  200 handovers on a busy machine), or for one that is a transaction's marker. Changelogs are read
  by a consumer of ours (`faust_restore`), which Faust takes for a store that has its state already.
- Its stores take the partition from the event at hand, which a timer has not, and its store in
  memory keeps what another owner has deleted. Ours is `faust_table`; RocksDB is not offered.
- `faust worker` opens a web server on all addresses that shows tables. It is off.
- Not mended: it reads uncommitted records, so nothing that writes to what stages read may use
  transactions that abort (the Kafka engine does: give each engine a prefix of its own). All workers
  of one app id must run the same stages. A start takes a second, for a sleep in it.

Measured (`python -m tests.bench.faust_engine`, 2 cores busy with other work, one broker beside it,
670-byte records, 4 partitions, 5 runs): 5,100 to 6,400 a second, with a counter a device 5,000 to
6,400. Faust's hand-over of one event at a time is nearly all of it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.ports import Stage
from pipeline.stream.faust_app import StageApp, make_app
from pipeline.stream.faust_settings import FaustSettings
from pipeline.stream.kafka_settings import KafkaSettings
from pipeline.stream.settings import EngineSettings
from pipeline.stream.sqlite import wall_clock_ms

__all__ = ["FaustEngine", "FaustSettings", "StageApp", "make_app"]

# What `drain` waits for the app to look at its offsets.
ANSWER_S = 10.0

_log = get_logger(__name__)


class FaustEngine:
    """Runs a Faust app in a thread with a loop of its own, until it is told to stop.

    A stage that raises anything but RetryableError ends the whole engine: `failed`. An engine is
    started once.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        settings: FaustSettings,
        limits: EngineSettings | None = None,
        metrics: Registry | None = None,
        clock: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """Take the stages. UsageError: two have the same name, or a file of TLS is not usable."""
        self._topics = [stage.topic for stage in stages]
        self._settings = settings
        self._app = make_app(stages, settings, limits, metrics, clock)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        # Not Faust's own way, a crash: it touches the consumer's thread from this one.
        self._app.on_failure = self._fail
        self._thread = threading.Thread(target=self._run, name="faust", daemon=True)
        self.failed: Future[None] = Future()

    @property
    def running(self) -> bool:
        """Whether partitions are assigned and all stages work."""
        return not self.failed.done() and all(runner.ready for runner in self._app.runners)

    def start(self) -> None:
        """Begin to run the stages; returns at once. `failed` is done when it ended: with the
        error, or with None after `stop`.
        """
        self._thread.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Let each stage finish its batch and commit; return whether all have, within the time."""
        if self._thread.ident is None:
            self._loop.close()
            return True
        self._call(self._stop.set)
        self._thread.join(timeout_s)
        ended = not self._thread.is_alive()
        if not ended:
            _log.warning("the Faust app did not end in time", timeout_s=timeout_s)
        return ended

    def wake(self) -> None:
        """Have all stages look at the clock again, after a jump of one that is not the wall's."""
        for runner in self._app.runners:
            self._call(runner.wake)

    def drain(self, timeout_s: float = 30.0) -> bool:
        """Block until nothing waits and all is committed: no record, no due timer. Return whether
        that came in time. Raises what made the engine fail.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.failed.done():
                error = self.failed.exception()
                if error is not None:
                    raise error
                return False
            if self.running and self._ask_idle():
                return True
            time.sleep(0.02)
        return False

    def lag(self) -> dict[tuple[str, str], int]:
        """Return how many records are not committed, by topic and consumer group; empty while
        the app is not up. Blocks for a request to the brokers.
        """
        if not self.running:
            return {}
        asked = asyncio.run_coroutine_threadsafe(
            _lag(self._app, self._topics, self._settings.kafka), self._loop
        )
        return {
            (topic, self._app.conf.id): records for topic, records in asked.result(ANSWER_S).items()
        }

    def _ask_idle(self) -> bool:
        question = self._idle()
        try:
            answer = asyncio.run_coroutine_threadsafe(question, self._loop)
        except RuntimeError:  # The loop was closed just now.
            question.close()
            return False
        try:
            return answer.result(ANSWER_S)
        except (CancelledError, TimeoutError):
            return False
        except Exception:
            if self._stop.is_set() or self.failed.done():
                return False
            raise

    async def _idle(self) -> bool:
        """Tell whether all of the stages' records are done, as the brokers know it."""
        if not all(runner.idle() for runner in self._app.runners):
            return False
        await self._app.commit_done()
        lag = await _lag(self._app, self._topics, self._settings.kafka)
        return not any(lag.values()) and all(runner.idle() for runner in self._app.runners)

    def _fail(self, error: BaseException) -> None:
        self._error = self._error or error
        self._stop.set()

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        error: BaseException | None = None
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as found:  # noqa: BLE001 - whoever waits for `failed` gets it.
            error = found
        try:
            self._close()
        finally:
            if error is None:
                self.failed.set_result(None)
            else:
                self.failed.set_exception(error)

    async def _main(self) -> None:
        app = self._app
        ended = asyncio.ensure_future(app.wait_until_stopped())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await app.start()
            await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            stopped.cancel()
            await app.stop()
        error = self._error or app.crash_reason
        if error is not None:
            raise error

    def _close(self) -> None:
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        self._loop.close()


async def _lag(app: StageApp, topics: Sequence[str], settings: KafkaSettings) -> dict[str, int]:
    """Return how many records of each topic the app's group has not committed.

    By clients of its own: what Faust's consumer is asked waits behind its own fetch, seconds long.
    """
    names = {settings.topic(topic): topic for topic in topics}
    admin = AIOKafkaAdminClient(**settings.aiokafka())
    async with AIOKafkaConsumer(**settings.aiokafka()) as consumer:
        try:
            await admin.start()
            committed = await admin.list_consumer_group_offsets(app.conf.id)
        finally:
            await admin.close()
        places = [
            TopicPartition(name, number)
            for name in names
            for number in range(app.consumer.topic_partitions(name) or 0)
        ]
        ends = await consumer.end_offsets(places)
        first = await consumer.beginning_offsets(places)
    found = dict.fromkeys(topics, 0)
    for place in places:
        done = max(committed[place].offset if place in committed else 0, first[place])
        found[names[place.topic]] += max(0, ends[place] - done)
    return found
