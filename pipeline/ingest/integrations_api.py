"""The API's view of integrations, `GET /api/v1/tenants/{tenant}/integrations`: how each does in
this process. A worker knows its own connections alone; `/metrics` of all of them have the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote

import msgspec

from pipeline.model.http import Response

from .access import Access
from .problem import JSON, problem
from .source_health import IntegrationStatus

_encode = msgspec.json.Encoder().encode


class IntegrationsApi:
    """Answers without a body to read. `status` gives the integrations of a tenant."""

    def __init__(
        self, access: Access, status: Callable[[str], Sequence[IntegrationStatus]]
    ) -> None:
        self._access = access
        self._status = status

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], peer: str
    ) -> Response | None:
        """Return the answer, or the refusal; None: the address is another's. `path` is
        percent-encoded; `peer` the address that the request comes from.
        """
        parts = path.split("/")
        if len(parts) != 6 or parts[1:4] != ["api", "v1", "tenants"] or parts[5] != "integrations":
            return None
        if method != "GET":
            return problem(405, "method", "only GET is possible here", headers={"allow": "GET"})
        tenant = unquote(parts[4])
        by = self._access.check(headers, peer, tenant, "read")
        if isinstance(by, Response):
            return by
        return Response(200, _encode({"integrations": self._status(tenant)}), JSON)
