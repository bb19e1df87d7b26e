"""What one record becomes, once its scripts have run: events, empty replies, dead letters.

Where a request waits for the record, each of its devices gets exactly one window (on its last
event) or, where it has no event, one empty part of the answer.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.convert.decode import readings_of
from pipeline.convert.reading import Reading
from pipeline.convert.received import Received, part_of
from pipeline.errors import MessageError
from pipeline.model.dead_letter import bury
from pipeline.model.event import DeviceMessage, DownlinkReport, Window
from pipeline.model.record import (
    CE_TENANT,
    REPEAT_ALSO,
    REPEAT_KEY,
    REPLAY,
    REPLAY_PART,
    REPLY_TO,
    Outgoing,
    Record,
    derive_id,
    device_key,
    headers_of,
)
from pipeline.model.reply import Reply, ReplyTo
from pipeline.model.uplink import Link, Report, Uplink
from pipeline.topics import DEVICE_EVENTS, REPLY

STAGE = "convert"
EVENT_BYTES_MAX = 32 * 1024 * 1024
"""Of one event, which may be several times its uplink (bytes in base64, numbers written out). The
log takes records of 64 MiB, and the event must fit into a dead letter."""
_encode = msgspec.json.Encoder().encode


class _Entry:
    """One event on its way out: `window` is set where a request waits for its device."""

    __slots__ = ("message", "uplink", "value", "window")

    def __init__(self, uplink: Uplink, message: DeviceMessage) -> None:
        self.uplink = uplink
        self.message = message
        self.value = _encoded(message)
        self.window = False


class Outcome:
    """Of one record; `run` once, then take `out` and `reasons` (of the dead letters)."""

    def __init__(self, work: Received, now_ms: int, readings_max: int) -> None:
        self.out: list[Outgoing] = []
        self.reasons: list[str] = []
        self._work = work
        self._record = work.record
        self._now_ms = now_ms
        self._readings_max = readings_max
        self._entries: list[_Entry] = []
        # Whom the request waits for, in the order of its uplinks → whether any of the device's
        # messages can carry an answer. A part that failed unnamed has an entry of its own.
        self._waiting: dict[str, bool] = {}

    def run(self, results: list[Any]) -> None:
        """Fill `out` and `reasons`."""
        work = self._work
        if work.fault is not None:
            self._bury(self._record, work.fault)
        part = part_of(self._record)
        for index, uplink in enumerate(work.uplinks):
            if part is None or part == index:
                self._uplink(index, uplink, results)
        empty: list[Outgoing] = []
        if work.reply_to is not None:
            empty = self._open_windows(work.reply_to)
        for entry in self._entries:
            self._append(entry)
        self.out += empty

    def _uplink(self, index: int, uplink: Uplink, results: list[Any]) -> None:
        work = self._work
        waiting = _device_of(uplink.device, index)
        for number, report in enumerate(uplink.reports):
            self._report(f"r{index}-{number}", uplink, report)
        if uplink.type is None:
            self._waiting.setdefault(waiting, False)
            return
        try:
            if index in work.faults:
                raise work.faults[index]
            place = work.places[index]
            readings = readings_of(
                uplink,
                work.integration,
                work.calls[index],
                None if place < 0 else results[place],
                self._record.time_ms,
                readings_max=self._readings_max,
            )
            entries = [
                _Entry(uplink, self._message(uplink, reading, index, number, len(readings)))
                for number, reading in enumerate(readings)
            ]
        except MessageError as fault:
            self._waiting.setdefault(waiting, False)
            self._bury(self._part_of_batch(index), fault, tag=str(index))
            return
        if not entries:
            self._waiting.setdefault(waiting, False)
        for entry in entries:
            key = _device_of(entry.message.device, index)
            self._waiting[key] = self._waiting.get(key, False) or uplink.answerable
        self._entries += entries

    def _message(
        self, uplink: Uplink, reading: Reading, index: int, number: int, of: int
    ) -> DeviceMessage:
        """Return one event. The bytes go with it only where they are its own, not also another's:
        a large body with many sets of values must not become as many large events.
        """
        integration = self._work.integration
        received_ms = self._record.time_ms
        metadata = uplink.metadata
        if integration.metadata:
            metadata = {**metadata, "integration": dict(integration.metadata)}
        if reading.metadata:
            metadata = {**metadata, **reading.metadata}
        time_ms = reading.time_ms if reading.time_ms is not None else uplink.time_ms
        attributes = reading.attributes
        if uplink.attributes and number == 0:
            attributes = {**uplink.attributes, **attributes}
        tag = str(index) if number == 0 else f"{index}-{number}"
        return DeviceMessage(
            id=derive_id(self._work.trace, tag),
            type=uplink.type or "uplink",
            tenant=integration.tenant,
            device=reading.device,
            integration=integration.name,
            time_ms=received_ms if time_ms is None else time_ms,
            received_ms=received_ms,
            device_type=reading.device_type or integration.device_type,
            device_kind=reading.device_kind,
            customer=reading.customer,
            group=reading.group,
            dev_eui=uplink.dev_eui,
            f_port=uplink.f_port,
            f_cnt=uplink.f_cnt,
            confirmed=uplink.confirmed,
            payload=uplink.payload if of == 1 else None,
            telemetry=reading.telemetry,
            attributes=attributes,
            metadata=metadata,
            warnings=reading.warnings,
            link=self._link(uplink, reading, index),
        )

    def _link(self, uplink: Uplink, reading: Reading, index: int) -> Link:
        """Return the way back. Where the device's converter is not its integration's, it says so:
        what told of it is not known when a downlink is encoded.
        """
        link = uplink.link or Link(device_id=reading.device)
        name = self._work.converters[index]
        if name is None or name == self._work.integration.converter:
            return link
        return msgspec.structs.replace(link, converter=name)

    def _open_windows(self, reply_to: ReplyTo) -> list[Outgoing]:
        """Set the window on each device's last event; return the empty parts of the answer, of
        those that have no event.
        """
        last = {_device_of(entry.message.device, -1): entry for entry in self._entries}
        waiting = self._waiting or {"nobody": False}
        empty = []
        for part, (name, carries) in enumerate(waiting.items(), start=1):
            entry = last.get(name)
            if entry is None:
                device = name.partition("/")[2] if name.startswith("device/") else ""
                reply = Reply(reply_to.request, device=device, part=part, of=len(waiting))
                empty.append(self._reply(reply_to, reply))
                continue
            window = Window(
                key=entry.uplink.repeat_key or entry.message.id,
                part=part,
                of=len(waiting),
                carries=carries,
            )
            entry.message = msgspec.structs.replace(entry.message, window=window)
            entry.value = _encoded(entry.message)
            entry.window = True
        return empty

    def _append(self, entry: _Entry) -> None:
        message = entry.message
        headers = self._headers(message.id, message.tenant)
        if entry.uplink.repeat_key:
            headers[REPEAT_KEY] = entry.uplink.repeat_key
            if entry.uplink.repeat_also:
                headers[REPEAT_ALSO] = entry.uplink.repeat_also
        given = self._record.headers
        if REPLAY in given:
            headers[REPLAY] = given[REPLAY]
        if entry.window:
            headers[REPLY_TO] = given[REPLY_TO]
        key = device_key(message.tenant, message.device)
        self.out.append(Outgoing(DEVICE_EVENTS, key, entry.value, headers))

    def _report(self, tag: str, uplink: Uplink, report: Report) -> None:
        if uplink.device is None:
            return  # a report is about a device; dialects name it, or make none
        record = self._record
        event = DownlinkReport(
            id=derive_id(self._work.trace, tag),
            tenant=self._work.integration.tenant,
            device=uplink.device,
            time_ms=record.time_ms if uplink.time_ms is None else uplink.time_ms,
            report=report,
            integration=self._work.integration.name,
        )
        key = device_key(event.tenant, event.device)
        headers = self._headers(event.id, event.tenant)
        self.out.append(Outgoing(DEVICE_EVENTS, key, _encode(event), headers))

    def _reply(self, reply_to: ReplyTo, reply: Reply) -> Outgoing:
        tenant = self._record.headers.get(CE_TENANT, "")
        headers = self._headers(derive_id(self._work.trace, f"e{reply.part}"), tenant)
        return Outgoing(REPLY, reply_to.instance, _encode(reply), headers, reply_to.partition)

    def _headers(self, event_id: str, tenant: str) -> dict[str, str]:
        trace, rules = self._work.trace, self._version
        return headers_of(event_id=event_id, trace=trace, cause=trace, tenant=tenant, rules=rules)

    @property
    def _version(self) -> str:
        book = self._work.book
        return "" if book is None else book.version

    def _part_of_batch(self, index: int) -> Record:
        """Return the record to bury for one uplink: of a batch, one that says which, so that its
        replay does not repeat the others.
        """
        if len(self._work.uplinks) == 1:
            return self._record
        headers = {**self._record.headers, REPLAY_PART: str(index)}
        return msgspec.structs.replace(self._record, headers=headers)

    def _bury(self, record: Record, fault: MessageError, tag: str = "x") -> None:
        self.reasons.append(fault.code)
        self.out.append(
            bury(
                record,
                stage=STAGE,
                reason=fault.code,
                message=fault.message,
                detail=fault.detail,
                now_ms=self._now_ms,
                tag=tag,
                rules=self._version,
            )
        )


def _device_of(device: str | None, index: int) -> str:
    return f"device/{device}" if device is not None else f"unnamed/{index}"


def _encoded(message: DeviceMessage) -> bytes:
    """Return an event's JSON. MessageError: a dialect or a script gave what JSON cannot say
    (`not_encodable`), or too much of it (`event_size`).
    """
    try:
        value = _encode(message)
    except (RecursionError, UnicodeEncodeError, TypeError, OverflowError) as fault:
        raise MessageError(
            f"the message cannot be written as JSON: {fault}", code="not_encodable"
        ) from None
    if len(value) > EVENT_BYTES_MAX:
        raise MessageError(
            f"the message's event would have {len(value)} bytes; {EVENT_BYTES_MAX} are allowed",
            code="event_size",
            limit=EVENT_BYTES_MAX,
        )
    return value
