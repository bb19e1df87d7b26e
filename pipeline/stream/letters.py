"""Dead letters on a log: finds them, sends them once more, drops them.

In: `dead.letter`, and `dead.letter.handled`, where it stands what became of each. Out: the
original records back to `uplink.received`, `device.events` or their delivery topic, and a note in
`dead.letter.handled`, both in one step: a letter is replayed once, also where the program that
does it is killed.

| of | goes back to | because |
|---|---|---|
| convert | `uplink.received` | the mended converter reads the bytes; of a batch, only its part |
| route | `device.events` | the chain that failed has the message again, no other chain does |
| downlink | `device.events` | as the command that it was; answers for requests long gone do not |
| sink | its own `delivery.…` | rules had their effects; the receiver knows it by the same id |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from pipeline import topics
from pipeline.errors import MessageError
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.event import (
    Cancel,
    DownlinkCommand,
    DownlinkReport,
    DownlinksCommand,
    DownlinkWork,
    Forget,
    RequestedDownlink,
    RequestedDownlinks,
)
from pipeline.model.letters import Done, Fate, Handled, Letter, LettersFilter, Refused, chosen
from pipeline.model.record import (
    REPLAY,
    REPLAY_CHAIN,
    REPLY_TO,
    TRACE_ID,
    Outgoing,
    Record,
    derive_id,
    device_key,
    headers_of,
)

_decode = msgspec.json.Decoder(DeadLetter).decode
_decode_handled = msgspec.json.Decoder(Handled).decode
_decode_work = msgspec.json.Decoder(DownlinkWork).decode
_encode = msgspec.json.Encoder().encode


NOWHERE: Mapping[int, int] = {}


class Shelf(Protocol):
    """A log as dead letters need it."""

    def records(
        self, topic: str, *, since_ms: int = 0, past: Mapping[int, int] = NOWHERE
    ) -> Iterator[Record]:
        """Yield what a topic holds now, from a time on and past these offsets (partition →
        offset); the order of each partition is kept.
        """
        ...

    def record(self, topic: str, partition: int, offset: int) -> Record | None:
        """Return the record at a place; None: there is none (any more)."""
        ...

    def append(self, records: Sequence[Outgoing]) -> None:
        """Append all of them in one step."""
        ...


class LogLetters:
    """See `model.letters.Letters`. What became of letters is read at first use, then kept up by
    what this object does itself: it must be the only writer.
    """

    def __init__(self, shelf: Shelf, now_ms: Callable[[], int]) -> None:
        self._shelf = shelf
        self._now_ms = now_ms
        self._known: dict[str, Handled] | None = None

    def find(self, wanted: LettersFilter, after: str = "") -> Iterator[Letter]:
        """See the port."""
        self._handled()  # before: a log that is looked at may read one topic at a time
        past = dict(filter(None, map(parse_place, after.split(","))))
        found = self._shelf.records(topics.DEAD_LETTER, since_ms=wanted.since_ms, past=past)
        for record in found:
            letter = self._letter(record)
            if letter is not None:
                yield from chosen((letter,), wanted)

    def get(self, place: str) -> Letter | None:
        """See the port."""
        found = parse_place(place)
        record = self._shelf.record(topics.DEAD_LETTER, *found) if found else None
        return self._letter(record) if record is not None else None

    def replay(self, letters: Sequence[Letter], by: str, *, again: bool = False) -> Done:
        """See the port."""
        out: list[Outgoing] = []
        notes: list[Handled] = []
        refused: list[Refused] = []
        for one in letters:
            handled = self._handled().get(one.place)
            if handled is not None and not again:
                refused.append(_already(one, handled))
                continue
            number = (handled.number if handled and handled.fate == "replayed" else 0) + 1
            try:
                out.append(way_back(one.letter, number))
            except MessageError as error:
                refused.append(Refused(one.place, error.code, error.message))
                continue
            notes.append(self._note(one, "replayed", by, number))
        return self._write(out, notes, refused)

    def drop(self, letters: Sequence[Letter], by: str) -> Done:
        """See the port."""
        notes: list[Handled] = []
        refused: list[Refused] = []
        for one in letters:
            handled = self._handled().get(one.place)
            if handled is not None and handled.fate == "dropped":
                refused.append(_already(one, handled))
            else:
                notes.append(self._note(one, "dropped", by, handled.number if handled else 1))
        return self._write([], notes, refused)

    def _write(self, out: list[Outgoing], notes: list[Handled], refused: list[Refused]) -> Done:
        if notes:
            self._shelf.append([*out, *map(_noted, notes)])
            self._handled().update({note.place: note for note in notes})
        return Done(tuple(note.place for note in notes), tuple(refused))

    def _note(self, one: Letter, fate: Fate, by: str, number: int) -> Handled:
        letter = one.letter
        return Handled(one.place, letter.id, fate, self._now_ms(), letter.tenant, number, by)

    def _handled(self) -> dict[str, Handled]:
        if self._known is None:
            self._known = {}
            for record in self._shelf.records(topics.DEAD_LETTER_HANDLED):
                try:
                    note = _decode_handled(record.value or b"")
                except msgspec.MsgspecError:
                    continue  # somebody else's record; it says nothing of a letter
                self._known[note.place] = note
        return self._known

    def _letter(self, record: Record) -> Letter | None:
        try:
            letter = _decode(record.value or b"")
        except msgspec.MsgspecError:
            return None  # another producer's record, which is no letter
        place = f"{record.partition}-{record.offset}"
        return Letter(place, letter, _destination(letter), self._handled().get(place))


def parse_place(place: str) -> tuple[int, int] | None:
    """Return partition and offset of a letter's place; None: it is no place."""
    partition, dash, offset = place.partition("-")
    digits = partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()
    if not dash or not digits or len(place) > 30:
        return None
    return int(partition), int(offset)


def way_back(letter: DeadLetter, number: int = 1) -> Outgoing:
    """Return the record of a letter's `number`th replay.

    MessageError (`no_way_back`): what it stands for cannot be done later.
    """
    replay = letter.id if number == 1 else derive_id(letter.id, f"again{number - 1}")
    if letter.topic == topics.DOWNLINK_REQUESTED:
        return _command(letter, replay)
    known = letter.topic in (topics.UPLINK_RECEIVED, topics.DEVICE_EVENTS)
    if not known and not letter.topic.startswith(topics.DELIVERY_PREFIX):
        raise MessageError(f"nothing of `{letter.topic}` is replayed", code="no_way_back")
    headers = {name: value for name, value in letter.headers.items() if name != REPLY_TO}
    headers[REPLAY] = replay
    chain = letter.detail.get("chain")
    if letter.stage == "route" and isinstance(chain, str):
        headers[REPLAY_CHAIN] = chain
    return Outgoing(letter.topic, letter.key, letter.value, headers)


def _command(letter: DeadLetter, replay: str) -> Outgoing:
    """Return what a downlink's work was before route handed it on."""
    try:
        work = _decode_work(letter.value or b"")
    except msgspec.MsgspecError:
        text = "the record cannot be read, so nobody can do what it asks for"
        raise MessageError(text, code="no_way_back") from None
    event_id = derive_id(replay, "replay")
    event: Any
    match work:
        case RequestedDownlink():
            event = DownlinkCommand(
                id=event_id,
                tenant=work.tenant,
                device=work.device,
                time_ms=work.time_ms,
                request=work.request,
                integration=work.integration,
            )
        case RequestedDownlinks():
            event = DownlinksCommand(
                id=event_id,
                tenant=work.tenant,
                device=work.device,
                time_ms=work.time_ms,
                requests=work.requests,
                replace=work.replace,
                integration=work.integration,
                link=work.link,
                by=work.by,
            )
        case DownlinkReport() | Cancel() | Forget():
            event = msgspec.structs.replace(work, id=event_id)
        case _:
            text = "it is a question, or a request that waited for an answer: nobody waits any more"
            raise MessageError(text, code="no_way_back")
    headers = headers_of(
        event_id=event_id,
        trace=letter.headers.get(TRACE_ID, event_id),
        cause=letter.id,
        tenant=work.tenant,
        rules="",
    )
    headers[REPLAY] = replay
    key = device_key(work.tenant, work.device)
    return Outgoing(topics.DEVICE_EVENTS, key, _encode(event), headers)


def _noted(note: Handled) -> Outgoing:
    event_id = f"{note.place}.{note.fate}.{note.number}"
    headers = headers_of(
        event_id=event_id, trace=note.letter, cause=note.letter, tenant=note.tenant, rules=""
    )
    return Outgoing(topics.DEAD_LETTER_HANDLED, note.place, _encode(note), headers)


def _destination(letter: DeadLetter) -> str:
    said = letter.detail.get("destination")
    if isinstance(said, str):
        return said
    if letter.topic.startswith(topics.DELIVERY_PREFIX):
        return letter.topic.removeprefix(topics.DELIVERY_PREFIX).partition(".")[2]
    return ""


def _already(one: Letter, handled: Handled) -> Refused:
    by = f" by {handled.by}" if handled.by else ""
    return Refused(one.place, "already", f"it was {handled.fate} before{by}")
