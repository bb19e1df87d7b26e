"""Who may use the API and the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pipeline.ingest.access import LOCAL, Access, is_local, is_loopback
from pipeline.model.http import Response

if TYPE_CHECKING:
    from conftest import World

HOST = {"host": "127.0.0.1:8080"}


def bearer(text: str) -> dict[str, str]:
    return {**HOST, "authorization": f"Bearer {text}"}


def status(answer: str | Response) -> int | str:
    return answer.status if isinstance(answer, Response) else answer


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
    ],
)
def test_what_loopback_is(host: str, expected: bool) -> None:
    """Only addresses that other machines cannot reach are loopback."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("headers", "peer", "expected"),
    [
        ({"host": "localhost:8080"}, "127.0.0.1", True),
        ({"host": "[::1]:8080"}, "::1", True),
        ({}, "127.0.0.1", True),
        ({**HOST, "origin": "http://localhost:3000"}, "127.0.0.1", True),
        ({**HOST}, "10.0.0.7", False),
        ({**HOST}, "", False),
        ({"host": "rebound.example:8080"}, "127.0.0.1", False),
        ({"host": "[nonsense"}, "127.0.0.1", False),
        ({**HOST, "origin": "https://evil.example"}, "127.0.0.1", False),
        ({**HOST, "origin": "null"}, "127.0.0.1", False),
        ({**HOST, "x-forwarded-for": "10.0.0.7"}, "127.0.0.1", False),
        ({**HOST, "forwarded": "for=10.0.0.7"}, "127.0.0.1", False),
    ],
)
def test_what_local_is(headers: dict[str, str], peer: str, expected: bool) -> None:
    """A request through a proxy, from another machine, or made by a page of the web is not
    local.
    """
    assert is_local(headers, peer) is expected


def test_without_keys_the_api_is_for_this_machine(world: World) -> None:
    """No key: open to local requests when bound to loopback, closed to others and when bound
    elsewhere, with a word on what to do.
    """

    async def work() -> None:
        assert world.access.check(HOST, "127.0.0.1", "acme", "admin") == LOCAL
        refused = world.access.check(HOST, "10.0.0.7", "acme", "read")
        assert status(refused) == 403
        assert b"funicular keys create" in refused.body
        elsewhere = Access(world.keys, "0.0.0.0")
        assert status(elsewhere.check(HOST, "127.0.0.1", "acme", "read")) == 403
        assert status(elsewhere.check_metrics(HOST, "127.0.0.1")) == LOCAL
        assert status(elsewhere.check_metrics(HOST, "10.0.0.7")) == 403

    world.run(work)


def test_with_a_key_everybody_needs_one(world: World) -> None:
    """As soon as there is a key, local requests need one too, also when it is revoked."""

    async def work() -> None:
        key, text = world.keys.create("acme", ["read"])
        assert status(world.access.check(HOST, "127.0.0.1", "acme", "read")) == 401
        assert status(world.access.check(bearer(text), "10.0.0.7", "acme", "read")) == (
            f"key {key.id}"
        )
        shown = {**HOST, "x-api-key": text}
        assert status(world.access.check(shown, "10.0.0.7", "acme", "read")) == f"key {key.id}"
        world.keys.revoke(key.id)
        assert status(world.access.check(bearer(text), "10.0.0.7", "acme", "read")) == 401
        assert status(world.access.check(HOST, "127.0.0.1", "acme", "read")) == 401

    world.run(work)


def test_a_key_has_its_tenant_and_its_rights(world: World) -> None:
    """Another tenant, and a right that the key has not, are 403; no right holds another."""

    async def work() -> None:
        _, text = world.keys.create("acme", ["write"])
        for tenant, right, expected in [
            ("acme", "read", 403),
            ("acme", "admin", 403),
            ("umbrella", "write", 403),
        ]:
            assert status(world.access.check(bearer(text), "::1", tenant, right)) == expected
        assert isinstance(world.access.check(bearer(text), "::1", "acme", "write"), str)
        assert status(world.access.check_metrics(bearer(text), "10.0.0.7")) == 403
        assert status(world.access.check_metrics(HOST, "127.0.0.1")) == LOCAL

    world.run(work)
