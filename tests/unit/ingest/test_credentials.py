"""How integrations' secrets are checked."""

from __future__ import annotations

from base64 import b64encode

import pytest

from pipeline.ingest import credentials
from pipeline.ingest.credentials import NO_CREDENTIALS, Credentials
from pipeline.rulebook.book import Authentication


def basic(text: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(text.encode()).decode()}


RIGHT = [
    (Authentication("open"), {}, {}),
    (Authentication("header", "X-Key", "s"), {"x-key": "s"}, {}),
    (Authentication("header", "Authorization", "key ttn.s"), {"authorization": "key ttn.s"}, {}),
    (Authentication("query", "key", "s"), {}, {"key": "s"}),
    (Authentication("bearer", "", "s"), {"authorization": "Bearer s"}, {}),
    (Authentication("bearer", "", "s"), {"authorization": "bearer  s"}, {}),
    (Authentication("basic", "user", "p:w"), basic("user:p:w"), {}),
    (Authentication("basic", "üser", "sécret"), basic("üser:sécret"), {}),
]
WRONG = [
    (Authentication("header", "X-Key", "s"), {"x-key": "t"}, {}),
    (Authentication("header", "X-Key", "s"), {}, {"X-Key": "s"}),
    (Authentication("header", "X-Key", "s"), {"x-key": "s "}, {}),
    (Authentication("query", "key", "s"), {"key": "s"}, {}),
    (Authentication("bearer", "", "s"), {"authorization": "s"}, {}),
    (Authentication("bearer", "", "s"), {"authorization": "Basic s"}, {}),
    (Authentication("basic", "user", "pw"), basic("user:px"), {}),
    (Authentication("basic", "user", "pw"), basic("usera:pw"), {}),
    (Authentication("basic", "user", "pw"), {"authorization": "Basic %%%"}, {}),
    (Authentication("basic", "user", "pw"), {"authorization": "Basic /w=="}, {}),
]
EMPTY = [Authentication(kind, "n", "") for kind in ("header", "query", "bearer", "basic")]


@pytest.mark.parametrize(("wanted", "headers", "query"), RIGHT)
def test_the_secret_lets_in(wanted: Authentication, headers: dict, query: dict) -> None:
    """A request with the secret in its place passes."""
    assert Credentials(wanted).proven(headers, query)


@pytest.mark.parametrize(("wanted", "headers", "query"), WRONG)
def test_anything_else_does_not(wanted: Authentication, headers: dict, query: dict) -> None:
    """A wrong secret, a secret in another place, and garbage do not pass."""
    assert not Credentials(wanted).proven(headers, query)


@pytest.mark.parametrize("wanted", EMPTY, ids=lambda wanted: wanted.kind)
def test_an_empty_secret_lets_nobody_in(wanted: Authentication) -> None:
    """Where the secret turned out empty, an empty one does not match it."""
    tries = [{}, {"n": ""}, {"authorization": "Bearer "}, basic("n:"), basic(":")]

    assert not any(Credentials(wanted).proven(headers, {"n": ""}) for headers in tries)


def test_a_header_that_is_not_utf8_is_just_wrong() -> None:
    """Bytes that are no text do not raise."""
    wanted = Credentials(Authentication("header", "x-key", "s"))

    assert not wanted.proven({"x-key": "\udcff"}, {})


def test_an_unknown_integration_compares_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no integration, as many digests are compared as for a wrong secret."""
    compared = []
    compare = credentials.compare_digest
    monkeypatch.setattr(
        credentials, "compare_digest", lambda a, b: compared.append(len(a)) or compare(a, b)
    )

    assert not NO_CREDENTIALS.proven({"authorization": "Bearer x"}, {})
    assert not Credentials(Authentication("header", "x-key", "s")).proven({"x-key": "t"}, {})
    assert compared == [32, 32]


def test_secrets_stay_out_of_sight() -> None:
    """No repr shows a secret."""
    wanted = Authentication("header", "x-key", "s3cret")

    assert "s3cret" not in repr(wanted)
    assert "s3cret" not in repr(Credentials(wanted))
