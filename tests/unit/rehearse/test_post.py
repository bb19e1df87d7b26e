"""Uplinks that are posted to a Funicular, which is a function here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from pipeline.errors import UsageError
from pipeline.ingest.credentials import Credentials
from pipeline.model.http import Request
from pipeline.rehearse.post import Posted, door_of, integration_of, post
from pipeline.rehearse.proof import proof_of
from pipeline.rehearse.samples import request_of_body, samples
from pipeline.rulebook.book import Authentication


class Door:
    """Takes requests, and answers 202 or raises."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else 202
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer, json={"status": answer})


def sent(door: Door, integration: Any, **more: Any) -> list[Posted]:
    transport = httpx.MockTransport(door)
    uplinks = samples(integration, **more)
    return list(post(integration, "http://127.0.0.1:8080/", uplinks, transport=transport))


@pytest.mark.parametrize("name", ["lora", "stack", "fox", "web", "bare"])
def test_a_sample_passes_its_integrations_door(book: Any, name: str) -> None:
    """Whatever the dialect and the authentication: the door knows the secret, and the dialect
    reads the device and its bytes back.
    """
    integration, door = book.integrations[name], Door()

    (posted,) = sent(door, integration, device_id="1A2B", payload=b"\x07")

    assert (posted.ok, posted.status, posted.body) == (True, 202, b'{"status":202}')
    (request,) = door.requests
    assert request.url.path == f"/in/acme/{name}"
    headers = {key.lower(): value for key, value in request.headers.items()}
    assert Credentials(integration.authentication).proven(headers, dict(request.url.params))
    again = Request(body=request.content, headers=headers, query=dict(request.url.params))
    (uplink,) = integration.dialect.read(again, integration.options, "{device_id}")
    assert uplink.payload in (b"\x07", request.content)  # of plain HTTP it is the whole body
    assert b"1A2B" in request.content


@pytest.mark.parametrize(
    "authentication",
    [
        Authentication("open"),
        Authentication("header", "X-Key", "s"),
        Authentication("query", "key", "s"),
        Authentication("bearer", "", "s"),
        Authentication("basic", "Ada", "pass:word ü"),
    ],
)
def test_a_proof_is_what_the_door_expects(authentication: Authentication) -> None:
    """For each kind of authentication, and not for another secret."""
    headers, query = proof_of(authentication)

    assert Credentials(authentication).proven(headers, query)
    if authentication.kind != "open":
        other = Authentication(authentication.kind, authentication.name, "other")
        assert not Credentials(other).proven(headers, query)


def test_a_body_is_sent_as_it_is(book: Any) -> None:
    """A file's content goes as it is; its type is told by its beginning."""
    door = Door()

    sent(door, book.integrations["bare"], request=request_of_body(b' {"device": "a"}'))
    sent(door, book.integrations["bare"], request=request_of_body(b"\x00\x01"))
    sent(door, book.integrations["bare"], request=request_of_body(b"a", "text/plain"))

    assert [request.content for request in door.requests] == [b' {"device": "a"}', b"\0\1", b"a"]
    assert [request.headers["content-type"] for request in door.requests] == [
        *("application/json", "application/octet-stream", "text/plain")
    ]


def test_a_refusal_and_a_lost_connection_are_answers_too(book: Any) -> None:
    """What became of each request is told; those after it are sent all the same."""
    door = Door(401, httpx.ReadTimeout("late"), httpx.ReadError("gone"), httpx.ConnectError("no"))

    posted = sent(door, book.integrations["bare"], device_id="a", count=5)

    assert [(each.ok, each.status, each.error) for each in posted] == [
        (False, 401, ""),
        (False, 0, "no answer in time"),
        (False, 0, "the connection broke: ReadError"),
        (False, 0, "nobody listens any more"),
        (True, 202, ""),
    ]


def _refused(address: str, answer: Exception) -> Callable[[Any], list[Posted]]:
    def call(integration: Any) -> list[Posted]:
        transport = httpx.MockTransport(Door(answer))
        return list(
            post(integration, address, samples(integration, device_id="a"), transport=transport)
        )

    return call


def test_a_secret_may_have_any_letters(rules: Any) -> None:
    """A header goes as UTF-8, as the door reads it."""
    rules.write(
        "integrations/bare.yaml",
        "{dialect: http, authentication: {header: X-Key, value: schlüssel}}",
    )
    door = Door()

    sent(door, rules.book().integrations["bare"], device_id="a")

    assert (b"x-key", "schlüssel".encode()) in door.requests[0].headers.raw


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (_refused("http://127.0.0.1:9", httpx.ConnectError("no")), "funicular run"),
        (_refused("127.0.0.1:9", httpx.UnsupportedProtocol("no")), "http://127.0.0.1:8080"),
    ],
)
def test_where_nobody_is(book: Any, call: Callable[[Any], Any], said: str) -> None:
    """The user is told what to do."""
    with pytest.raises(UsageError, match=said):
        call(book.integrations["bare"])


def test_an_integration_that_is_not_there(book: Any) -> None:
    """A slip gets a suggestion, and the URL is written so that any name fits."""
    with pytest.raises(UsageError, match="did you mean `lora`"):
        integration_of(book, "lorra")
    assert door_of("http://h/", book.integrations["lora"]) == "http://h/in/acme/lora"
