"""Where the command `dead-letters` finds letters, and who writes what becomes of them.

The embedded log is read beside whoever writes it; where a running Funicular has it, that one is
asked to write, by its API. Kafka is read and written directly.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.model.letters import Letter, Letters
from pipeline.ports import Load
from pipeline.rehearse.remote import Remote
from pipeline.rehearse.remote_letters import RemoteLetters
from pipeline.settings import EMBEDDED, Settings
from pipeline.stream.letters import LogLetters
from pipeline.stream.shelf import EmbeddedShelf
from pipeline.stream.sqlite import SqliteLog, wall_clock_ms
from pipeline.stream.view import LogView


class Boxes:
    """`reading` finds letters, `writing` replays and drops them; `load` gives a device's state as
    route has it, where it can be read.
    """

    def __init__(
        self,
        reading: Letters | RemoteLetters,
        writing: Letters | RemoteLetters,
        load: Load | None,
        *closers: Callable[[], object],
    ) -> None:
        self.reading = reading
        self.writing = writing
        self.load = load
        self.by = f"command of {getpass.getuser()}"
        self._closers = closers

    def get(self, place: str, tenant: str) -> Letter | None:
        """Return the letter at a place."""
        if isinstance(self.reading, RemoteLetters):
            return self.reading.get_of(tenant, place)
        return self.reading.get(place)

    def close(self) -> None:
        """Let all go."""
        for close in self._closers:
            close()


def open_boxes(
    log_url: str, data: Path, *, address: str, key: str, tenant: str, write: bool
) -> Boxes:
    """Return where the letters are. UsageError: there is no such log, or it cannot be reached."""
    if log_url == EMBEDDED:
        path = Settings(data=data).log_file
        if path.exists():
            return _embedded(path, address, key, write=write)
        if tenant:
            return _by_api(address, key)
        raise UsageError(
            f"There is no log at {path}; name its folder by --data, or say --tenant to ask the"
            f" Funicular that runs at {address} (--to)"
        )
    if log_url.startswith("kafka://"):
        return _kafka(log_url, write=write)
    raise UsageError(f"`{log_url}` is no log: give embedded or kafka://HOST:9092")


def _by_api(address: str, key: str) -> Boxes:
    remote = Remote(address, key)
    letters = RemoteLetters(remote)
    return Boxes(letters, letters, None, remote.close)


def _embedded(path: Path, address: str, key: str, *, write: bool) -> Boxes:
    view = LogView(path)

    def load(device: str) -> dict[str, object]:
        return view.state("route", device).get(device, {})

    reading = LogLetters(EmbeddedShelf(path), wall_clock_ms)
    if not write:
        return Boxes(reading, reading, load, view.close)
    try:
        log = SqliteLog.open(path)
    except UsageError:
        # A running Funicular has it; that one does what is asked, here or nowhere.
        remote = Remote(address, key)
        return Boxes(reading, RemoteLetters(remote), load, remote.close, view.close)
    writing = LogLetters(EmbeddedShelf(path, log.append_blocking), wall_clock_ms)
    return Boxes(writing, writing, load, log.close, view.close)


def _kafka(log_url: str, *, write: bool) -> Boxes:
    try:
        from pipeline.stream.kafka_settings import KafkaSettings
        from pipeline.stream.kafka_shelf import KafkaLetterBox
    except ImportError as error:
        raise UsageError(f"kafka:// needs {error.name}: pip install 'funicular[kafka]'") from None
    box = KafkaLetterBox(KafkaSettings.from_url(log_url, os.environ), wall_clock_ms)
    with ExitStack() as opened:
        letters = opened.enter_context(box.open(write=write))
        return Boxes(letters, letters, None, opened.pop_all().close)
