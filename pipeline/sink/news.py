"""What people see of a destination: log lines at each change of state, metrics, its status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.logs import get_logger
from pipeline.metrics import Registry
from pipeline.model.dead_letter import DEAD_LETTER_TOPIC
from pipeline.model.record import Outgoing
from pipeline.sink.endings import STAGE
from pipeline.sink.transport import Result

REFUSALS_SAID_EVERY_S = 60.0  # Each refusal is a dead letter; the log says so at most this often.
State = Literal["opening", "ok", "failing", "disabled", "stopped"]
_SHOWN: tuple[State, ...] = ("ok", "failing", "disabled")

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """How a destination does; `waiting` counts records that are read and not committed."""

    tenant: str
    destination: str
    state: State
    error: str
    waiting: int


class News:
    """Tells once per change of state, never per attempt or message."""

    def __init__(self, tenant: str, destination: str, metrics: Registry) -> None:
        self.name = {"tenant": tenant, "destination": destination}
        self.state: State = "opening"
        self.error = ""
        self._metrics = metrics
        self._refusal_said_s: float | None = None

    def fails(self, error: str, reason: str, next_try_s: float) -> None:
        """Say, if it worked so far, that it fails."""
        self.error = error
        if self.state not in {"failing", "disabled"}:
            self.state = "failing"
            self._show()
            _log.warning(
                "A destination fails; its deliveries wait.",
                **self.name,
                error=error,
                reason=reason,
                next_try_s=round(next_try_s, 3),
            )

    def stops(self, error: str) -> None:
        """Say, once, that it wants nothing more, and how it is enabled again."""
        if self.state == "disabled":
            return
        self.state = "disabled"
        self.error = error
        self._show()
        _log.error(
            "A destination is disabled: it wants no more deliveries. They wait in the log; it is"
            " enabled again by a change of its YAML or a restart.",
            **self.name,
            error=error,
        )

    def ends(self) -> None:
        """Note that it stopped: a state of nobody's fault."""
        self.state = "stopped"

    def works(self) -> None:
        """Say, if it failed, that it works again."""
        if self.state == "disabled":
            return
        if self.state == "failing":
            _log.info("A destination works again.", **self.name)
        self.state = "ok"
        self.error = ""
        self._show()

    def _show(self) -> None:
        for state in _SHOWN:
            self._metrics.set(
                "funicular_destination_state", self.state == state, **self.name, state=state
            )

    def refuses(self, result: Result, now_s: float) -> None:
        """Say that messages are refused, at intervals."""
        said_s = self._refusal_said_s
        if said_s is None or now_s - said_s >= REFUSALS_SAID_EVERY_S:
            self._refusal_said_s = now_s
            _log.warning(
                "A destination refuses messages for good.",
                **self.name,
                error=result.message,
                reason=result.reason,
            )

    def count(self, results: Mapping[str, int]) -> None:
        """Add to the metric of deliveries: result → number."""
        for result, number in results.items():
            self._metrics.add("funicular_deliveries_total", number, **self.name, result=result)

    def count_buried(self, outgoing: Sequence[Outgoing], reason: str) -> None:
        """Add the dead letters among `outgoing` to their metric."""
        buried = sum(record.topic == DEAD_LETTER_TOPIC for record in outgoing)
        if buried:
            self._metrics.add("funicular_dead_letters_total", buried, stage=STAGE, reason=reason)
