"""The Things Network v2's storage integration: what it keeps, as the uplinks that it was.

Format: the storage integration's page (`https://<app>.data.thethingsnetwork.org`,
`/api/v2/query?last=…`): a list of objects with `device_id`, `raw` (base64), `time`, and the decoded
fields of all devices, null where a device has them not. Counter, port and gateways are not kept.
"""

from __future__ import annotations

from typing import Any

import orjson

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Kept
from pipeline.integrations.document import parse, time_of
from pipeline.integrations.lorawan import USER_AGENT
from pipeline.model.http import Call, Request, Response

KEPT_S_MAX = 7 * 86_400  # "last" takes no more
_OWN = frozenset({"device_id", "raw", "time"})


class TtnV2Storage:
    """The part of the dialect that its storage needs: `dialect.Stored`."""

    stored_page = 0  # it gives all at once

    def ask_stored(
        self,
        server: str,
        key: str,
        since_ms: int,
        now_ms: int,
        options: Any,  # noqa: ARG002 - the port's shape
    ) -> Call:
        """Return the request for what came since a moment."""
        seconds = min(KEPT_S_MAX, max(1, -(-(now_ms - since_ms) // 1_000)))
        return Call(
            url=f"{server}/api/v2/query?last={seconds}s",
            method="GET",
            headers={
                "authorization": key if key.startswith("key ") else f"key {key}",
                "accept": "application/json",
                "user-agent": USER_AGENT,
            },
        )

    def read_stored(self, response: Response, options: Any) -> list[Kept]:
        """Return what is kept, the oldest first. MessageError: the answer is no such list."""
        items = parse(response.body) if response.body.strip() else []  # 204: there is nothing
        if type(items) is not list:
            raise MessageError("the storage's answer must be a JSON array", code="not_json")
        found = [_kept(item, options.application_id) for item in items]
        return sorted(found, key=lambda each: each.time_ms or 0)


def _kept(item: Any, application_id: str) -> Kept:
    """Return one message; what is no object goes on as it is, and ends as a dead letter."""
    if type(item) is not dict:
        return Kept(Request(body=orjson.dumps(item)), None)
    fields = {name: item[name] for name in item if name not in _OWN and item[name] is not None}
    body: dict[str, Any] = {
        "app_id": application_id,
        "dev_id": item.get("device_id"),
        "payload_raw": item.get("raw"),
        "metadata": {"time": item.get("time")},
    }
    if fields:
        body["payload_fields"] = fields
    try:
        time_ms = time_of(item.get("time"), "time")
    except MessageError:
        time_ms = None
    request = Request(body=orjson.dumps(body), headers={"content-type": "application/json"})
    return Kept(request, time_ms)
