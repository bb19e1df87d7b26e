"""Downlinks as applications send them to The Things Network v2's HTTP integration.

In: `POST` or `PUT` `/{handler}/api/v2/down/{app_id}/{process_id}?key=…` with `dev_id`, `port`,
`confirmed`, `schedule` (`replace` unless it says `first` or `last`) and `payload_raw` (base64) or
`payload_fields` (for the converter's encoder). Out: 202 with the downlink's id.
The format is that of the v2 HTTP integration's page; what it answers is written nowhere, and
applications take any 2xx.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import unquote

import msgspec
import orjson
from msgspec import Meta

from pipeline.errors import MessageError
from pipeline.integrations.dialect import Queued
from pipeline.model.downlink import DownlinkRequest
from pipeline.model.http import Response

from .applications import Asked, Place
from .json_body import json_object
from .problem import JSON

_TAIL = ("api", "v2", "down")


class _Down(msgspec.Struct):
    """The body. Members that are not known are passed over, as there."""

    dev_id: Annotated[str, Meta(min_length=1, max_length=255)]
    port: Annotated[int, Meta(ge=0, le=255)] | None = None
    confirmed: bool | None = None
    schedule: Literal["replace", "first", "last", ""] | None = None
    payload_raw: bytes | None = None
    payload_fields: dict[str, Any] | None = None


class TtnV2Speech:
    """See the module, and `applications.Speech`."""

    dialect = "ttn_v2"
    prefix = ""

    def place(self, path: str) -> Place | None:
        """Return application and process of an address."""
        parts = path.split("/")
        if len(parts) != 7 or tuple(parts[2:5]) != _TAIL or not all(parts[1:]):
            return None
        return Place(unquote(parts[5]), "", unquote(parts[6]))

    def allowed(self, place: Place) -> tuple[str, ...]:  # noqa: ARG002 - the port's shape
        """Return POST and PUT."""
        return ("POST", "PUT")

    def key(self, query: Mapping[str, str]) -> str:
        """Return the query's `key`."""
        return query.get("key", "")

    def read(self, place: Place, body: bytes, source: str) -> Asked:  # noqa: ARG002
        """Return the one downlink."""
        try:
            down = msgspec.convert(json_object(body), _Down)
        except msgspec.ValidationError as error:
            said, _, where = str(error).partition(" - at `$")
            raise MessageError(said, code="field", field=where.strip(".`") or None) from None
        if down.payload_raw is None and down.payload_fields is None:
            raise MessageError(
                "give payload_raw (base64) or payload_fields (for the converter's encoder)",
                code="no_payload",
                field="payload_raw",
            )
        schedule = down.schedule or "replace"
        request = DownlinkRequest(
            payload=down.payload_raw,
            fields=down.payload_fields if down.payload_raw is None else None,
            f_port=down.port,
            confirmed=bool(down.confirmed),
            queue="first" if schedule == "first" else "last",
            source=source,
        )
        return Asked((request,), schedule == "replace", down.dev_id)

    def done(self, place: Place, ids: list[str]) -> Response:  # noqa: ARG002
        """Return 202 with the id, by which the downlink's life can be seen."""
        return Response(202, orjson.dumps({"id": ids[0] if ids else ""}), JSON)

    def listed(self, downlinks: list[dict[str, Any]], held: list[Queued]) -> Response:
        """Never asked for: the system has no address for it."""
        raise NotImplementedError

    def refused(self, response: Response) -> Response:
        """Return it as it is: what this system's errors look like is written nowhere."""
        return response
