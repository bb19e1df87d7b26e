"""Brings edited rules into force while the pipeline runs.

In: a source of folders (one that is watched, or the `rules` topic). Out: rulebooks, handed over one
version after the other. Rules that are wrong are refused and shown, and the old ones keep running;
one tenant's faults do not hold up another's edit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from pipeline.errors import ConfigError, FunicularError
from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.watch import RulesSource

LOOK_EVERY_S = 1.0
RETRY_AFTER_LOOKS = 5
"""How many looks later rules are tried again that the world, not their author, kept from working:
topics could not be made, a script process did not start.
"""
FAULTS_LOGGED_MAX = 100

_log = get_logger("funicular")
Load = Callable[[Path], Rulebook]
Activate = Callable[[Mapping[str, Rulebook]], Awaitable[None]]


class Reload:
    """Looks at a source now and then. `load` reads one folder, in a thread; it raises ConfigError
    where it is wrong. `activate` puts rulebooks (by tenant) into force; what it raises of
    FunicularError leaves the old ones in force, and it is asked again later.

    `books` are the rulebooks in force at the start, by their names in the source.
    """

    def __init__(
        self,
        source: RulesSource,
        load: Load,
        activate: Activate,
        metrics: Registry,
        books: Mapping[str, Rulebook] | None = None,
    ) -> None:
        self._source = source
        self._load = load
        self._activate = activate
        self._metrics = metrics
        self._books = dict(books or {})  # by the source's name
        self._due: dict[str, Path | None] = {}
        self._refused: dict[str, list[str]] = {}  # faults by the source's name
        self._pending: dict[str, Rulebook] | None = None  # loaded, and not in force yet
        self._said = ""
        self._rest = 0
        self.place = 0
        """How far the source is in force; see `RulesSource.place`."""
        self._show()

    @property
    def faults(self) -> list[str]:
        """All that is wrong with edits that were refused."""
        found = [fault for faults in self._refused.values() for fault in faults]
        return [*found, self._said] if self._said else found

    async def run(self) -> None:
        """Look again and again; ends when it is cancelled. Where the source cannot be read the
        rules stay as they are.
        """
        said = ""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                await self.look()
            except FunicularError as error:
                if error.message != said:
                    _log.error("rules cannot be followed at present", why=error.message)
                said = error.message
            else:
                said = ""

    async def first(self) -> None:
        """Return when some rules are in force."""
        await self.look()
        if not self._books:
            _log.info("waiting for rules: publish them with `funicular publish`")
        while not self._books:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Take what is new, and put it into force where it is right."""
        found = await asyncio.to_thread(self._source.changed)
        await self._follow(found)
        self.place = self._source.place(
            {book.tenant: book.version for book in self._books.values()}
        )

    async def _follow(self, found: Mapping[str, Path | None]) -> None:
        if found:
            self._due |= found
        elif self._rest:
            self._rest -= 1
            return
        if not self._due and self._pending is None:
            return
        coming = dict(self._books if self._pending is None else self._pending)
        for name, folder in list(self._due.items()):
            if folder is None:
                del self._due[name]
                coming.pop(name, None)
                self._refused.pop(name, None)
            else:
                await self._take(name, folder, coming)
        await self._switch(coming)
        if self._due or self._pending is not None:
            self._rest = RETRY_AFTER_LOOKS
        self._show()

    async def _take(self, name: str, folder: Path, coming: dict[str, Rulebook]) -> None:
        """Load one folder; what is wrong with it is logged once an edit."""
        try:
            book = await asyncio.to_thread(self._load, folder)
        except ConfigError as error:
            del self._due[name]
            if await asyncio.to_thread(self._source.steady, name):
                self._refuse(name, [str(fault) for fault in error.faults])
            return
        except Exception as error:  # noqa: BLE001 - the rules in force must outlive any edit
            told = isinstance(error, FunicularError)
            self._refuse(name, [str(error) or type(error).__name__], None if told else error)
            if not told:
                del self._due[name]
            return
        del self._due[name]
        # Edited while it was read: `changed` returns it again when it is quiet.
        if not await asyncio.to_thread(self._source.steady, name):
            return
        others = {other.tenant: at for at, other in coming.items() if at != name}
        if book.tenant in others:
            self._refuse(
                name, [f"{folder}: tenant `{book.tenant}` is also that of {others[book.tenant]}"]
            )
            return
        self._refused.pop(name, None)
        coming[name] = book

    async def _switch(self, coming: dict[str, Rulebook]) -> None:
        same = coming.keys() == self._books.keys()
        if same and all(coming[at] is self._books[at] for at in coming):
            self._pending, self._said = None, ""
            return
        try:
            await self._activate({book.tenant: book for book in coming.values()})
        except FunicularError as error:
            self._pending = coming
            if error.message != self._said:
                _log.error("new rules wait; the old ones keep running", why=error.message)
            self._said = error.message
            return
        for at, book in coming.items():
            before = self._books.get(at)
            if before is None or before.version != book.version:
                _log.info(
                    "rules in force",
                    tenant=book.tenant,
                    rules=book.version,
                    before=before.version if before is not None else None,
                )
        self._books, self._pending, self._said = coming, None, ""

    def _refuse(self, name: str, faults: list[str], error: BaseException | None = None) -> None:
        if faults != self._refused.get(name):
            _log.error(
                "edited rules are refused; the old ones keep running",
                rules=name,
                faults=faults[:FAULTS_LOGGED_MAX],
                count=len(faults),
                exc_info=error,
            )
        self._refused[name] = faults

    def _show(self) -> None:
        self._metrics.set("funicular_rules_faults", len(self.faults))
        self._metrics.clear("funicular_rules_info")
        for book in self._books.values():
            self._metrics.set("funicular_rules_info", 1, tenant=book.tenant, version=book.version)
