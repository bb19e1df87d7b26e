"""A record of a foreign Kafka as a request: where it was, what its key says, what is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ingest.transports.kafka_record import (
    HEADERS_MAX,
    KEY_LENGTH_MAX,
    headers_of,
    request_of,
)
from pipeline.integrations.dialect import dialects
from pipeline.model.http import SOURCE_KEY
from pipeline.rulebook.book import Integration
from tests.made_integration import made_integration

EUI = "0a0b0c0d0e0f0102"


@dataclass
class FakeRecord:
    """A record as the client gives it."""

    key: bytes | None = None
    value: bytes | None = b"{}"
    headers: list[tuple[str, bytes | None]] = field(default_factory=list)
    topic: str = "t"
    partition: int = 3
    offset: int = 7


def integration(dialect: str, **options: Any) -> Integration:
    chosen = dialects()[dialect]
    return made_integration(
        name="barn",
        dialect=chosen,
        options=chosen.options(**options),
        device_template=chosen.device_template,
    )


def test_the_query_says_where_it_was() -> None:
    """Topic, partition, offset and key stand in the query; cluster and place are its own key."""
    request = request_of(FakeRecord(key=b"dev1"), integration("http"), "plant")

    assert request is not None
    assert request.query == {"topic": "t", "partition": "3", "offset": "7", "key": "dev1"}
    assert request.headers == {SOURCE_KEY: "plant/t/3/7"}


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        (f"application.17c82e96-be03.device.{EUI}.event.up", []),
        (f"application/17c82e96-be03/device/{EUI}/event/up", []),
        (EUI, [("event", b"up")]),
        ("", [("event", b"up")]),
    ],
)
def test_chirpstacks_event_is_in_key_or_header(key: str, headers: list[Any]) -> None:
    """ChirpStack's own key says the event; where its template was changed, its header does."""
    record = FakeRecord(key=key.encode(), headers=headers)
    request = request_of(record, integration("chirpstack"), "c")

    assert request is not None
    assert request.query["event"] == "up"


def test_a_key_of_no_kind_is_passed_over() -> None:
    """With the dialect `mqtt` the key is the topic: what its template ignores is no request."""
    chosen = integration("mqtt", topic="plant/{device_id}/{kind}", kinds={"log": "ignore"})

    taken = request_of(FakeRecord(key=b"plant/d1/up"), chosen, "c")
    assert taken is not None
    assert taken.query["device_id"] == "d1"
    assert request_of(FakeRecord(key=b"plant/d1/log"), chosen, "c") is None
    assert request_of(FakeRecord(key=None), chosen, "c") is None


def test_a_key_that_is_no_topic_leaves_the_body() -> None:
    """Dialects whose body says all are read whatever the key is."""
    request = request_of(FakeRecord(key=b"dev1"), integration("tts_v3"), "c")

    assert request is not None
    assert request.body == b"{}"


def test_secrets_and_what_is_too_much_are_left_out() -> None:
    """Headers that hold others' secrets, that pose as ours, or that are over a limit do not go on;
    how many, is said.
    """
    headers = [
        ("Authorization", b"x"),
        (SOURCE_KEY, b"forged"),
        ("n" * 200, b"x"),
        ("long", b"x" * 2_000),
        ("", b"x"),
        *[(f"h{number}", b"x") for number in range(HEADERS_MAX + 2)],
        ("H0", b"last"),
        ("h1", None),
    ]
    kept, left_out = headers_of(headers)

    assert len(kept) == HEADERS_MAX
    assert (kept["h0"], kept["h1"], left_out) == ("last", "", 7)
    request = request_of(FakeRecord(headers=headers), integration("http"), "c")
    assert request is not None
    assert request.query["headers_left_out"] == "7"
    assert request.headers[SOURCE_KEY] == "c/t/3/7"


@given(
    key=st.none() | st.binary(max_size=3_000),
    value=st.none() | st.binary(max_size=100),
    headers=st.lists(st.tuples(st.text(max_size=50), st.none() | st.binary(max_size=50))),
    dialect=st.sampled_from(["chirpstack", "chirpstack_v3", "http", "mqtt", "ttn_v2", "tts_v3"]),
)
def test_any_record_makes_text(
    key: bytes | None, value: bytes | None, headers: list[Any], dialect: str
) -> None:
    """Whatever bytes a record has, its request is text that UTF-8 can hold, and bounded."""
    request = request_of(FakeRecord(key, value, headers), integration(dialect), "c")

    if request is not None:
        for text in (*request.query.values(), *request.headers.values()):
            text.encode()
        assert len(request.query.get("key", "")) <= KEY_LENGTH_MAX
