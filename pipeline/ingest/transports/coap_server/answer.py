"""The door's answer as CoAP says it (the codes of RFC 7252, 12.1.2)."""

from __future__ import annotations

import orjson
from aiocoap import Code, Message
from aiocoap.numbers import ContentFormat

from pipeline.model.http import Response

_CODES = {
    400: Code.BAD_REQUEST,
    401: Code.UNAUTHORIZED,
    403: Code.FORBIDDEN,
    404: Code.NOT_FOUND,
    413: Code.REQUEST_ENTITY_TOO_LARGE,
    429: Code.SERVICE_UNAVAILABLE,
    503: Code.SERVICE_UNAVAILABLE,
    504: Code.GATEWAY_TIMEOUT,
}
_OK = 200  # the one success that carries a downlink; 202 and 204 say that there is none


def response_of(answer: Response) -> Message:
    """Return the message: 2.04 of a success, with its body; of an error its text for people."""
    if answer.status < 300:
        message = Message(code=Code.CHANGED)
        if answer.status == _OK and answer.body:
            message.payload = answer.body
            message.opt.content_format = content_format(answer.headers.get("content-type", ""))
        return message
    code = _CODES.get(answer.status)
    if code is None:
        code = Code.BAD_REQUEST if answer.status < 500 else Code.INTERNAL_SERVER_ERROR
    message = Message(code=code, payload=_said(answer.body).encode())
    if retry_after := answer.headers.get("retry-after"):
        message.opt.max_age = int(retry_after)  # RFC 7252, 5.9.3.4: when to try again
    return message


def content_format(content_type: str) -> ContentFormat:
    """Return a media type's number; of one that has none, that of bytes."""
    try:
        return ContentFormat.by_media_type(content_type)
    except KeyError:
        return ContentFormat.OCTETSTREAM


def _said(body: bytes) -> str:
    try:
        message = orjson.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        return ""
    return str(message)
