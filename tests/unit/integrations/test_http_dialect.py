"""Plain HTTP: bodies of all kinds, who names the device, answers, downlinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from pipeline.errors import MessageError
from pipeline.integrations.http import DIALECT, DOWNLINK_BYTES_MAX, HttpOptions
from pipeline.model.downlink import Downlink
from pipeline.model.http import Request
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link, Uplink

JSON = {"content-type": "application/json"}
BINARY = {"content-type": "application/octet-stream"}


def read(request: Request, template: str = "{device_id}", **options: Any) -> Uplink:
    (uplink,) = DIALECT.read(request, HttpOptions(**options), template)
    return uplink


def test_json_object() -> None:
    """A JSON object's bytes are the payload, its values the fields; nobody named the device."""
    request = Request(body=b'{"t": 21.5}', headers=JSON, query={"site": "a"})
    uplink = read(request)

    assert uplink == Uplink(
        device=None,
        payload=b'{"t": 21.5}',
        fields={"t": 21.5},
        metadata={
            "method": "POST",
            "content_type": "application/json",
            "query": {"site": "a"},
            "headers": JSON,
        },
        answerable=True,
    )


@pytest.mark.parametrize(
    ("body", "headers", "fields"),
    [
        (b'{"a": 1}', {}, {"a": 1}),
        (b'{"a": 1}', {"content-type": "application/vnd.acme+json; charset=utf-8"}, {"a": 1}),
        (b'[{"a": 1}]', JSON, None),
        (b"a=1&b=x%20y&c=", {"content-type": "application/x-www-form-urlencoded"},
         {"a": "1", "b": "x y", "c": ""}),
        (b'{"a": 1}', {"content-type": "text/plain"}, None),
        (b'{"a": 1}', BINARY, None),
        (b"\x00\xff", BINARY, None),
        (b"\x00\xff", {}, None),
    ],
)  # fmt: skip
def test_kinds_of_bodies(body: bytes, headers: dict[str, str], fields: Any) -> None:
    """The content type says what a body is; without one, a body that starts as JSON is JSON."""
    uplink = read(Request(body=body, headers=headers))

    assert uplink.payload == body
    assert uplink.fields == fields


def test_query_without_a_body() -> None:
    """A GET's query parameters are its fields."""
    uplink = read(Request(body=b"", method="GET", query={"t": "21"}))

    assert (uplink.payload, uplink.fields) == (b"", {"t": "21"})
    assert uplink.metadata["method"] == "GET"


@pytest.mark.parametrize(
    ("body", "headers", "options", "code"),
    [
        (b"{", JSON, {}, "not_json"),
        (b"5", JSON, {}, "not_json"),
        (b'{"a": NaN}', JSON, {}, "not_json"),
        (b"[" * 2000, JSON, {}, "too_deep"),
        (b"abc", BINARY, {"format": "json"}, "not_json"),
        (b"\xff", {"content-type": "text/plain"}, {}, "not_utf8"),
        (b"\xff", BINARY, {"format": "text"}, "not_utf8"),
        (b"a=1&" * 2000, {"content-type": "application/x-www-form-urlencoded"}, {}, "field"),
    ],
)
def test_bodies_that_are_not_what_they_say(
    body: bytes, headers: dict[str, str], options: dict[str, Any], code: str
) -> None:
    """A body that is not what its content type or the options say is refused."""
    with pytest.raises(MessageError) as caught:
        read(Request(body=body, headers=headers), **options)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "options",
    [
        {"device_header": "X-Device"},
        {"device_query": "dev"},
        {"device_field": "meta.ids.0"},
        {"device_field": "meta.number"},
        {"device_header": "x-none", "device_query": "none", "device_field": "meta.ids.0"},
    ],
)
def test_options_name_the_device(options: dict[str, str]) -> None:
    """Header, query parameter or field name the device: the first that has a value."""
    body = {"meta": {"ids": ["17"], "number": 17}}
    request = Request(
        body=orjson.dumps(body), headers={**JSON, "x-device": "17"}, query={"dev": "17"}
    )
    uplink = read(request, "plant:{device_id}", **options)

    assert uplink.device == "plant:17"
    assert uplink.link == Link(device_id="17")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device_header": "x-device"}, "no header `x-device`"),
        ({"device_field": "a.b"}, "no field `a.b`"),
        ({"device_query": "d", "device_field": "l.9"}, "no query parameter `d` and no field"),
    ],
)
def test_missing_device_is_said(options: dict[str, str], words: str) -> None:
    """Where nobody names the device as the options want it, the error says where it looked."""
    with pytest.raises(MessageError, match=words) as caught:
        read(Request(body=b'{"a": 1, "l": []}', headers=JSON), **options)
    assert caught.value.code == "device_missing"


def test_a_device_is_named_by_text() -> None:
    """An object or a fraction is no name."""
    for value in (b'{"d": {}}', b'{"d": 1.5}', b'{"d": true}'):
        with pytest.raises(MessageError, match="`d` must be text or a whole number"):
            read(Request(body=value, headers=JSON), device_field="d")


def test_repeat_keys() -> None:
    """The sender's own key is the repeat key; a long one is hashed; without an option is none."""
    request = Request(body=b'{"id": 5}', headers={**JSON, "webhook-id": "msg_1"})
    long = Request(body=b"{}", headers={**JSON, "webhook-id": "x" * 500})

    assert read(request).repeat_key == ""
    assert read(request, repeat_header="Webhook-Id").repeat_key == "msg_1"
    assert read(request, repeat_field="id").repeat_key == "5"
    assert 0 < len(read(long, repeat_header="webhook-id").repeat_key) <= 64


def reply(device: str = "d", **more: Any) -> Reply:
    return Reply("r", device=device, **more)


def answer(replies: list[Reply], request: Request | None = None, **options: Any) -> Any:
    return DIALECT.answer(replies, request or Request(b"{}", headers=JSON), HttpOptions(**options))


def test_accepted() -> None:
    """Who does not wait, or waited in vain, is told that the uplink is safe."""
    response = answer([])

    assert (response.status, response.body) == (202, b'{"accepted":true}')


def test_nothing_for_the_device() -> None:
    """Where it is known that nothing waits: 204."""
    assert answer([reply()]).status == 204


def test_answer_in_json() -> None:
    """A downlink is told with its id, port, bytes and fields."""
    response = answer([reply(downlink_id="d1", payload=b"\xbe\xef", f_port=2, fields={"a": 1})])

    assert response.status == 200
    assert orjson.loads(response.body) == {
        "device": "d",
        "downlinks": [{"id": "d1", "f_port": 2, "payload": "vu8=", "fields": {"a": 1}}],
    }


def test_answer_to_several_devices() -> None:
    """Several devices are told in a list; those without a downlink are left out."""
    replies = [reply("a", downlink_id="1", fields={}), reply("b"), reply("c", downlink_id="2",
               payload=b"")]  # fmt: skip

    assert orjson.loads(answer(replies).body) == [
        {"device": "a", "downlinks": [{"id": "1", "fields": {}}]},
        {"device": "c", "downlinks": [{"id": "2", "payload": ""}]},
    ]


def test_answer_in_bytes() -> None:
    """A binary request is answered in bytes, where a single downlink has them."""
    one = [reply(downlink_id="1", payload=b"\xbe")]
    binary = Request(b"\x01", headers=BINARY)

    assert answer(one, binary).body == b"\xbe"
    assert answer(one, binary).headers == BINARY
    assert answer(one, answer="binary").body == b"\xbe"
    assert answer(one, binary, answer="json").body.startswith(b"{")
    assert answer([reply(downlink_id="1", fields={"a": 1})], binary).body.startswith(b"{")
    assert answer([*one, reply("e", downlink_id="2", payload=b"")], binary).body[:1] == b"["


OPTIONS = HttpOptions.model_validate(
    {
        "downlink_url": "https://app.example/devices/{device_id}/down?key=s3cret",
        "downlink_headers": {"X-Token": "t0ken"},
    }
)


def test_send(downlink: Callable[..., Downlink]) -> None:
    """A downlink is posted to the device's own address, with an idempotency key."""
    call = DIALECT.send(downlink(confirmed=True), Link(device_id="a/b c"), OPTIONS)

    assert (call.method, call.url) == (
        "POST", "https://app.example/devices/a%2Fb%20c/down?key=s3cret",
    )  # fmt: skip
    assert call.headers["x-token"] == "t0ken"
    assert call.headers["idempotency-key"] == "0197.d1"
    assert orjson.loads(call.body) == {
        "device": "a/b c",
        "confirmed": True,
        "id": "0197.d1",
        "f_port": 15,
        "payload": "vu8=",
    }
    assert "s3cret" not in repr(OPTIONS)
    assert "t0ken" not in repr(OPTIONS)


def test_send_bytes(downlink: Callable[..., Downlink]) -> None:
    """`binary` posts the bytes alone; where there are only fields, JSON."""
    options = OPTIONS.model_copy(update={"downlink_format": "binary"})

    assert DIALECT.send(downlink(), Link(), options).body == b"\xbe\xef"
    fields = DIALECT.send(downlink(payload=None, fields={"a": 1}), Link(), options)
    assert orjson.loads(fields.body)["fields"] == {"a": 1}


def test_no_way_back_is_said(downlink: Callable[..., Downlink]) -> None:
    """Without `downlink_url`, the error says what to set."""
    with pytest.raises(MessageError, match="`downlink_url`") as caught:
        DIALECT.send(downlink(), Link(device_id="d"), HttpOptions())
    assert caught.value.code == "no_link"


def test_too_long_or_empty(downlink: Callable[..., Downlink]) -> None:
    """A downlink over the limit, or with nothing in it, is refused."""
    DIALECT.check(downlink(payload=None, fields={}))
    DIALECT.check(downlink(payload=bytes(DOWNLINK_BYTES_MAX)))
    for changes in ({"payload": bytes(DOWNLINK_BYTES_MAX + 1)}, {"payload": None}):
        with pytest.raises(MessageError) as caught:
            DIALECT.check(downlink(**changes))
        assert caught.value.code == "payload_length"
    small = OPTIONS.model_copy(update={"downlink_bytes_max": 1})
    with pytest.raises(MessageError, match="1 are allowed"):
        DIALECT.send(downlink(), Link(), small)


@pytest.mark.parametrize(
    "options",
    [{"downlink_url": "app.example"}, {"format": "xml"}, {"downlink_bytes_max": 10**9},
     {"device": "x"}],
)  # fmt: skip
def test_options_are_checked(options: dict[str, Any]) -> None:
    """Options that cannot work are refused when the rules are read."""
    with pytest.raises(ValidationError):
        HttpOptions.model_validate(options)
