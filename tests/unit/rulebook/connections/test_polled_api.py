"""`connection:` of an integration that asks: what is taken, and what is said of what is not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.integrations.dialect import dialects
from pipeline.rulebook.connections.polled_api import PollConfig

URL = "https://api.example.com/readings"


def test_an_address_is_enough() -> None:
    """One worker asks once a minute; the answer itself is the list of messages."""
    config = PollConfig(url=URL)

    assert (config.interval, config.items, config.one_owner, config.secret) == (
        60, "body", True, "",
    )  # fmt: skip


def test_secrets_are_in_no_text() -> None:
    """Key and headers are secret; so is the address, which may hold one."""
    given = {"url": f"{URL}?token=geheim77", "bearer": "geheim77", "headers": {"X-Key": "geheim77"}}

    assert "geheim77" not in repr(PollConfig.model_validate(given))
    assert PollConfig.model_validate(given).secret == "geheim77"


def test_a_start_is_what_comes_back_from_the_log() -> None:
    """A time that YAML reads as one is text."""
    config = PollConfig.model_validate({"url": URL, "start": {"after": [1, "x"]}})

    assert config.start == {"after": [1, "x"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give `url`, or `storage`"),
        ({"url": URL, "storage": URL}, "one of the two"),
        ({"url": "ftp://x"}, "must be a web address"),
        ({"url": "https://u:p@x/"}, "no user or password"),
        ({"url": URL + "?a=${cursor}"}, "put what changes into `query`"),
        ({"url": URL + "/{a}"}, "holds a brace"),
        ({"url": URL, "items": "body["}, "items"),
        ({"url": URL, "items": "items"}, "items"),
        ({"url": URL, "cursor": "nothing.here"}, "nothing"),
        ({"url": URL, "query": {"a": "${page + }"}}, "query"),
        ({"url": URL, "query": {"a": "${body}"}}, "body"),
        ({"url": URL, "body": {}}, "needs `method: POST`"),
        ({"url": URL, "key": "a", "bearer": "b"}, "are the same"),
        ({"storage": URL, "items": "body"}, "`items` is of `url`"),
        ({"url": URL, "interval": "0s"}, "greater than or equal to 1"),
        ({"url": URL, "start": {1, 2}}, "must be text"),
    ],
)
def test_what_cannot_be_is_said(given: dict[str, Any], said: str) -> None:
    """Each fault of a connection has words of its own."""
    with pytest.raises(ValidationError, match=re.escape(said)):
        PollConfig.model_validate(given)


def test_a_storage_is_of_a_dialect_that_knows_it() -> None:
    """Only a dialect whose network server keeps messages has a storage, and it needs to know of
    which application.
    """
    config = PollConfig(storage="https://eu1.cloud.thethings.network")
    tts, http = dialects()["tts_v3"], dialects()["http"]

    assert config.together(tts, tts.options(application_id="a")) == []
    (missing,) = config.together(tts, tts.options())
    assert "application" in missing.message
    (other,) = config.together(http, http.options())
    assert "http has no storage" in other.message
    assert PollConfig(url=URL).together(http, http.options()) == []


@pytest.mark.parametrize(
    ("dialect", "line"),
    [
        ("tts_v3", "storage: https://eu1.cloud.thethings.network"),
        ("ttn_v2", "storage: https://my-app.data.thethingsnetwork.org"),
        ("http", "url: https://api.example.com/v1/readings"),
    ],
)
def test_templates(dialect: str, line: str) -> None:
    """What `funicular new integration` writes names what is to be filled in."""
    lines = "\n".join(PollConfig.template(dialects()[dialect], "BARN"))

    assert line in lines
    assert "${env:BARN_KEY}" in lines
