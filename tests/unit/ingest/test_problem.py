"""Answers that say what was wrong."""

from __future__ import annotations

import orjson

from pipeline.errors import MessageError
from pipeline.ingest.problem import of_message, problem


def test_a_message_error_says_what_and_where() -> None:
    """The 400 of a bad message has its code, its sentence, and its detail."""
    error = MessageError("payload_raw is not base64", code="base64", field="payload_raw", at=3)

    response = of_message(error)

    assert response.status == 400
    assert response.headers["content-type"] == "application/json"
    assert orjson.loads(response.body) == {
        "error": {
            "code": "base64",
            "message": "payload_raw is not base64",
            "field": "payload_raw",
            "at": 3,
        }
    }


def test_detail_that_is_no_json_becomes_text() -> None:
    """Whatever an error carries, the answer can be written."""
    error = MessageError("x", code="c", raw=b"\xff", odd={1: {2}}, headers="mine")

    said = orjson.loads(of_message(error).body)["error"]

    assert said["code"] == "c"
    assert said["odd"] == {"1": "{2}"}
    assert said["raw"] == "b'\\xff'"


def test_headers_are_added_to_the_json_type() -> None:
    """A refusal's own headers stand beside the content type."""
    response = problem(405, "method", "only GET", headers={"allow": "GET"})

    assert response.headers == {"content-type": "application/json", "allow": "GET"}
