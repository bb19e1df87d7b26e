"""A simulated Sigfox with its callbacks.

In: meters' reports, and the answers to BIDIR callbacks. Out: DATA BIDIR callbacks (`ack` true
where the device listens), and an ACKNOWLEDGE for each that could bring a downlink. A callback that
failed is tried 3 times more, 1, 2 and 4 simulated minutes later, with the same body.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections import Counter

import orjson

from pipeline.demo.callbacks import Answer, Callbacks, Clock
from pipeline.demo.fleet import Meter

ANSWER_TIMEOUT_S = 10.0
RETRIES_AFTER_MINUTES = (1, 2, 4)
DOWNLINK_BYTES = 8
ACKED, NO_ANSWER, INVALID_PAYLOAD = 0, 1, 2
_SAYS = {ACKED: "Acked", NO_ANSWER: "No answer", INVALID_PAYLOAD: "Invalid payload"}


class Sigfox:
    """See the module. `outcomes` counts how callbacks went: answered with data, empty, given up."""

    def __init__(self, callbacks: Callbacks, clock: Clock) -> None:
        self.callbacks = callbacks
        self._clock = clock
        self._sequence: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter(downlinks=0, repeated=0, given_up=0)

    def name(self, device: Meter) -> str:
        """Return the device's name in Funicular, by the dialect's template."""
        return device.id

    async def uplink(self, device: Meter) -> None:
        """Let a meter report; where it listens, give it what the answer brings."""
        payload = device.report(self._clock.minute())
        asks = device.asks
        answer = await self._call(self._data(device, payload, asks=asks))
        if not asks:
            return
        info = self._hand_over(device, answer)
        if info is not None:
            await self._call(_acknowledge(device, info))

    def _hand_over(self, device: Meter, answer: Answer) -> int | None:
        """Return the infoCode to report, None where there was nothing to hand over."""
        if not answer.accepted:
            return NO_ANSWER
        if answer.status == 204:
            return None
        try:
            told = orjson.loads(answer.body)[device.id]
            if told.get("noData"):
                return None
            payload = bytes.fromhex(told["downlinkData"])
            if len(payload) != DOWNLINK_BYTES:
                return INVALID_PAYLOAD
            device.receive(self._clock.minute(), payload)
        except (ValueError, TypeError, KeyError, AttributeError):
            return INVALID_PAYLOAD
        self.outcomes["downlinks"] += 1
        return ACKED

    async def _call(self, body: bytes) -> Answer:
        """Make a callback, again where it fails."""
        answer = await self.callbacks.post(body)
        for minutes in RETRIES_AFTER_MINUTES:
            if answer.accepted:
                return answer
            await asyncio.sleep(minutes * self._clock.minute_s)
            self.outcomes["repeated"] += 1
            answer = await self.callbacks.post(body)
        if not answer.accepted:
            self.outcomes["given_up"] += 1
        return answer

    def _data(self, device: Meter, payload: bytes, *, asks: bool) -> bytes:
        self._sequence[device.id] += 1
        number = self._sequence[device.id]
        callback = {
            "device": device.id,
            "time": str(int(time.time())),
            "data": payload.hex(),
            "seqNumber": str(number % 4096),
            "ack": "true" if asks else "false",
            "longPolling": "false",
            "rssi": f"-{110 + number % 20}.00",
            "snr": "15.25",
            "station": "0B3C",
            "duplicate": "false",
            "deviceTypeId": "5d8cdc8fea06bb6e41234567",
            "lqi": "GOOD",
        }
        return orjson.dumps(callback)


def _acknowledge(device: Meter, info: int) -> bytes:
    callback = {
        "device": device.id,
        "time": str(int(time.time())),
        "infoCode": str(info),
        "infoMessage": _SAYS[info],
        "downlinkAck": "true" if info == ACKED else "false",
        "downlinkOverusage": "false",
    }
    return orjson.dumps(callback)


def authorization(key: str) -> dict[str, str]:
    """Return the headers of callbacks whose URL holds user `sigfox` and a key."""
    basic = b64encode(f"sigfox:{key}".encode()).decode()
    return {"content-type": "application/json", "authorization": f"Basic {basic}"}
