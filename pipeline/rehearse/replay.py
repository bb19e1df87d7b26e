"""What a dead letter's replay would do, without doing it: a letter in, results or the fault out.

What convert failed on goes through the rules' converter as it is now; what a chain failed on goes
through the chain with the device's state as it is now, where that can be read. Nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pipeline import topics
from pipeline.convert.stage import Convert
from pipeline.errors import MessageError
from pipeline.metrics import Registry
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.event import DeviceEvent, DeviceMessage
from pipeline.model.letters import Letter
from pipeline.model.record import Outgoing, Record
from pipeline.ports import Batch, DeviceState, Load, ScriptPort, Stage
from pipeline.route.stage import Route
from pipeline.rulebook.book import Rulebook
from pipeline.stream.letters import way_back

_decode_event = msgspec.json.Decoder(DeviceEvent).decode
_decode_letter = msgspec.json.Decoder(DeadLetter).decode


class Foreseen(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a replay would do. `results` are what the stage would write; `reason` and `message`
    say why it would fail again, or why there is no way back. `tried` False: only where it goes.
    """

    place: str
    goes_to: str = ""
    tried: bool = False
    results: tuple[dict[str, Any], ...] = ()
    reason: str = ""
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reason


class Foresight:
    """Looks ahead with one set of rules. `load` gives the state of a device as route has it;
    None: it cannot be read, so chains are not tried.
    """

    def __init__(
        self,
        books: Mapping[str, Rulebook],
        scripts: ScriptPort,
        now_ms: Callable[[], int],
        load: Load | None = None,
    ) -> None:
        metrics = Registry()
        self._convert = Convert(lambda: books, scripts, metrics)
        self._route = Route(lambda: books, metrics, scripts=scripts)
        self._now_ms = now_ms
        self._load = load

    def of(self, letter: Letter) -> Foreseen:
        """Return what the letter's replay would do. RetryableError: scripts cannot run."""
        try:
            out = way_back(letter.letter)
        except MessageError as error:
            return Foreseen(letter.place, reason=error.code, message=error.message)
        if out.topic == topics.UPLINK_RECEIVED:
            return self._tried(letter, out, self._convert, lambda _: {})
        if out.topic == topics.DEVICE_EVENTS and self._load is not None:
            return self._tried(letter, out, self._route, self._load)
        return Foreseen(letter.place, goes_to=out.topic)

    def _tried(self, letter: Letter, out: Outgoing, stage: Stage, load: Load) -> Foreseen:
        was = letter.letter
        record = Record(out.topic, 0, was.offset, was.time_ms, out.key, out.value, out.headers)
        made = stage.handle(Batch(0, [record]), DeviceState(load), self._now_ms())
        again = [
            _decode_letter(one.value or b"") for one in made if one.topic == topics.DEAD_LETTER
        ]
        return Foreseen(
            letter.place,
            goes_to=out.topic,
            tried=True,
            results=_results(made),
            reason=again[0].reason if again else "",
            message=again[0].message if again else "",
        )


def _results(made: Sequence[Outgoing]) -> tuple[dict[str, Any], ...]:
    found: list[dict[str, Any]] = []
    for out in made:
        if out.topic in (topics.DEAD_LETTER, topics.REPLY):
            continue
        value = msgspec.json.decode(out.value or b"null")
        if out.topic == topics.DEVICE_EVENTS:
            event = _decode_event(out.value or b"")
            if isinstance(event, DeviceMessage):
                value = {
                    "device": event.device,
                    "type": event.type,
                    "telemetry": event.telemetry,
                    "attributes": event.attributes,
                }
        found.append({"topic": out.topic, **(value if isinstance(value, dict) else {})})
    return tuple(found)
