"""What came of a test's steps, in the words of its `then`."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import orjson

from pipeline.model.dead_letter import DEAD_LETTER_TOPIC, DeadLetter
from pipeline.model.delivery import Delivery
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Response
from pipeline.model.record import Outgoing
from pipeline.rehearse.harness import Handed, Rehearsal
from pipeline.topics import DELIVERY_PREFIX, DOWNLINK_STATUS, downlink_destination

_decode_downlink = msgspec.json.Decoder(Downlink).decode
_decode_delivery = msgspec.json.Decoder(Delivery).decode
_decode_dead_letter = msgspec.json.Decoder(DeadLetter).decode


class Observed:
    """All that came since it was made."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal
        self._begin = len(rehearsal.journal)
        self._handed = len(rehearsal.handed)
        self._lines = len(rehearsal.lines)
        self._calls = len(rehearsal.services.calls)

    def downlinks(self) -> list[dict[str, Any]]:
        """Return the downlinks in the order in which they were asked for, as they stand now."""
        last: dict[str, Downlink] = {}
        for record in self._written(DOWNLINK_STATUS):
            downlink = _decode_downlink(record.value or b"")
            last[downlink.id] = downlink
        handed = {
            each.delivery.downlink.id: each
            for each in self._rehearsal.handed[self._handed :]
            if each.delivery.downlink is not None
        }
        return [_downlink(each, handed.get(each.id)) for each in last.values()]

    def deliveries(self) -> list[dict[str, Any]]:
        """Return what sinks were sent, in order."""
        prefix = f"{DELIVERY_PREFIX}{self._rehearsal.book.tenant}."
        of_downlinks = prefix + downlink_destination("")
        found = []
        for record in self._written(prefix):
            if not record.topic.startswith(of_downlinks):
                delivery = _decode_delivery(record.value or b"")
                to = record.topic.removeprefix(prefix)
                found.append({"to": to, "device": delivery.device, "body": delivery.body})
        return found

    def calls(self) -> list[dict[str, Any]]:
        """Return what services were asked, in order, and how it ended."""
        return [
            {
                "to": call.sink,
                "device": call.delivery.device,
                "body": call.delivery.body,
                "ended": call.ended,
                "tries": call.tries,
            }
            for call in self._rehearsal.services.calls[self._calls :]
        ]

    def dead_letters(self) -> list[dict[str, Any]]:
        """Return the dead letters, in order."""
        letters = [
            _decode_dead_letter(record.value or b"") for record in self._written(DEAD_LETTER_TOPIC)
        ]
        return [
            {
                "stage": letter.stage,
                "reason": letter.reason,
                "message": letter.message,
                "detail": letter.detail,
            }
            for letter in letters
        ]

    def logs(self) -> list[dict[str, Any]]:
        """Return what `log` nodes said, in order."""
        return [msgspec.to_builtins(line) for line in self._rehearsal.lines[self._lines :]]

    def _written(self, prefix: str) -> list[Outgoing]:
        """Return the records of a topic, or of all topics whose names start with `prefix`."""
        journal = self._rehearsal.journal[self._begin :]
        return [record for record in journal if record.topic.startswith(prefix)]


def answer(response: Response) -> dict[str, Any]:
    """Return the answer to an uplink; `json` where it is JSON."""
    said: dict[str, Any] = {"status": response.status, "bytes": response.body.hex(" ")}
    said["text"] = response.body.decode(errors="replace")
    try:
        said["json"] = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        said["json"] = None
    return said


def _downlink(downlink: Downlink, handed: Handed | None) -> dict[str, Any]:
    detail = downlink.detail
    said: dict[str, Any] = {
        "device": downlink.device,
        "integration": downlink.integration,
        "bytes": None if downlink.payload is None else downlink.payload.hex(" "),
        "fields": downlink.fields,
        "f_port": downlink.f_port,
        "state": downlink.state.value,
        "reason": downlink.reason,
        "message": detail.get("message"),
        "confirmed": downlink.confirmed,
        "queue": downlink.queue,
        "priority": downlink.priority,
        "source": downlink.source,
        "possibly_delivered": downlink.possibly_delivered,
    }
    if downlink.expires_at_ms is not None:
        said["expires_in"] = (downlink.expires_at_ms - downlink.requested_ms) / 1_000
    if handed is not None and handed.call is not None:
        said["request"] = _request(handed.call)
    return said


def _request(call: Call) -> dict[str, Any]:
    """Return a request without its secrets: its headers, and the query of its URL."""
    parts = urlsplit(call.url)
    said: dict[str, Any] = {
        "method": call.method,
        "url": urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")),
    }
    try:
        said["json"] = orjson.loads(call.body)
    except orjson.JSONDecodeError:
        said["bytes"] = call.body.hex(" ")
    return said
