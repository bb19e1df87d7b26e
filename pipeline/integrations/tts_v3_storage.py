"""The Things Stack's storage integration: the uplinks that it keeps, as webhooks brought them.

Format: the storage integration's pages of The Things Stack: `GET
/api/v3/as/applications/{application}/packages/storage/uplink_message` answers a stream of JSON
documents, each in `{"result": …}`, or `{"error": …}` as the last one, separated by empty lines
without `data:`. Stored messages have no correlation ids.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import orjson

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Kept, path_segment
from pipeline.integrations.document import parse, rfc3339, time_of
from pipeline.integrations.lorawan import USER_AGENT
from pipeline.model.http import Call, Request, Response

PAGE = 1_000
_SAID_LENGTH_MAX = 300


class TtsV3Storage:
    """The part of the dialect that its storage needs: `dialect.Stored`."""

    stored_page = PAGE

    def ask_stored(
        self,
        server: str,
        key: str,
        since_ms: int,
        now_ms: int,  # noqa: ARG002 - the port's shape
        options: Any,
    ) -> Call:
        """Return the request for what came since a moment, the oldest first."""
        asked = urlencode({"after": rfc3339(since_ms), "order": "received_at", "limit": PAGE})
        application = path_segment(options.application_id)
        path = f"/api/v3/as/applications/{application}/packages/storage/uplink_message"
        return Call(
            url=f"{server.removesuffix('/api/v3')}{path}?{asked}",
            method="GET",
            headers={
                "authorization": f"Bearer {key}",
                "accept": "text/event-stream",
                "user-agent": USER_AGENT,
            },
        )

    def read_stored(self, response: Response, options: Any) -> list[Kept]:  # noqa: ARG002
        """Return what is kept, in its order. MessageError: the stream ended with an error."""
        found = []
        for line in response.body.splitlines():
            text = line.removeprefix(b"data:").strip()
            if text:
                found.append(_kept(text))
        return found


def _kept(text: bytes) -> Kept:
    """Return one message; what is no document goes on as it is, and ends as a dead letter."""
    try:
        document = parse(text)
    except MessageError:
        return Kept(Request(body=text), None)
    if type(document) is not dict:
        return Kept(Request(body=text), None)
    if "error" in document:
        error = document["error"]
        said = error.get("message") if type(error) is dict else error
        raise MessageError(
            f"the storage says: {str(said)[:_SAID_LENGTH_MAX]}", code="storage_error"
        )
    message = document.get("result")
    try:
        time_ms = time_of(message.get("received_at"), "") if type(message) is dict else None
    except MessageError:
        time_ms = None
    request = Request(body=orjson.dumps(message), headers={"content-type": "application/json"})
    return Kept(request, time_ms)
