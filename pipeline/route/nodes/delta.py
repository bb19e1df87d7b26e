"""`delta`: a message in, a new message with a number's difference to the last one out by `then`."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, FiniteFloat, StrictBool, model_validator

from pipeline.part import Part
from pipeline.route.fields import Target
from pipeline.route.memory import recall, remember
from pipeline.route.moments import as_of
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Draft, Missing, Path, Place, number_at
from pipeline.route.visit import Visit


class DeltaConfig(Part):
    """Which number, and where the results go."""

    of: Place
    into: Place | None = Field(
        default=None, description="The difference; by default beside the number, as `…_delta`."
    )
    elapsed_s: Place | None = Field(
        default=None, description="Where the seconds since the last number go."
    )
    wraps_at: FiniteFloat | None = Field(
        default=None, gt=0, description="A counter begins at 0 again there: 65536 for two bytes."
    )
    restarts: StrictBool = Field(
        default=False, description="A number that fell began at 0 again: the difference is it."
    )

    @model_validator(mode="after")
    def _one_of(self) -> DeltaConfig:
        if self.restarts and self.wraps_at is not None:
            raise ValueError("a number either wraps (`wraps_at`) or restarts, not both")
        return self


class Delta(Onward):
    """Adds the difference of a number to the last one of the device, and the time between them.

    By `otherwise` leave, as they came: the first message, those without the number, and those that
    are older than the last one (by their time).

    - name: warmed by
      delta: {of: telemetry.temperature, into: telemetry.warmed_by, elapsed_s: telemetry.within_s}
      otherwise: stop
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "delta"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = ("then", "otherwise")

    delta: DeltaConfig
    otherwise: Target | None = Field(default=None, description="Where there is no difference.")

    def apply(self, visit: Visit) -> Outcome:
        """Return a new message by `then`, or `otherwise`. MessageError (`number`): it is none."""
        wanted, message = self.delta, visit.message
        value = number_at(message, wanted.of)
        if isinstance(value, Missing):
            return "otherwise"
        shape = f" {wanted.of}"
        kept = recall(visit, self.verb, shape)
        time_ms = as_of(visit)
        if kept and time_ms < kept["time_ms"]:
            return "otherwise"
        remember(visit, self.verb, {"value": value, "time_ms": time_ms}, shape)
        if not kept:
            return "otherwise"
        difference = value - kept["value"]
        if difference < 0 and wanted.restarts:
            difference = value
        elif difference < 0 and wanted.wraps_at is not None:
            difference += _whole(wanted.wraps_at)
        draft = Draft(message)
        draft.put(wanted.into or _beside(wanted.of), difference)
        if wanted.elapsed_s is not None:
            draft.put(wanted.elapsed_s, (time_ms - kept["time_ms"]) / 1_000)
        return [("then", draft.message())]


def _whole(value: float) -> float:
    """Return a whole number as int, so that whole counters stay whole."""
    return int(value) if value.is_integer() else value


def _beside(place: Path) -> Path:
    return Path(place.root, (*place.names[:-1], f"{place.names[-1]}_delta"))


NODE = Delta
