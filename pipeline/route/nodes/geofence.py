"""`geofence`: a message with a position in, the same message out by where it is, and was."""

from __future__ import annotations

from math import asin, cos, radians, sin, sqrt
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field, FiniteFloat, model_validator

from pipeline.errors import MessageError
from pipeline.part import Part
from pipeline.route.fields import FieldFault, Target, Template
from pipeline.route.memory import expect, recall, remember
from pipeline.route.moments import Span, as_of
from pipeline.route.node import Onward, Outcome
from pipeline.route.places import Missing, Place, number_at, path_of
from pipeline.route.visit import Visit

CORNERS_MAX = 500
_EARTH_RADIUS_M = 6_371_008.8  # the mean radius of the IUGG
_TIMER = "dwell"


class Position(NamedTuple):
    """Degrees, north and east."""

    latitude: float
    longitude: float


class Circle(Part):
    """All within `radius_m` of a middle; numbers, or expressions (of attributes, for instance)."""

    latitude: Template
    longitude: Template
    radius_m: Template

    @model_validator(mode="after")
    def _constants(self) -> Circle:
        if self.latitude.constant and self.longitude.constant and self.radius_m.constant:
            try:
                self.read({})
            except MessageError as error:
                raise ValueError(error.message) from error
        return self

    def read(self, scope: Any) -> tuple[Position, float]:
        """Return the middle and the radius. MessageError (code `geofence`): they are none."""
        middle = _position(self.latitude(scope), self.longitude(scope))
        radius_m = self.radius_m(scope)
        if not _is_number(radius_m) or not radius_m > 0:
            raise MessageError("`radius_m` must be a number of meters over 0", code="geofence")
        return middle, radius_m


Degrees = Annotated[FiniteFloat, Field(ge=-180, le=180)]
Corner = tuple[Annotated[FiniteFloat, Field(ge=-90, le=90)], Degrees]


class Fence(Part):
    """Where the message's position stands, and the place that is watched: one of the two."""

    latitude: Place = path_of("telemetry.latitude")
    longitude: Place = path_of("telemetry.longitude")
    circle: Circle | None = None
    polygon: tuple[Corner, ...] | None = Field(
        default=None,
        min_length=3,
        max_length=CORNERS_MAX,
        description="Corners, each `[latitude, longitude]`; less than half the earth wide.",
    )
    dwell: Span | None = Field(
        default=None, description="How long a device must be inside to leave by `dwelled`."
    )

    @model_validator(mode="after")
    def _one_of(self) -> Fence:
        if (self.circle is None) == (self.polygon is None):
            raise FieldFault("needs either `circle` or `polygon`")
        return self

    def has(self, position: Position, scope: Any) -> bool:
        """Return whether a position is inside."""
        if self.circle is not None:
            middle, radius_m = self.circle.read(scope)
            return distance_m(middle, position) <= radius_m
        return is_inside(position, self.polygon or ())


class Geofence(Onward):
    """Tells whether a device is inside a place, and when it enters, leaves, or stays there.

    Inside, the message leaves by `then`, outside by `otherwise`. Where they are named, the message
    that finds the device inside for the first time leaves by `entered` instead, and the first one
    outside after that by `left`; `dwelled` takes the last message of the device when it has been
    inside for `dwell`, once a stay. Messages without a position leave by `unplaced`; one that is
    older than the last (by its time) enters and leaves nothing.

    - name: at the depot
      geofence:
        latitude: metadata.latitude
        longitude: metadata.longitude
        circle: {latitude: 52.0116, longitude: 4.3571, radius_m: 250}
        dwell: 30m
      entered: archive
      left: archive
      dwelled: archive
      unplaced: archive
      otherwise: stop
    - name: archive
      send: {to: archive}
    """

    verb: ClassVar[str] = "geofence"
    acts: ClassVar[bool] = False
    outlets: ClassVar[tuple[str, ...]] = (
        "then",
        "otherwise",
        "entered",
        "left",
        "dwelled",
        "unplaced",
    )

    geofence: Fence
    otherwise: Target | None = Field(default=None, description="Where it is outside.")
    entered: Target | None = Field(default=None, description="The first message from inside.")
    left: Target | None = Field(default=None, description="The first message from outside again.")
    dwelled: Target | None = Field(default=None, description="When it has been inside so long.")
    unplaced: Target | None = Field(default=None, description="Messages without a position.")

    @model_validator(mode="after")
    def _dwells(self) -> Geofence:
        if (self.dwelled is None) != (self.geofence.dwell is None):
            raise ValueError("`dwell` and the outlet `dwelled` need each other")
        return self

    def apply(self, visit: Visit) -> Outcome:
        """Return the outlet. MessageError (`number`, `geofence`): it is no position."""
        fence, message = self.geofence, visit.message
        latitude = number_at(message, fence.latitude)
        longitude = number_at(message, fence.longitude)
        if isinstance(latitude, Missing) or isinstance(longitude, Missing):
            return "unplaced"
        inside = fence.has(_position(latitude, longitude), visit.scope)
        if not (self.entered or self.left or self.dwelled):
            return "then" if inside else "otherwise"
        return self._moved(visit, as_of(visit), inside=inside)

    def apply_timer(self, visit: Visit, data: Any) -> Outcome:  # noqa: ARG002 - the port's shape
        """Return the last message by `dwelled`."""
        kept = recall(visit, self.verb)
        expect(kept, self.verb)
        if self.dwelled is None or not kept["inside"]:
            return []
        remember(visit, self.verb, {**kept, "due_ms": 0})
        return "dwelled"

    def _moved(self, visit: Visit, time_ms: int, *, inside: bool) -> Outcome:
        """Return the outlet, by where the device was before."""
        kept = recall(visit, self.verb)
        before, due_ms = kept.get("inside", False), kept.get("due_ms", 0)
        outlet = "then" if inside else "otherwise"
        if kept and time_ms < kept["time_ms"]:
            return outlet
        if inside and not before:
            due_ms = visit.now_ms + self.geofence.dwell if self.geofence.dwell else 0
        if inside and due_ms:
            visit.wake(_TIMER, due_ms)
        elif before and not inside:
            visit.cancel_wake(_TIMER)
            due_ms = 0
        remember(visit, self.verb, {"inside": inside, "time_ms": time_ms, "due_ms": due_ms})
        if inside and not before and self.entered:
            return "entered"
        return "left" if before and not inside and self.left else outlet


def distance_m(one: Position, other: Position) -> float:
    """Return the distance of two positions on a sphere, in meters: right to half a percent."""
    north, east = radians(other.latitude - one.latitude), radians(other.longitude - one.longitude)
    across = cos(radians(one.latitude)) * cos(radians(other.latitude)) * sin(east / 2) ** 2
    return 2 * _EARTH_RADIUS_M * asin(sqrt(min(1.0, sin(north / 2) ** 2 + across)))


def is_inside(position: Position, corners: tuple[tuple[float, float], ...]) -> bool:
    """Return whether a polygon holds a position; it may lie across the 180th meridian."""
    inside = False
    # Longitudes as seen from the first corner, so that the 180th meridian is like any other.
    seen = [
        (latitude, (longitude - corners[0][1] + 540) % 360 - 180) for latitude, longitude in corners
    ]
    x, y = (position.longitude - corners[0][1] + 540) % 360 - 180, position.latitude
    for (y1, x1), (y2, x2) in zip(seen, (*seen[1:], seen[0]), strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            inside = not inside
    return inside


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _position(latitude: Any, longitude: Any) -> Position:
    if (
        not _is_number(latitude)
        or not _is_number(longitude)
        or not -90 <= latitude <= 90
        or not -180 <= longitude <= 180
    ):
        raise MessageError(
            "a position needs a latitude from -90 to 90 and a longitude from -180 to 180",
            code="geofence",
        )
    return Position(latitude, longitude)


NODE = Geofence
