from __future__ import annotations

from typing import Any

import pytest

from pipeline.rulebook.filled_template import filled_in, parse_any


def hook(**change: Any) -> dict[str, Any]:
    """Return a template in The Things Stack's format."""
    return {
        "template-id": "example",
        "name": "Example",
        "description": "An example",
        "logo-url": "https://example.com/logo.svg",
        "fields": [
            {"id": "region", "name": "Region", "secret": False, "default-value": "eu"},
            {"id": "key", "name": "Key", "description": "An API key", "secret": True},
        ],
        "format": "json",
        "headers": {"Authorization": "Bearer {key}"},
        "create-downlink-api-key": True,
        "base-url": "https://www.example.com{/region}",
        "paths": {"uplink-message": "/up", "join-accept": "/join"},
        "field-mask": ["received_at"],
    } | change


def filled(document: Any, **variables: Any) -> Any:
    template, problems = parse_any(document)
    assert problems == []
    assert template is not None
    given = {"template": "x", "variables": {"key": "k"} | variables}
    sink, problems = filled_in(template, given, referenced={("variables", "key")})
    assert problems == []
    return sink


def test_it_becomes_a_sink_with_the_stacks_own_json() -> None:
    """Address, headers and format are those that The Things Stack would make of it."""
    assert filled(hook()) == {
        "transport": "http",
        "url": "https://www.example.com/eu/up",
        "headers": {"Authorization": "Bearer k"},
        "format": "tts_v3",
    }


@pytest.mark.parametrize(
    ("base", "path", "expected"),
    [
        ("https://a.b/in", "", "https://a.b/in"),
        ("https://a.b/in", "/", "https://a.b/in/"),
        ("https://a.b/in", "/up", "https://a.b/in/up"),
        ("https://a.b/in/", "/up", "https://a.b/in/up"),
        ("https://a.b/in", "up", "https://a.b/in/up"),
        ("https://a.b", "/up?k={key}", "https://a.b/up?k=k%2F1"),
        ("https://a.b{?key}", "", "https://a.b?key=k%2F1"),
        ("{+key}", "", "k/1"),
        ("https://a.b/{region}{/devID}", "{/appID}", "https://a.b/eu/{device_id}/{application_id}"),
        ("https://a.b/in", "/up/{devEUI}", "https://a.b/in/up/{dev_eui}"),
        ("https://a.b/in", "{?deviceID}", "https://a.b/in?deviceID={device_id}"),
    ],
)
def test_addresses_are_joined_as_there(base: str, path: str, expected: str) -> None:
    """Base and path are put together, and fields expanded (RFC 6570), as The Things Stack does."""
    document = hook(**{"base-url": base, "paths": {"uplink-message": path}})
    assert filled(document, key="k/1")["url"] == expected


def test_empty_parts_may_be_written_in_any_way() -> None:
    """`fields:` and `headers:` may be empty, and a default may be a boolean."""
    document = hook(fields=None, headers=None)
    document["base-url"] = "https://a.b"
    template, problems = parse_any(document)
    assert (problems, template and dict(template.variables)) == ([], {})
    fields = [{"id": "key", "default-value": True}]
    assert filled(
        hook(fields=fields, headers={"a": "{key}"}) | {"base-url": "https://a.b"}, key="x"
    )
    template, _ = parse_any(hook(fields=fields) | {"base-url": "https://a.b"})
    assert template is not None
    assert template.variables["key"].default == "true"


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"format": "protobuf"}, ("format",), "is not written here"),
        ({"paths": {"join-accept": "/j"}}, ("paths",), "takes no uplinks"),
        ({"base-url": "https://a.b/{nothing}"}, ("base-url",), "no field `nothing`"),
        ({"base-url": "https://a.b/{joinEUI}"}, ("base-url",), "no path variable"),
        ({"base-url": ""}, ("base-url",), "must not be empty"),
        ({"headers": ["a"]}, ("headers",), "must be a mapping"),
    ],
)
def test_what_cannot_be_done_is_said(change: Any, path: Any, words: str) -> None:
    """A template that would need what a sink has not is refused, at the place in its file."""
    template, problems = parse_any(hook(**change))
    assert template is None
    assert any(problem.path == path and words in problem.message for problem in problems), problems
