"""Plain HTTP: JSON, text or bytes from devices and platforms without a dialect of their own.

The device is named by an option (`device_header`, `device_query`, `device_field`) or, without one,
by the converter or by `deviceName` in a body of ThingsBoard's shape.

`payload` is the body as it came; `fields` is a JSON object, a form, or the query of a request
without a body. `metadata`: `method`, `content_type`, `query` (parameters by name), `headers` (those
that the door keeps). A synchronous integration answers with the downlinks, others with 202.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import parse_qsl

import orjson
from pydantic import Field, SecretStr, field_validator

from pipeline.errors import MessageError
from pipeline.integrations.dialect import DeviceTemplate, Options, path_segment
from pipeline.integrations.document import bad_field, digest, parse, rfc3339
from pipeline.integrations.lorawan import USER_AGENT
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request, Response
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link, Uplink

# What one downlink may carry at all; `downlink_bytes_max` may lower it. Kafka's default for a
# record is 1 MiB, and a downlink stands in base64 in several records.
DOWNLINK_BYTES_MAX = 256 * 1024
FORM_FIELDS_MAX = 1000
REPEAT_KEY_LENGTH_MAX = 64  # longer ones are hashed; keys stay in the device's state for a while

_Kind = Literal["json", "text", "binary", "form"]


class HttpOptions(Options):
    """How to read requests and how to hand over downlinks.

    `format`: `auto` goes by the content type; without one, a body that starts as JSON is JSON.
    `device_header`, `device_query`, `device_field` (dotted path into the JSON; list places count
    from 0) name the device: the first that is set and has a value.
    `repeat_header`, `repeat_field`: where the sender puts a key that stays the same when it
    repeats a request (`idempotency-key`, `webhook-id`).
    `answer`: `json` is `{"device", "downlinks": [{"id", "f_port", "payload" (base64), "fields"}]}`,
    or a list of these for several devices; `binary` is the bytes of the one downlink; `auto` is
    `binary` where the request was, else `json`.
    `downlink_url`: where downlinks of an asynchronous integration are posted; `{device_id}` is the
    device. `downlink_format` `binary` posts the bytes alone.
    """

    format: Literal["auto", "json", "text", "binary"] = "auto"
    device_header: str | None = None
    device_query: str | None = None
    device_field: str | None = None
    repeat_header: str | None = None
    repeat_field: str | None = None
    answer: Literal["auto", "json", "binary"] = "auto"
    downlink_url: SecretStr | None = None
    downlink_headers: dict[str, SecretStr] = Field(default_factory=dict)
    downlink_format: Literal["json", "binary"] = "json"
    downlink_bytes_max: int = Field(default=DOWNLINK_BYTES_MAX, ge=1, le=DOWNLINK_BYTES_MAX)

    @field_validator("device_header", "repeat_header")
    @classmethod
    def _lower(cls, name: str | None) -> str | None:
        return name and name.lower()

    @field_validator("downlink_url")
    @classmethod
    def _is_a_url(cls, url: SecretStr | None) -> SecretStr | None:
        text = url.get_secret_value() if url else ""
        if text and (not text.startswith(("http://", "https://")) or not text.isprintable()):
            raise ValueError("must be a URL as https://example.com/devices/{device_id}")
        return url if text else None


class Http:
    """The dialect; see the module."""

    name = "http"
    synchronous = False
    contract = "thingsboard"
    device_template = "{device_id}"
    device_variables = ("device_id",)
    has_f_port = False
    takes_fields = True
    # Senders with a repeat key (webhooks) try for hours; most of their tries fall into the first.
    repeat_window_s = 3600
    answer_timeout_s = 5.0
    options = HttpOptions

    def read(self, request: Request, options: HttpOptions, device_template: str) -> list[Uplink]:
        """Return the one message; `device` is None where no option names it. As the port says."""
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        kind = _kind(request, content_type, options)
        document = _document(request, kind)
        device_id = _device_id(request, document, options)
        metadata: dict[str, Any] = {"method": request.method}
        if content_type:
            metadata["content_type"] = content_type
        if request.query:
            metadata["query"] = request.query
        if request.headers:
            metadata["headers"] = request.headers
        uplink = Uplink(
            device=DeviceTemplate.fill(device_template, {"device_id": device_id})
            if device_id
            else None,
            payload=request.body,
            fields=document if type(document) is dict else None,
            metadata=metadata,
            link=Link(device_id=device_id) if device_id else None,
            repeat_key=_repeat_key(request, document, options),
            answerable=True,
        )
        return [uplink]

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError `payload_length`: nothing to send, or too much."""
        if downlink.payload is None and downlink.fields is None:
            raise MessageError("the downlink has neither bytes nor fields", code="payload_length")
        _check_length(downlink, DOWNLINK_BYTES_MAX)

    def send(self, downlink: Downlink, link: Link, options: HttpOptions) -> Call:
        """Return the POST to `downlink_url`. MessageError: `no_link`, `payload_length`."""
        if options.downlink_url is None:
            raise MessageError(
                "the integration's options have no `downlink_url`, and it is not synchronous:"
                " set one of the two",
                code="no_link",
            )
        _check_length(downlink, options.downlink_bytes_max)
        device_id = path_segment(link.device_id or downlink.device)
        url = options.downlink_url.get_secret_value().replace("{device_id}", device_id)
        if options.downlink_format == "binary" and downlink.payload is not None:
            body, content_type = downlink.payload, "application/octet-stream"
        else:
            said = {"device": link.device_id or downlink.device, "confirmed": downlink.confirmed}
            body = orjson.dumps({**said, **_in_json(downlink.id, downlink)})
            content_type = "application/json"
        headers = {
            "content-type": content_type,
            "user-agent": USER_AGENT,
            "idempotency-key": downlink.id,
        }
        for name, value in options.downlink_headers.items():
            headers[name.lower()] = value.get_secret_value()
        return Call(url=url, body=body, headers=headers)

    def answer(self, replies: Sequence[Reply], request: Request, options: HttpOptions) -> Response:
        """Return the downlinks (200); 204 where it is known that there is none; else 202.

        202 says that the uplink is durable: to a request that waits for nothing, and to one whose
        time ran out, when nobody knows whether something waits for the device.
        """
        if not replies:
            return Response(
                status=202,
                body=b'{"accepted":true}',
                headers={"content-type": "application/json"},
            )
        carrying = [
            reply
            for reply in replies
            if reply.downlink_id or reply.payload is not None or reply.fields is not None
        ]
        if not carrying:
            return Response(status=204)
        if len(carrying) == 1 and carrying[0].payload is not None and _binary(request, options):
            return Response(
                status=200,
                body=carrying[0].payload,
                headers={"content-type": "application/octet-stream"},
            )
        devices: dict[str, list[dict[str, Any]]] = {}
        for reply in carrying:
            entry = _in_json(reply.downlink_id, reply)
            devices.setdefault(reply.device, []).append(entry)
        answers = [{"device": name, "downlinks": entries} for name, entries in devices.items()]
        return Response(
            status=200,
            body=orjson.dumps(answers[0] if len(answers) == 1 else answers),
            headers={"content-type": "application/json"},
        )

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return a flat JSON body: `device_field: device`, or a converter, names its device."""
        body = {
            "device": device_id,
            "type": "sample",
            "time": rfc3339(now_ms),
            "counter": counter,
            "payload": payload.hex(),
        }
        return Request(body=orjson.dumps(body), headers={"content-type": "application/json"})


def _kind(request: Request, content_type: str, options: HttpOptions) -> _Kind:
    if options.format != "auto":
        return options.format
    if content_type == "application/json" or content_type.endswith("+json"):
        return "json"
    if content_type == "application/x-www-form-urlencoded":
        return "form"
    if content_type.startswith("text/"):
        return "text"
    if not content_type and request.body.lstrip()[:1] in (b"{", b"["):
        return "json"
    return "binary"


def _document(request: Request, kind: _Kind) -> Any:
    """Return what the body says where that can be seen: a JSON object or array, a form, a query."""
    if not request.body:
        return dict(request.query) if request.query else None
    if kind == "json":
        value = parse(request.body)
        if type(value) not in (dict, list):
            raise MessageError("the body must be a JSON object or array", code="not_json", field="")
        return value
    if kind in ("text", "form"):
        try:
            text = request.body.decode()
        except UnicodeDecodeError as fault:
            raise MessageError(
                f"the body is not UTF-8: byte {fault.start}", code="not_utf8"
            ) from None
        if kind == "form":
            return _form(text)
    return None


def _form(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=FORM_FIELDS_MAX))
    except ValueError:
        raise MessageError(
            f"the form has more than {FORM_FIELDS_MAX} fields", code="field", field=""
        ) from None


def _device_id(request: Request, document: Any, options: HttpOptions) -> str:
    """Return the device's id by the options; empty where none of them is set."""
    asked = []
    if options.device_header:
        asked.append(f"header `{options.device_header}`")
        if value := request.headers.get(options.device_header, ""):
            return value
    if options.device_query:
        asked.append(f"query parameter `{options.device_query}`")
        if value := request.query.get(options.device_query, ""):
            return value
    if options.device_field:
        asked.append(f"field `{options.device_field}`")
        if value := _text_at(document, options.device_field):
            return value
    if asked:
        raise MessageError(
            f"the request does not name its device: it has no {' and no '.join(asked)}",
            code="device_missing",
            field=options.device_field or options.device_query or options.device_header,
        )
    return ""


def _text_at(document: Any, path: str) -> str:
    """Return the text or whole number at a dotted path; empty where there is none."""
    value = document
    for step in path.split("."):
        if type(value) is dict:
            value = value.get(step)
        elif type(value) is list and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return ""
    if value is None:
        return ""
    if type(value) not in (str, int):
        raise bad_field(path, "must be text or a whole number, to name the device or the message")
    return str(value)


def _repeat_key(request: Request, document: Any, options: HttpOptions) -> str:
    key = ""
    if options.repeat_header:
        key = request.headers.get(options.repeat_header, "")
    if not key and options.repeat_field:
        key = _text_at(document, options.repeat_field)
    return key if len(key) <= REPEAT_KEY_LENGTH_MAX else digest(key)


def _check_length(downlink: Downlink, limit: int) -> None:
    length = len(downlink.payload or b"")
    if length > limit:
        raise MessageError(
            f"the downlink has {length} bytes; {limit} are allowed",
            code="payload_length",
            field="payload",
            limit=limit,
        )


def _binary(request: Request, options: HttpOptions) -> bool:
    if options.answer != "auto":
        return options.answer == "binary"
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return _kind(request, content_type, options) == "binary" and bool(request.body)


def _in_json(downlink_id: str, carried: Downlink | Reply) -> dict[str, Any]:
    """Return one downlink as JSON has it: bytes in base64, without what it lacks."""
    said: dict[str, Any] = {"id": downlink_id}
    if carried.f_port is not None:
        said["f_port"] = carried.f_port
    if carried.payload is not None:
        said["payload"] = b64encode(carried.payload).decode()
    if carried.fields is not None:
        said["fields"] = carried.fields
    return said


DIALECT = Http()
