"""What `funicular new integration` writes is what `check` takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.ingest.source import connection_models
from pipeline.integrations.dialect import dialects, usual_transport
from pipeline.rehearse.new_integration import dialect_of, new_integration, write_new
from pipeline.wiring import load_rules

OVER = connection_models()
WAYS = [
    (name, transport)
    for name, dialect in sorted(dialects().items())
    for transport in ("http", *sorted(OVER))
    if (
        usual_transport(dialect) == "http"
        if transport == "http"
        else not OVER[transport].carries(dialect)
    )
]


@pytest.mark.parametrize(("name", "transport"), WAYS)
def test_what_is_written_passes_the_check(tmp_path: Path, name: str, transport: str) -> None:
    """With its variables set, a new integration of any dialect has no fault."""
    text = new_integration("my-devices", dialects()[name], transport, transports=OVER)
    write_new(tmp_path, "my-devices", text)
    (tmp_path / "funicular.yaml").write_text("tenant: acme\n")
    env = dict.fromkeys(re.findall(r"\$\{env:(\w+)\}", text), "c2VjcmV0")

    (book,) = load_rules([tmp_path], None, env).values()
    made = book.integrations["my-devices"]
    assert env
    assert (made.dialect.name, made.transport) == (name, transport)
    assert (made.connection is None) == (transport == "http")


def test_every_dialect_comes_some_way() -> None:
    """No dialect is left without a transport, and its usual one carries it."""
    ways = dict.fromkeys(name for name, _ in WAYS)
    assert list(ways) == sorted(dialects())
    for name, dialect in dialects().items():
        assert (name, usual_transport(dialect)) in WAYS


def test_options_are_told_and_commented() -> None:
    """The dialect's options stand there with what they mean, for the user to choose."""
    text = new_integration("barn", dialects()["chirpstack"], transports=OVER)

    assert text.startswith("# ChirpStack v4")
    assert "#   api_key: …" in text
    assert "REST API" in text


@pytest.mark.parametrize(
    ("name", "dialect", "transport", "says"),
    [
        ("Barn!", "chirpstack", "", "cannot be a name"),
        ("barn", "sigfox", "mqtt", "does not come over MQTT"),
        ("barn", "mqtt", "http", "comes over mqtt"),
        ("barn", "opcua", "http", "comes over opcua"),
        ("barn", "http", "opcua", "does not come over OPC-UA"),
    ],
)
def test_what_cannot_be_is_said(name: str, dialect: str, transport: str, says: str) -> None:
    """A bad name, and a dialect that does not come that way, are the user's mistake."""
    with pytest.raises(UsageError, match=says):
        new_integration(name, dialects()[dialect], transport, transports=OVER)


def test_a_misspelt_dialect_is_guessed() -> None:
    """`chirpstak` is told of `chirpstack`."""
    with pytest.raises(UsageError, match="did you mean `chirpstack`"):
        dialect_of(dialects(), "chirpstak")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A file that is there already stays as it is."""
    write_new(tmp_path, "barn", "mine")
    with pytest.raises(UsageError, match="is there already"):
        write_new(tmp_path, "barn", "new")
    assert (tmp_path / "integrations/barn.yaml").read_text() == "mine"
