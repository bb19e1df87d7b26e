"""Dead letters by the API of a running Funicular, which has the log to itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec

from pipeline.model.letters import Done, Letter, LettersFilter, Refused
from pipeline.rehearse.remote import Remote, RemoteError

PAGE = 100


class RemoteLetters:
    """See `model.letters.Letters`; of the tenants whose letters are asked for."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def find(self, wanted: LettersFilter, after: str = "") -> Iterator[Letter]:
        """See the port. Each letter is fetched whole."""
        query = {
            "stage": wanted.stage,
            "destination": wanted.destination,
            "reason": wanted.reason,
            "device": wanted.device,
            "since": _moment(wanted.since_ms),
            "until": _moment(wanted.until_ms),
            "fate": wanted.fate,
            "limit": str(PAGE),
        }
        while True:
            path = _path(wanted.tenant)
            page = self._remote.ask("GET", path, query={**query, "after": after})
            for summary in page["dead_letters"]:
                letter = self.get_of(wanted.tenant, summary["place"])
                if letter is not None:
                    yield letter
            after = page.get("after", "")
            if not after:
                return

    def get_of(self, tenant: str, place: str) -> Letter | None:
        """Return the letter of a tenant at a place; None: there is none."""
        try:
            return msgspec.convert(self._remote.ask("GET", _path(tenant, place)), Letter)
        except RemoteError as error:
            if error.status == 404:
                return None
            raise

    def replay(
        self,
        letters: Sequence[Letter],
        by: str,  # noqa: ARG002 - the port's shape; the API knows who asks
        *,
        again: bool = False,
    ) -> Done:
        """See the port."""
        return self._act("replay", letters, again=again)

    def drop(self, letters: Sequence[Letter], by: str) -> Done:  # noqa: ARG002
        """See the port."""
        return self._act("drop", letters)

    def _act(self, action: str, letters: Sequence[Letter], *, again: bool = False) -> Done:
        done: list[str] = []
        refused: list[Refused] = []
        for tenant in dict.fromkeys(one.letter.tenant for one in letters):
            places = [one.place for one in letters if one.letter.tenant == tenant]
            body = {"places": places, "again": again}
            said = msgspec.convert(self._remote.ask("POST", _path(tenant, action), body=body), Done)
            done += said.done
            refused += said.refused
        return Done(tuple(done), tuple(refused))


def _path(tenant: str, *more: str) -> str:
    tail = "".join(f"/{quote(part, safe='')}" for part in more)
    return f"/api/v1/tenants/{quote(tenant, safe='')}/dead-letters{tail}"


def _moment(time_ms: int) -> str:
    if not time_ms:
        return ""
    return datetime.fromtimestamp(time_ms / 1_000, UTC).isoformat()
