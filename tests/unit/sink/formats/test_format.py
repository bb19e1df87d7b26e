"""`format:` as a user writes it, and the formats plain, CloudEvents and template."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ExpressionError, MessageError
from pipeline.model.delivery import Delivery, Origin
from pipeline.sink.formats.cloudevents import http_headers
from pipeline.sink.formats.format import NAMES, Format
from tests.unit.sink.formats.made import shape

NOW_MS = 1_760_000_000_000
BODY = {"n": 1, "é": [None, 1.5]}


def delivery(body: Any = BODY, **changes: Any) -> Delivery:
    origin = Origin(type="uplink", integration="in-1", f_port=3, payload=b"\x01")
    return Delivery("d1", "acme", "dev/1 é", "app", NOW_MS, body, origin=origin, **changes)


def fault(format_: Any) -> str:
    with pytest.raises(ValidationError) as found:
        TypeAdapter(Format).validate_python(format_)
    return str(found.value)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_stands_for_a_format(name: str) -> None:
    """Every name that may be written makes JSON of a delivery."""
    assert orjson.loads(shape(name, delivery()).body)


def test_faults_say_what_there_is() -> None:
    """An unknown name, none and two formats are refused, with the names that there are."""
    assert "there is no format `xml`; there are plain, cloudevents" in fault("xml")
    assert "name one format" in fault({})
    assert "name one format" in fault({"plain": {}, "tts_v3": {}})
    assert "set both, or none" in fault({"ttn_v2": {"url": "https://x.example"}})
    assert "must be an address as https://" in fault({"ttn_v2": {"url": "x", "key": "k"}})


def test_plain_is_the_body() -> None:
    """`plain` writes the body as JSON and nothing about it."""
    made = shape("plain", delivery())

    assert (orjson.loads(made.body), made.content_type) == (BODY, "application/json")
    assert not made.attributes
    assert not made.headers


def test_cloudevents_structured() -> None:
    """The event has CloudEvents' required attributes and the body as `data`."""
    made = shape("cloudevents", delivery())

    assert made.content_type == "application/cloudevents+json; charset=utf-8"
    assert orjson.loads(made.body) == {
        "specversion": "1.0",
        "id": "d1",
        "source": "/acme/in-1",
        "type": "funicular.uplink",
        "subject": "dev/1 é",
        "time": "2025-10-09T08:53:20.000Z",
        "datacontenttype": "application/json",
        "data": BODY,
    }


def test_cloudevents_binary() -> None:
    """The body is the data; the attributes stand beside it, and HTTP's are percent-encoded."""
    made = shape("cloudevents_binary", delivery())

    assert orjson.loads(made.body) == BODY
    assert made.content_type == "application/json"
    headers = http_headers(made.attributes)
    assert headers["ce-id"] == "d1"
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-subject"] == "dev/1%20%C3%A9"


def test_cloudevents_own_words() -> None:
    """`source` and `type` are the user's where they are given, without spaces."""
    made = shape({"cloudevents": {"source": "//x/y", "type": "com.x.reading"}}, delivery())

    event = orjson.loads(made.body)
    assert (event["source"], event["type"]) == ("//x/y", "com.x.reading")
    assert "visible characters" in fault({"cloudevents": {"source": "a b"}})


def test_a_template_is_any_json() -> None:
    """Strings hold expressions over body, device, time and origin; what is one keeps its type."""
    template = {
        "sensor": "${device}",
        "port": "${origin.f_port}",
        "text": "n is ${body.n}",
        "at": "${time}",
        "bytes": "${origin.payload}",
        "fixed": [1, "x"],
    }

    made = shape({"template": {"body": template}}, delivery())

    assert orjson.loads(made.body) == {
        "sensor": "dev/1 é",
        "port": 3,
        "text": "n is 1",
        "at": "2025-10-09T08:53:20.000Z",
        "bytes": "AQ==",
        "fixed": [1, "x"],
    }


def test_a_template_of_text() -> None:
    """Of a content type that is no JSON, the template's text is the body itself."""
    options = {"body": "${device},${body.n}\n", "content_type": "text/csv"}

    made = shape({"template": options}, delivery())

    assert (made.body.decode(), made.content_type) == ("dev/1 é,1\n", "text/csv")
    with pytest.raises(MessageError, match="must give text"):
        shape({"template": options | {"body": {"a": 1}}}, delivery())


def test_a_templates_faults() -> None:
    """An unknown name is found when it is read; a missing value is the message's fault."""
    assert "telemetry" in fault({"template": {"body": {"a": "${telemetry.x}"}}})
    with pytest.raises(ExpressionError):
        shape({"template": {"body": "${body.missing}"}}, delivery())


def test_a_body_nested_too_deeply_is_the_messages_fault() -> None:
    """No format dies of a body that JSON cannot hold."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]

    for name in ("plain", "cloudevents", "tts_v3"):
        with pytest.raises(MessageError, match="nested too deeply"):
            shape(name, delivery(deep))
