"""The answer that says what was wrong: a code and a sentence in, a Response with JSON out.

The body is `{"error": {"code": …, "message": …, …}}`; further members help to mend the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from pipeline.errors import MessageError
from pipeline.model.http import Response

JSON = {"content-type": "application/json"}


def problem(
    status: int, code: str, message: str, /, *, headers: Mapping[str, str] = {}, **detail: Any
) -> Response:
    """Return an error's response. `detail` goes into the body; what is not JSON becomes text."""
    error = {"code": code, "message": message, **detail}
    body = orjson.dumps({"error": error}, default=str, option=orjson.OPT_NON_STR_KEYS)
    return Response(status=status, body=body, headers={**JSON, **headers})


def of_message(error: MessageError) -> Response:
    """Return the 400 of a request that is bad and stays bad; the error's detail says where."""
    detail = {name: value for name, value in error.detail.items() if name != "headers"}
    return problem(400, error.code, error.message, **detail)
