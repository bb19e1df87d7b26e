"""A simulated The Things Stack v3: webhooks up, and the Application Server's downlink queue.

In: devices' reports; `POST …/api/v3/as/applications/{app}/devices/{dev}/down/{push|replace}` and
`GET …/down`, with a bearer key. Out: the webhook's messages `join_accept`, `uplink_message`,
`downlink_queued`, `downlink_sent`, `downlink_ack`. Each is tried once, in no order. Fields that
are zero, empty or false are left out. A device is of class A: after each of its uplinks one
downlink may follow.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from base64 import b64encode
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from pipeline.demo.callbacks import Callbacks, Clock, timestamp
from pipeline.demo.fleet import Device
from pipeline.demo.tts_v3_api import Downlink, Refusal, TtsV3Api

PATH = "/tts"  # where this server's addresses begin
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass
class _Session:
    device: Device
    dev_eui: str
    dev_addr: str
    session_key_id: str = ""
    f_cnt: int = 0
    f_cnt_down: int = 0
    last_sent: int = 0
    queue: deque[Downlink] = field(default_factory=deque)
    to_acknowledge: Downlink | None = None


class TtsV3:
    """See the module. `downlinks` counts what was put into queues."""

    def __init__(
        self,
        devices: list[Device],
        callbacks: Callbacks,
        clock: Clock,
        *,
        application: str,
        key: str,
        window_s: float,
        requests_a_minute: int = 6_000,
    ) -> None:
        """Make it. `window_s` after an uplink its device listens; `key` is that of the API."""
        self.callbacks = callbacks
        self._clock = clock
        self._application = application
        self._window_s = window_s
        self._api = TtsV3Api(key=key, requests_a_minute=requests_a_minute)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.downlinks = 0
        self._sessions = {
            device.id: _Session(
                device, f"{0x70B3D57ED0020000 + number:016X}", f"{0x260B0000 + number:08X}"
            )
            for number, device in enumerate(devices, 1)
        }

    def serve(self, app: web.Application) -> None:
        """Add its addresses to the HTTP server."""
        place = f"{PATH}/api/v3/as/applications/{{application}}/devices/{{device}}/down"
        app.router.add_post(f"{place}/{{operation}}", self._down)
        app.router.add_get(place, self._list)

    def name(self, device: Device) -> str:
        """Return the device's name in Funicular, by the dialect's template."""
        return f"{self._application}:{device.id}"

    def waiting(self, device: Device) -> int:
        """Return how many downlinks wait for a device."""
        return len(self._sessions[device.id].queue)

    async def join(self, device: Device) -> None:
        """Let a device join: a new session, its counters at zero."""
        session = self._sessions[device.id]
        session.session_key_id = b64encode(secrets.token_bytes(16)).decode()
        session.f_cnt = session.f_cnt_down = session.last_sent = 0
        await self._tell(
            session,
            [f"as:up:{ulid()}"],
            join_accept={"session_key_id": session.session_key_id, "received_at": timestamp()},
        )

    async def uplink(self, device: Device) -> None:
        """Let a device report; hand it a downlink in its receive window."""
        session = self._sessions[device.id]
        if not session.session_key_id:
            await self.join(device)
        payload = device.report(self._clock.minute())
        message = self._up(session, payload)
        session.f_cnt += 1
        confirmed, session.to_acknowledge = session.to_acknowledge, None
        if confirmed is not None:
            self._tell_later(session, "downlink_ack", confirmed)
        told = self._tell(
            session, [f"as:up:{ulid()}", f"gs:uplink:{ulid()}"], uplink_message=message
        )
        await asyncio.gather(told, self._window(session))

    async def close(self) -> None:
        """Give up the webhooks that are under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _window(self, session: _Session) -> None:
        await asyncio.sleep(self._window_s)
        if not session.queue:
            return
        downlink = session.queue.popleft()
        session.device.receive(self._clock.minute(), downlink.payload)
        session.last_sent = downlink.f_cnt
        if downlink.confirmed:
            session.to_acknowledge = downlink
        await self._tell(
            session,
            downlink.correlation_ids,
            downlink_sent=downlink.document(session.session_key_id),
        )

    async def _tell(self, session: _Session, correlation_ids: list[str], **message: Any) -> None:
        body = {
            "end_device_ids": {
                "device_id": session.device.id,
                "application_ids": {"application_id": self._application},
                "dev_eui": session.dev_eui,
                "join_eui": "800000000000000C",
                "dev_addr": session.dev_addr,
            },
            "correlation_ids": correlation_ids,
            "received_at": timestamp(),
            **message,
        }
        await self.callbacks.post(orjson.dumps(body))

    def _tell_later(self, session: _Session, kind: str, downlink: Downlink) -> None:
        """Post a report of a downlink beside what goes on."""
        document = downlink.document(session.session_key_id)
        task = asyncio.create_task(
            self._tell(session, downlink.correlation_ids, **{kind: document})
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _up(self, session: _Session, payload: bytes) -> dict[str, Any]:
        time_ = timestamp()
        ticks = time.monotonic_ns() // 1_000 % 2**32
        gateway = {
            "gateway_ids": {"gateway_id": "amsterdam-west", "eui": "9C5C8E00001A05C4"},
            "time": time_,
            "timestamp": ticks,
            "rssi": -50 - session.f_cnt % 40,
            "channel_rssi": -50 - session.f_cnt % 40,
            "snr": 8.2,
            "received_at": time_,
        }
        settings = {
            "data_rate": {
                "lora": {"bandwidth": 125000, "spreading_factor": 7, "coding_rate": "4/5"}
            },
            "frequency": "868300000",
            "timestamp": ticks,
            "time": time_,
        }
        message: dict[str, Any] = {
            "session_key_id": session.session_key_id,
            "f_port": 2,
            "frm_payload": b64encode(payload).decode(),
            "rx_metadata": [gateway],
            "settings": settings,
            "received_at": time_,
            "consumed_airtime": "0.061696s",
            "network_ids": {"net_id": "000013", "tenant_id": "acme", "cluster_id": "eu1"},
        }
        if session.f_cnt:
            message["f_cnt"] = session.f_cnt
        if session.last_sent:
            message["last_a_f_cnt_down"] = session.last_sent
        return message

    async def _down(self, request: web.Request) -> web.Response:
        operation = request.match_info["operation"]
        try:
            session = self._session_of(request)
            downlinks = self._api.read(
                operation, await request.read(), session.f_cnt_down, len(session.queue)
            )
        except Refusal as refusal:
            return self._api.refuse(refusal)
        if operation == "replace":
            session.queue.clear()
        for downlink in downlinks:
            downlink.correlation_ids.append(f"as:downlink:{ulid()}")
            session.queue.append(downlink)
            session.f_cnt_down = downlink.f_cnt
            self._tell_later(session, "downlink_queued", downlink)
        self.downlinks += len(downlinks)
        return web.json_response({}, headers=self._api.limit_headers())

    async def _list(self, request: web.Request) -> web.Response:
        try:
            session = self._session_of(request)
        except Refusal as refusal:
            return self._api.refuse(refusal)
        documents = [downlink.document(session.session_key_id) for downlink in session.queue]
        answer = {"downlinks": documents} if documents else {}
        return web.json_response(answer, headers=self._api.limit_headers())

    def _session_of(self, request: web.Request) -> _Session:
        """Return the device's session. Refusal: the key, the limit, the device."""
        self._api.admit(request.headers.get("Authorization", ""))
        application, device = request.match_info["application"], request.match_info["device"]
        session = self._sessions.get(device) if application == self._application else None
        if session is None:
            raise Refusal("device_not_found", f"device `{application}.{device}` not found")
        if not session.session_key_id:
            raise Refusal("no_device_session", "no device session; check device activation")
        return session


def ulid() -> str:
    """Return a new ULID: 48 bits of time, 80 random ones, in Crockford's base 32."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
