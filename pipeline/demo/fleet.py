"""The simulated devices: what they measure, when they report, what downlinks do to them. Pure.

In: simulated minutes since the start, and downlinks' bytes. Out: uplinks' bytes. Time never goes
back. The same seed gives the same fleet.

| device | left alone | what a downlink does |
|---|---|---|
| thermostat | its room warms | cools it, or lets it rest |
| tracker | drives and parks, and reports at once when that changes | sets how often it reports |
| meter | its water warms up while the valve is open | closes or opens the valve |
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from random import Random
from typing import Any, ClassVar, Literal, Protocol

from pipeline.demo import codec

Kind = Literal["thermostat", "tracker", "meter"]
KINDS: tuple[Kind, ...] = ("thermostat", "tracker", "meter")
DEVICES_MAX = 10_000

_OUTSIDE = 35.0  # °C; a room gets no warmer, whatever its target
_COLDEST = 12.0
_BOILER = 75.0  # °C; a meter's water gets no warmer
_DISTRICT = 40.0  # and with a closed valve no cooler
_LATE_MINUTES_MAX = 5.0  # a device that is later than that does not catch up


class Device(Protocol):
    """One device. `due` is the minute of its next report; `id` how its network server names it."""

    kind: ClassVar[Kind]
    id: str
    reports: int
    """Uplinks that it has sent."""
    received: int
    """Downlinks that it has received and understood."""

    @property
    def due(self) -> float:
        """The minute of the next report; a downlink may move it."""
        ...

    def report(self, minute: float) -> bytes:
        """Live on until `minute` and return the uplink's bytes."""
        ...

    def receive(self, minute: float, payload: bytes) -> bool:
        """Do what a downlink says; False: the device cannot read it, and ignores it."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what an onlooker sees, as JSON."""
        ...


class _Clockwork(ABC):
    """How every device lives: minute by minute, reporting at an interval."""

    def __init__(self, device_id: str, random: Random, interval: float) -> None:
        self.id = device_id
        self.reports = 0
        self.received = 0
        self.interval = interval
        self._random = random
        self._minute = 0.0
        self._next = random.uniform(0.0, min(interval, 2.0))

    @property
    def due(self) -> float:
        """See `Device`."""
        return self._next

    def receive(self, minute: float, payload: bytes) -> bool:
        """See `Device`."""
        self._live(minute)
        try:
            self._obey(minute, payload)
        except ValueError:
            return False
        self.received += 1
        return True

    @abstractmethod
    def _live(self, minute: float) -> None:
        """Let the time pass until `minute`."""

    @abstractmethod
    def _obey(self, minute: float, payload: bytes) -> None:
        """Do what a downlink says. ValueError: it cannot be read."""

    def _reported(self, minute: float) -> None:
        """Keep the pace, unless the device is too late for that."""
        began = self._next if 0 <= minute - self._next <= _LATE_MINUTES_MAX else minute
        self._next = began + self.interval
        self.reports += 1

    def _passed(self, minute: float) -> float:
        """Return the minutes since this was last asked."""
        passed = max(0.0, minute - self._minute)
        self._minute += passed
        return passed


class Thermostat(_Clockwork):
    """A room that warms, from close to the target of 22 °C up."""

    kind: ClassVar[Kind] = "thermostat"

    def __init__(self, device_id: str, random: Random) -> None:
        super().__init__(device_id, random, interval=1)
        self.temperature = random.uniform(21.2, 23.2)
        self.target = 22.0
        self.cooling = False
        self._battery = random.uniform(60, 100)
        self._warms = random.uniform(0.07, 0.12)  # °C a minute
        self._cools = random.uniform(0.10, 0.16)

    def report(self, minute: float) -> bytes:
        """See `Device`."""
        self._live(minute)
        self._reported(minute)
        return codec.thermostat_reading(self.temperature, self._battery, fan=self.cooling)

    def _obey(self, minute: float, payload: bytes) -> None:  # noqa: ARG002 - as the others
        self.cooling, self.target = codec.thermostat_order(payload)

    def state(self) -> dict[str, Any]:
        """See `Device`."""
        return {
            "temperature": round(self.temperature, 2),
            "target": self.target,
            "cooling": self.cooling,
            "battery": round(self._battery),
        }

    def _live(self, minute: float) -> None:
        passed = self._passed(minute)
        change = -self._cools if self.cooling else self._warms
        self.temperature += change * passed
        self.temperature = min(max(self.temperature, _COLDEST), _OUTSIDE)
        self._battery = max(1.0, self._battery - 0.001 * passed)


class Tracker(_Clockwork):
    """A bicycle that is ridden and parked in turn; it reports at once when that changes."""

    kind: ClassVar[Kind] = "tracker"

    def __init__(self, device_id: str, random: Random) -> None:
        super().__init__(device_id, random, interval=10)
        self.moving = random.random() < 0.5
        self._battery = random.uniform(30, 100)
        self._latitude = 52.3702 + random.uniform(-0.05, 0.05)
        self._longitude = 4.8952 + random.uniform(-0.08, 0.08)
        self._course = random.uniform(0, 2 * math.pi)
        self._turn = self._minute + self._stretch()

    @property
    def due(self) -> float:
        """The next report: by the interval, or when it begins or ends to move."""
        return min(self._next, self._turn)

    def report(self, minute: float) -> bytes:
        """See `Device`."""
        self._live(minute)
        if self._turn <= minute:
            self.moving = not self.moving
            self._turn = minute + self._stretch()
            self._next = minute
        self._reported(minute)
        return codec.tracker_position(
            self._latitude, self._longitude, self._battery, moving=self.moving
        )

    def _obey(self, minute: float, payload: bytes) -> None:
        """The new interval counts from the last report."""
        interval = codec.tracker_order(payload)
        self._next = max(minute, self._next - self.interval + interval)
        self.interval = interval

    def state(self) -> dict[str, Any]:
        """See `Device`."""
        return {
            "latitude": round(self._latitude, 5),
            "longitude": round(self._longitude, 5),
            "moving": self.moving,
            "interval": self.interval,
            "battery": round(self._battery),
        }

    def _stretch(self) -> float:
        """Return for how long it goes on as it does now."""
        return self._random.uniform(20, 50) if self.moving else self._random.uniform(15, 60)

    def _live(self, minute: float) -> None:
        passed = self._passed(minute)
        if not self.moving:
            # Who parks it with an empty battery charges it.
            self._battery = (
                min(100.0, self._battery + passed)
                if self._battery < 12
                else (max(5.0, self._battery - 0.005 * passed))
            )
            return
        self._battery = max(5.0, self._battery - 0.05 * passed)
        self._course += self._random.uniform(-0.5, 0.5)
        degrees = 0.0022 * passed  # 15 km an hour, in degrees of latitude
        self._latitude = min(max(self._latitude + degrees * math.cos(self._course), -85), 85)
        self._longitude = (self._longitude + degrees * math.sin(self._course) + 180) % 360 - 180


class Meter(_Clockwork):
    """A heat meter. Its water warms up past what the house needs, until the valve closes."""

    kind: ClassVar[Kind] = "meter"
    asks_every = 2
    """Each how manieth report asks for a downlink. Sigfox allows 4 a day; this day is short."""

    def __init__(self, device_id: str, random: Random) -> None:
        super().__init__(device_id, random, interval=10)
        self.temperature = random.uniform(58.0, 66.5)
        self.is_open = True
        self._volume = random.uniform(10_000, 900_000)
        self._flow = random.randint(180, 320)  # litres an hour
        self._warms = random.uniform(0.15, 0.30)  # °C a minute
        self._cools = random.uniform(0.30, 0.50)
        self._phase = random.randrange(self.asks_every)

    @property
    def flow(self) -> int:
        """Litres an hour."""
        return self._flow if self.is_open else 0

    def report(self, minute: float) -> bytes:
        """See `Device`."""
        self._live(minute)
        self._reported(minute)
        return codec.meter_reading(int(self._volume), self.flow, self.temperature)

    @property
    def asks(self) -> bool:
        """Whether the report that was just made asks for a downlink."""
        return (self.reports + self._phase) % self.asks_every == 0

    def _obey(self, minute: float, payload: bytes) -> None:  # noqa: ARG002 - as the others
        """The new interval counts from the next report."""
        self.is_open, self.interval = codec.meter_order(payload)

    def state(self) -> dict[str, Any]:
        """See `Device`."""
        return {
            "temperature": round(self.temperature, 2),
            "valve": "open" if self.is_open else "closed",
            "flow": self.flow,
            "volume": int(self._volume),
            "interval": self.interval,
        }

    def _live(self, minute: float) -> None:
        passed = self._passed(minute)
        self._volume += self.flow / 60 * passed
        change = self._warms if self.is_open else -self._cools
        self.temperature = min(max(self.temperature + change * passed, _DISTRICT), _BOILER)


class Fleet:
    """All devices, of the three kinds in equal numbers, each with a random of its own."""

    def __init__(self, devices: int, seed: int) -> None:
        """Make them. ValueError: fewer than one of each kind, or more than DEVICES_MAX."""
        if not len(KINDS) <= devices <= DEVICES_MAX:
            raise ValueError(f"a fleet has from {len(KINDS)} to {DEVICES_MAX} devices")
        self.thermostats: list[Thermostat] = []
        self.trackers: list[Tracker] = []
        self.meters: list[Meter] = []
        for number in range(devices):
            random = Random(f"{seed}/{number}")  # noqa: S311 - a simulation, not a secret
            nth = number // len(KINDS) + 1
            match KINDS[number % len(KINDS)]:
                case "thermostat":
                    self.thermostats.append(Thermostat(f"thermostat-{nth}", random))
                case "tracker":
                    self.trackers.append(Tracker(f"tracker-{nth}", random))
                case "meter":
                    self.meters.append(Meter(f"{0x4D0000 + nth:X}", random))

    @property
    def devices(self) -> list[Device]:
        """All of them."""
        return [*self.thermostats, *self.trackers, *self.meters]


def minute_s(devices: int, rate: float) -> float:
    """Return how many real seconds a simulated minute takes for about `rate` uplinks a second.

    A third of the devices are thermostats with a report a minute; half of the trackers move and
    report as often; meters report every 10 minutes, parked trackers every 30.
    """
    return devices / len(KINDS) * (1 + 0.5 + 0.1 + 0.5 / 30) / rate
