"""Addresses of servers, as sinks are told them."""

from __future__ import annotations

import pytest

from pipeline.sink.urls import WEB, parts_of


def test_a_servers_address_is_taken_apart() -> None:
    """What stands in an address is found in its parts."""
    parts = parts_of("https://api.example.com:8443/in?x=1", WEB, "")
    assert (parts.hostname, parts.port, parts.path, parts.query) == (
        *("api.example.com", 8443, "/in", "x=1"),
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "https://",
        "https://[::1",
        "https://api.example.com:0",
        "https://api.example.com:65536",
        "https://api.example.com:port",
    ],
)
def test_what_is_none_is_refused_with_an_example(url: str) -> None:
    """Another scheme, no host or a port that there cannot be: the message says what is wanted."""
    with pytest.raises(ValueError, match=r"^write it so$"):
        parts_of(url, WEB, "write it so")
