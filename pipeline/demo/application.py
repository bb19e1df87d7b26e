"""The simulated application: takes what rules send it, and knows a repeat by its key.

In: `POST /messages`, from the sink `application`. Out: counts and the newest messages, for
`/state`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import orjson
from aiohttp import web

KEYS_MAX = 100_000  # what it remembers to know repeats by
NEWEST_MAX = 20


class Application:
    """See the module. `messages` are told apart by Idempotency-Key; `repeats` came again."""

    def __init__(self) -> None:
        self.messages = 0
        self.repeats = 0
        self.newest: deque[Any] = deque(maxlen=NEWEST_MAX)
        self._keys: OrderedDict[str, None] = OrderedDict()

    def serve(self, app: web.Application) -> None:
        """Add its address to the HTTP server."""
        app.router.add_post("/messages", self._take)

    async def _take(self, request: web.Request) -> web.Response:
        key = request.headers.get("Idempotency-Key", "")
        try:
            message = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            return web.json_response({"error": "the body is not JSON"}, status=400)
        if key and key in self._keys:
            self._keys.move_to_end(key)
            self.repeats += 1
            return web.json_response({"repeat": True})
        if key:
            self._keys[key] = None
            if len(self._keys) > KEYS_MAX:
                self._keys.popitem(last=False)
        self.messages += 1
        self.newest.append(message)
        return web.json_response({"repeat": False})
