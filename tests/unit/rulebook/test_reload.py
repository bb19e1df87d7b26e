"""New rules under a running pipeline: what comes into force, what is refused, what waits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pipeline.errors import ConfigError, Fault, RetryableError
from pipeline.metrics import Registry
from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.reload import RETRY_AFTER_LOOKS, Reload


def book(tenant: str, version: str) -> Rulebook:
    return Rulebook(tenant, Path(tenant), version, {}, {}, {}, {})


class Source:
    """A source that is told what is new."""

    def __init__(self) -> None:
        self.news: dict[str, Path | None] = {}
        self.still = True
        self.asked_for: Mapping[str, str] = {}

    def changed(self) -> Mapping[str, Path | None]:
        found, self.news = self.news, {}
        return found

    def steady(self, name: str) -> bool:
        return self.still

    def place(self, versions: Mapping[str, str]) -> int:
        self.asked_for = versions
        return len(versions)

    def close(self) -> None:
        pass


class Pipeline:
    """What rules come into force in; `content` is what loading a folder gives or raises."""

    def __init__(self, *books: Rulebook) -> None:
        self.source = Source()
        self.metrics = Registry()
        self.content: dict[Path, Rulebook | Exception] = {}
        self.refuses: Exception | None = None
        self.asked = 0
        self.books: Mapping[str, Rulebook] = {one.tenant: one for one in books}
        self.reload = Reload(
            self.source, self._load, self._use, self.metrics, {one.tenant: one for one in books}
        )

    async def edit(self, name: str, content: Rulebook | Exception) -> None:
        self.content[Path(name)] = content
        self.source.news = {name: Path(name)}
        await self.reload.look()

    def versions(self) -> dict[str, str]:
        return {tenant: one.version for tenant, one in self.books.items()}

    def shown(self) -> set[tuple[str, str]]:
        series = self.metrics.values("funicular_rules_info")
        return {(dict(labels)["tenant"], dict(labels)["version"]) for labels in series}

    @property
    def faults(self) -> float:
        return self.metrics.values("funicular_rules_faults")[()]

    def _load(self, folder: Path) -> Rulebook:
        found = self.content[folder]
        if isinstance(found, Exception):
            raise found
        return found

    async def _use(self, books: Mapping[str, Rulebook]) -> None:
        self.asked += 1
        if self.refuses is not None:
            raise self.refuses
        self.books = books


BAD = ConfigError([Fault("a.yaml", 1, 1, "no"), Fault("b.yaml", 2, 1, "neither")])


async def test_edit_comes_into_force() -> None:
    """A right edit replaces the old version, and the gauge names the new one alone."""
    pipeline = Pipeline(book("t", "1"))
    await pipeline.edit("t", book("t", "2"))

    assert pipeline.versions() == {"t": "2"}
    assert pipeline.shown() == {("t", "2")}
    assert pipeline.faults == 0


async def test_place_is_that_of_the_versions_in_force() -> None:
    """After each look the source is asked how far it is in force, by the versions that run, not
    by those that were refused.
    """
    pipeline = Pipeline(book("t", "1"))
    await pipeline.edit("t", BAD)
    assert (pipeline.source.asked_for, pipeline.reload.place) == ({"t": "1"}, 1)
    await pipeline.edit("u", book("u", "7"))
    assert (pipeline.source.asked_for, pipeline.reload.place) == ({"t": "1", "u": "7"}, 2)


async def test_faulty_edit_is_refused() -> None:
    """A faulty edit leaves the old rules in force; all its faults are logged, once, and counted
    until a right edit comes.
    """
    pipeline = Pipeline(book("t", "1"))
    with capture_logs() as logs:
        await pipeline.edit("t", BAD)
        for _ in range(2 * RETRY_AFTER_LOOKS):
            await pipeline.reload.look()

    assert (pipeline.versions(), pipeline.asked) == ({"t": "1"}, 0)
    assert pipeline.shown() == {("t", "1")}
    assert pipeline.faults == 2
    refused = [line for line in logs if line["log_level"] == "error"]
    assert [line["faults"] for line in refused] == [["a.yaml:1:1: no", "b.yaml:2:1: neither"]]
    await pipeline.edit("t", book("t", "3"))
    assert (pipeline.versions(), pipeline.faults) == ({"t": "3"}, 0)


async def test_faulty_edit_taken_back() -> None:
    """An edit that is undone leaves no fault behind."""
    pipeline = Pipeline(book("t", "1"))
    await pipeline.edit("t", BAD)
    await pipeline.edit("t", book("t", "1"))

    assert (pipeline.versions(), pipeline.faults) == ({"t": "1"}, 0)


async def test_tenants_do_not_hold_up_each_other() -> None:
    """One tenant's faulty edit does not keep another's right one from coming into force."""
    pipeline = Pipeline(book("a", "1"), book("b", "1"))
    await pipeline.edit("a", BAD)
    await pipeline.edit("b", book("b", "2"))

    assert pipeline.versions() == {"a": "1", "b": "2"}
    assert pipeline.faults == 2


async def test_tenant_of_another_folder() -> None:
    """A folder that takes another one's tenant is refused."""
    pipeline = Pipeline(book("a", "1"), book("b", "1"))
    await pipeline.edit("b", book("a", "2"))

    assert pipeline.versions() == {"a": "1", "b": "1"}
    assert pipeline.faults == 1


async def test_edited_while_it_is_read() -> None:
    """What was read of a folder that changed meanwhile counts neither as rules nor as a fault."""
    pipeline = Pipeline(book("t", "1"))
    pipeline.source.still = False
    await pipeline.edit("t", book("t", "torn"))
    await pipeline.edit("t", BAD)

    assert (pipeline.versions(), pipeline.faults) == ({"t": "1"}, 0)


async def test_destinations_first() -> None:
    """Rules whose topics cannot be made wait, are shown, and come into force when they can."""
    pipeline = Pipeline(book("t", "1"))
    pipeline.refuses = RetryableError("no broker")
    await pipeline.edit("t", book("t", "2"))
    waited = (pipeline.versions(), pipeline.faults, pipeline.reload.faults)
    pipeline.refuses = None
    for _ in range(RETRY_AFTER_LOOKS + 1):
        await pipeline.reload.look()

    assert waited == ({"t": "1"}, 1, ["no broker"])
    assert (pipeline.versions(), pipeline.faults, pipeline.asked) == ({"t": "2"}, 0, 2)


async def test_newer_edit_while_one_waits() -> None:
    """An edit that comes while one waits is what comes into force."""
    pipeline = Pipeline(book("t", "1"), book("u", "1"))
    pipeline.refuses = RetryableError("no broker")
    await pipeline.edit("t", book("t", "2"))
    await pipeline.edit("u", book("u", "2"))
    pipeline.refuses = None
    await pipeline.edit("t", book("t", "3"))

    assert pipeline.versions() == {"t": "3", "u": "2"}


async def test_loading_is_tried_again() -> None:
    """A folder that the world kept from loading is loaded again without another edit."""
    pipeline = Pipeline(book("t", "1"))
    await pipeline.edit("t", RetryableError("no process"))
    shown = pipeline.faults
    pipeline.content[Path("t")] = book("t", "2")
    for _ in range(RETRY_AFTER_LOOKS + 1):
        await pipeline.reload.look()

    assert (shown, pipeline.versions(), pipeline.faults) == (1, {"t": "2"}, 0)


async def test_bug_in_loading() -> None:
    """An edit that makes the check itself fail is refused as a faulty one is."""
    pipeline = Pipeline(book("t", "1"))
    with capture_logs() as logs:
        await pipeline.edit("t", RecursionError("too deep"))

    assert (pipeline.versions(), pipeline.faults) == ({"t": "1"}, 1)
    assert logs[0]["exc_info"] is not None


async def test_tenant_withdrawn() -> None:
    """A tenant whose rules are gone from the source is gone."""
    pipeline = Pipeline(book("a", "1"), book("b", "1"))
    pipeline.source.news = {"a": None}
    await pipeline.reload.look()

    assert pipeline.versions() == {"b": "1"}
    assert pipeline.shown() == {("b", "1")}


async def test_first_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline without rules waits for the first ones, and says so once."""
    monkeypatch.setattr("pipeline.rulebook.reload.LOOK_EVERY_S", 0)
    pipeline = Pipeline()
    looks = iter([{}, {}, {"t": Path("t")}])
    pipeline.source.changed = lambda: next(looks)  # type: ignore[method-assign]
    pipeline.content[Path("t")] = book("t", "1")
    with capture_logs() as logs:
        await pipeline.reload.first()

    assert pipeline.versions() == {"t": "1"}
    assert [line["event"] for line in logs if "waiting" in line["event"]] == [
        "waiting for rules: publish them with `funicular publish`"
    ]
