"""The room put together: the server before the door and the API, the readers and writers behind.

In: HTTP. Out: `uplink.received` and `device.events`. Back: topic `reply`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from secrets import token_hex
from typing import Any

from pipeline.errors import RetryableError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.model.letters import LetterBox
from pipeline.ports import Log
from pipeline.rulebook.book import Rulebooks

from .access import Access, is_loopback
from .api import Api
from .applications import Applications
from .door import Door
from .integrations_api import IntegrationsApi
from .keys import KeyStore
from .letters_api import LettersApi
from .network_queues import NetworkQueues, Outward
from .owner import Owners
from .replies import Replies
from .reports import Reports
from .server import Server
from .settings import IngestSettings
from .source import ALONE, Outside
from .source_health import IntegrationStatus
from .sources import Sources
from .ttn_v2_door import TtnV2Speech
from .tts_v3_door import TtsV3Speech
from .waiting import Waiting

Ready = Callable[[], str | None]
"""Says what is missing before messages can be handled, in a sentence; None: nothing."""

_log = get_logger(__name__)


class Ingest:
    """One ingest process. `start`, then `stop`, on one event loop, each once."""

    def __init__(  # noqa: PLR0917 - wiring names each
        self,
        log: Log,
        rulebooks: Rulebooks,
        settings: IngestSettings,
        metrics: Registry,
        new_id: Callable[[], str],
        now_ms: Callable[[], int],
        ready: Ready,
        outward: Outward | None = None,
        letters: LetterBox | None = None,
        outside: Outside = ALONE,
    ) -> None:
        """UsageError: the file of keys is not readable.

        `new_id` gives ids that are unique over all processes (`ids.time_ordered_ids`); `now_ms`
        is the wall clock, epoch milliseconds; `ready` speaks for the log and the engine;
        `outward` makes requests to network servers, whose own queues are shown; `letters` is where
        the log's dead letters are; `outside` is what sources
        need of other workers and of the web.
        """
        self._settings = settings
        self._metrics = metrics
        self._ready = ready
        self._missing: str | None = "the door is not open yet"
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[None] | None = None
        """After `start`: done with an exception when a part of this room died of a bug. Whoever
        runs the room watches it, and stops."""
        self._waiting = Waiting(token_hex(8), settings.waiting_max)
        self._reports = Reports(log, now_ms, settings.reports_max)
        self._replies = Replies(
            log,
            self._waiting,
            self._reports,
            batch_max=settings.reply_batch_max,
            commit_s=settings.reply_commit_s,
        )
        self._keys = KeyStore(settings.keys_file, now_ms=now_ms)
        access = Access(self._keys, settings.host)
        self._door = Door(
            log, rulebooks, self._waiting, self._reports, settings, new_id=new_id, now_ms=now_ms
        )
        owners = Owners(log, rulebooks, self._waiting, settings, new_id=new_id, now_ms=now_ms)
        queues = NetworkQueues(rulebooks, outward)
        api = Api(owners, rulebooks, access, queues, settings.call_timeout_max_s)
        speeches = (TtnV2Speech(), TtsV3Speech())
        applications = Applications(speeches, owners, rulebooks, access, queues)
        self._server = Server(
            self._door,
            api,
            applications,
            LettersApi(letters, access, now_ms),
            access,
            metrics,
            settings,
            now_ms=now_ms,
            unready=self.unready,
            integrations=IntegrationsApi(access, self.integrations),
        )

        self._sources = Sources(
            self._door, log, rulebooks, settings, now_ms=now_ms, on_bug=self._died, outside=outside
        )

    @property
    def address(self) -> str:
        """Where it listens after `start`, as `http://127.0.0.1:8080`."""
        host = self._settings.host
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self._server.port}"

    @property
    def port(self) -> int:
        """The port it listens on after `start`."""
        return self._server.port

    @property
    def instance(self) -> str:
        """The key of this process's replies."""
        return self._waiting.instance

    def unready(self) -> str | None:
        """Return what is missing before uplinks can be taken; None: nothing."""
        return self._missing or self._ready()

    async def start(self) -> None:
        """Listen, and open the door once replies are read. UsageError: cannot listen there.
        RetryableError: the log cannot be reached.
        """
        loop = asyncio.get_running_loop()
        await self._server.start()
        self.failed = loop.create_future()
        self._replies.open()
        self._spawn(self._replies.run(loop.time))
        self._spawn(self._reports.run())
        self._spawn(self._count())
        await asyncio.sleep(0)  # The reader waits for records before the first request does.
        await self._replies.ready()
        self._missing = None
        await self._sources.refresh()
        if not is_loopback(self._settings.host) and not self._keys.configured:
            _log.warning("the API is closed: no keys; make one with `funicular keys create`")
        _log.info("the door is open", address=self.address)

    async def refresh(self) -> None:
        """Follow edited rules: connections of new integrations are made, of removed ones end."""
        await self._sources.refresh()

    def integrations(self, tenant: str = "") -> list[IntegrationStatus]:
        """Return how the integrations do, of one tenant or of all, by name."""
        found = [*self._door.status(), *self._sources.status()]
        chosen = [status for status in found if tenant in ("", status.tenant)]
        return sorted(chosen, key=lambda status: (status.tenant, status.integration))

    async def stop(self) -> None:
        """Take no more requests, answer those that wait with what is there, store the reports."""
        self._missing = "the door is closing"
        await self._sources.stop()
        self._server.close()
        self._waiting.expire_all()
        await self._server.stop()
        await _end(self._tasks[:1])  # The reader, before the reports that it may still make.
        await self._replies.close()
        await _end(self._tasks[1:])
        with suppress(RetryableError, TimeoutError):
            # `flush` says in the log what could not be stored.
            async with asyncio.timeout(self._settings.stop_timeout_s):
                await self._reports.flush()
        self._door.flush(self._metrics)
        self._sources.flush(self._metrics)
        if self.failed is not None:
            self.failed.cancel()
        _log.info("the door is closed")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self.failed is None or self.failed.done():
            return
        error = task.exception()
        if error is not None:
            _log.error("a part of the door died", exc_info=error)
            self._died(error)

    def _died(self, error: BaseException) -> None:
        if self.failed is not None and not self.failed.done():
            self._missing = "a part of the door died; see the log"
            self.failed.set_exception(error)

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(self._settings.metrics_interval_s)
            self._door.flush(self._metrics)
            self._sources.flush(self._metrics)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
