"""Who a worker is: its slot, which one process at a time holds.

In: the folder of a stage's state. Out: a number and the slot's own folder, until `release`.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from uuid import uuid4

from pipeline.errors import UsageError


class Slot:
    """One slot of one stage on this machine. The kernel frees it when the process ends."""

    def __init__(self, folder: Path, wanted: int | None, slots_max: int) -> None:
        """Take a slot: the wanted one, or the first that is free.

        UsageError: it is taken, all are, or the folder cannot be written.
        """
        numbers = range(slots_max) if wanted is None else (wanted,)
        for number in numbers:
            self.number = number
            self.folder = folder / f"slot-{number}"
            if self._take():
                return
        if wanted is None:
            raise UsageError(f"All {slots_max} slots in {folder} are taken (slots_max)")
        raise UsageError(
            f"Another process holds slot {wanted} in {folder}; give each worker its own slot, or"
            " leave the slot out"
        )

    def name(self) -> str:
        """Return the name that is kept in the slot's folder; the first time it is made up.

        UsageError: the folder cannot be written.
        """
        path = self.folder / "worker"
        try:
            kept = path.read_text() if path.exists() else ""
            if not kept:
                kept = uuid4().hex[:16]
                path.write_text(kept)
        except OSError as error:
            raise UsageError(f"Cannot keep state in {self.folder}: {error}") from None
        return kept

    def release(self) -> None:
        """Let others have it."""
        os.close(self._file)

    def _take(self) -> bool:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(f"Cannot keep state in {self.folder}: {error}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            return False
        return True
