"""A simulated The Things Network v2 with its HTTP integration.

In: devices' reports; `POST/PUT /ttn/api/v2/down/{app_id}/{process_id}?key=`, answered 202.
Out: uplink JSON with a `downlink_url`. It tries each uplink once: what Funicular did not take is
lost, as it was there. A device is of class A: after each of its uplinks one downlink may follow.
"""

from __future__ import annotations

import asyncio
import hmac
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from pipeline.demo.callbacks import Callbacks, Clock, timestamp
from pipeline.demo.fleet import Device

PROCESS = "funicular"
QUEUE_MAX = 100  # downlinks that wait for one device
SCHEDULES = ("replace", "first", "last")


@dataclass
class _Session:
    device: Device
    dev_eui: str
    counter: int = 0
    queue: deque[bytes] = field(default_factory=deque)


class TtnV2:
    """See the module. `downlinks` counts what was asked of it, `received` what devices got."""

    def __init__(
        self,
        devices: list[Device],
        callbacks: Callbacks,
        clock: Clock,
        *,
        application: str,
        key: str,
        window_s: float,
    ) -> None:
        """Make it. `window_s` after an uplink its device listens; `key` is that of downlinks."""
        self.callbacks = callbacks
        self._clock = clock
        self._application = application
        self._key = key
        self._window_s = window_s
        self.downlink_url = ""
        self.downlinks = 0
        self._sessions = {
            device.id: _Session(device, f"{0x70B3D57ED0010000 + number:016X}")
            for number, device in enumerate(devices, 1)
        }

    def serve(self, app: web.Application) -> None:
        """Add its address to the HTTP server."""
        app.router.add_route("POST", "/ttn/api/v2/down/{app_id}/{process_id}", self._down)
        app.router.add_route("PUT", "/ttn/api/v2/down/{app_id}/{process_id}", self._down)

    def listens_at(self, url: str) -> None:
        """Say where the HTTP server is, so that uplinks can say it."""
        self.downlink_url = f"{url}/ttn/api/v2/down/{self._application}/{PROCESS}?key={self._key}"

    def name(self, device: Device) -> str:
        """Return the device's name in Funicular, by the dialect's template."""
        return f"{self._application}:{device.id}"

    async def uplink(self, device: Device) -> None:
        """Let a device report; hand it a downlink in its receive window."""
        session = self._sessions[device.id]
        payload = device.report(self._clock.minute())
        body = orjson.dumps(self._up(session, payload))
        session.counter += 1
        await asyncio.gather(self.callbacks.post(body), self._window(session))

    def waiting(self, device: Device) -> int:
        """Return how many downlinks wait for a device."""
        return len(self._sessions[device.id].queue)

    async def _window(self, session: _Session) -> None:
        await asyncio.sleep(self._window_s)
        if session.queue:
            session.device.receive(self._clock.minute(), session.queue.popleft())

    def _up(self, session: _Session, payload: bytes) -> dict[str, Any]:
        time = timestamp()
        gateway = {
            "gtw_id": "eui-b827ebfffe0a1b2c",
            "gtw_trusted": True,
            "timestamp": session.counter * 1_000_003 % 2**32,
            "time": time,
            "channel": session.counter % 8,
            "rssi": -60 - session.counter % 40,
            "snr": 7.5,
            "rf_chain": 0,
            "latitude": 52.3731,
            "longitude": 4.8922,
            "altitude": 12,
        }
        return {
            "app_id": self._application,
            "dev_id": session.device.id,
            "hardware_serial": session.dev_eui,
            "port": 1,
            "counter": session.counter,
            "payload_raw": b64encode(payload).decode(),
            "metadata": {
                "time": time,
                "frequency": 868.1,
                "modulation": "LORA",
                "data_rate": "SF7BW125",
                "airtime": 51_456_000,
                "coding_rate": "4/5",
                "gateways": [gateway],
            },
            "downlink_url": self.downlink_url,
        }

    async def _down(self, request: web.Request) -> web.Response:
        if not hmac.compare_digest(request.query.get("key", "").encode(), self._key.encode()):
            return _error(401, "invalid key")
        if request.match_info["app_id"] != self._application:
            return _error(404, "application not found")
        try:
            asked = orjson.loads(await request.read())
            session, payload, schedule = self._asked(asked)
        except (ValueError, TypeError, KeyError, AttributeError) as fault:
            return _error(400, f"invalid downlink: {fault}")
        if session is None:
            return _error(404, "device not found")
        queue = session.queue
        if schedule == "replace":
            queue.clear()
        if len(queue) >= QUEUE_MAX:
            return _error(429, f"{QUEUE_MAX} downlinks wait for this device")
        if schedule == "first":
            queue.appendleft(payload)
        else:
            queue.append(payload)
        self.downlinks += 1
        return web.Response(status=202)

    def _asked(self, asked: Any) -> tuple[_Session | None, bytes, str]:
        schedule = asked.get("schedule") or "replace"
        if schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}")
        if not 1 <= int(asked["port"]) <= 223:
            raise ValueError("port must be from 1 to 223")
        try:
            payload = b64decode(asked["payload_raw"], validate=True)
        except BadBase64:
            raise ValueError("payload_raw is not base64") from None
        return self._sessions.get(asked["dev_id"]), payload, schedule


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)
