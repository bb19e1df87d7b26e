from __future__ import annotations

from typing import Any

import pytest

from pipeline.rulebook.filled_template import filled_in, in_user_words, parse_any
from pipeline.rulebook.template import ServiceTemplate


def service(**sink: Any) -> dict[str, Any]:
    """Return a template with two variables, and one that may be left out."""
    return {
        "name": "Example",
        "description": "An example.",
        "variables": {
            "inbox": {"description": "The inbox"},
            "token": {"description": "A token", "secret": True},
            "note": {"description": "A note", "optional": True},
        },
        "sink": {
            "transport": "http",
            "url": "https://api.example.com/{{inbox}}/in?t={{token}}",
            "headers": {"authorization": "Bearer {{token}}", "x-note": "{{note}}"},
        }
        | sink,
    }


def read(document: Any) -> ServiceTemplate:
    template, problems = parse_any(document)
    assert problems == []
    assert template is not None
    return template


def filled(document: Any, variables: Any, **more: Any) -> Any:
    given = {"template": "x", "variables": variables, **more}
    return filled_in(read(document), given, referenced={("variables", "token")})


def test_variables_are_filled_in() -> None:
    """A user gives the variables alone; what is empty and only a header is left out."""
    document, problems = filled(service(), {"inbox": "a/b", "token": "s e&c"})
    assert problems == []
    assert document == {
        "transport": "http",
        "url": "https://api.example.com/a%2Fb/in?t=s%20e%26c",
        "headers": {"authorization": "Bearer s e&c"},
    }


def test_what_the_user_writes_counts_more() -> None:
    """Other fields of a sink may stand beside the variables; headers are put together."""
    document, _ = filled(
        service(timeout="5s"), {"inbox": "1", "token": "t"}, timeout="9s", headers={"x-own": "y"}
    )
    assert document["timeout"] == "9s"
    assert document["headers"] == {"authorization": "Bearer t", "x-own": "y"}


def test_a_value_is_no_expression() -> None:
    """What a user fills in is text in a template's body, whatever it looks like."""
    body = {"template": {"body": {"text": "{{note}} ${device}"}}}
    document, _ = filled(service(format=body), {"inbox": 1, "token": "t", "note": "${1 + 1}"})
    assert document["format"]["template"]["body"]["text"] == "$${1 + 1} ${device}"


@pytest.mark.parametrize(
    ("url", "value", "expected"),
    [
        ("{{inbox}}/up", "https://a.b/c?x=1", "https://a.b/c?x=1/up"),
        ("{{inbox}}/up", "https://a.b:8080/", "https://a.b:8080/up"),
        ("https://{{inbox}}/up", "a.b:8080", "https://a.b:8080/up"),
        ("https://{{inbox}}.a.b/up", "eu-1", "https://eu-1.a.b/up"),
        ("https://a.b/{{inbox}}", "x y/..", "https://a.b/x%20y%2F.."),
        ("https://a.b/bot{{inbox}}", "1:A", "https://a.b/bot1:A"),
    ],
)
def test_values_in_addresses(url: str, value: str, expected: str) -> None:
    """At the beginning of an address a value is one itself, in the host a name, else a segment."""
    document, problems = filled(
        service(url=url, headers={"a": "{{token}}{{note}}"}), {"inbox": value, "token": "t"}
    )
    assert problems == []
    assert document["url"] == expected


@pytest.mark.parametrize(
    ("url", "value", "words"),
    [
        ("{{inbox}}/up", "example.com", "must be a web address"),
        ("{{inbox}}/up", "file:///etc/passwd", "must be a web address"),
        ("https://{{inbox}}/up", "a.b/c", "must be a host's name"),
        ("https://{{inbox}}.a.b/up", "evil.com#", "must be a host's name"),
        ("https://{{inbox}}.a.b/up", "me@evil.com", "must be a host's name"),
    ],
)
def test_a_value_cannot_lead_elsewhere(url: str, value: str, words: str) -> None:
    """A value that would change which host is asked is refused where the user wrote it."""
    document, problems = filled(
        service(url=url, headers={"a": "{{token}}{{note}}"}), {"inbox": value, "token": "t"}
    )
    assert document is None
    assert [problem.path for problem in problems] == [("variables", "inbox")]
    assert words in problems[0].message


@pytest.mark.parametrize(
    ("variables", "path", "words"),
    [
        ({"inbox": "1"}, ("variables",), "`token` is missing: A token"),
        (None, ("template",), "`inbox` is missing"),
        ({"inbox": "1", "token": ""}, ("variables",), "`token` is missing"),
        ({"inbox": [1], "token": "t"}, ("variables", "inbox"), "must be text or a number"),
        ({"inbox": "1", "tokn": "t", "token": "t"}, ("variables", "tokn"), "no variable `tokn`"),
        ({"inbox": "1" * 9_000, "token": "t"}, ("variables", "inbox"), "at most 8,192"),
        ("none", ("variables",), "must be a mapping"),
    ],
)
def test_faults_of_values_are_said(variables: Any, path: Any, words: str) -> None:
    """What is missing, unknown or no text is said, with the variable's description."""
    document, problems = filled(service(), variables)
    assert document is None
    assert any(problem.path == path and words in problem.message for problem in problems)


def test_a_secret_that_is_no_reference_is_warned_of() -> None:
    """A secret that stands in the file itself is said, and runs all the same."""
    given = {"template": "x", "variables": {"inbox": "1", "token": "t"}}
    document, problems = filled_in(read(service()), given, referenced=set())
    assert document is not None
    assert [(problem.path, problem.warns) for problem in problems] == [
        (("variables", "token"), True)
    ]


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"sink": {"url": "x"}}, ("sink",), "`transport` is missing"),
        ({"sink": {"transport": "http", "url": "{{inbx}}"}}, ("sink", "url"), "variable `inbx`"),
        ({"sink": {"transport": "http"}}, ("variables", "inbox"), "is used nowhere"),
        (
            {"sink": {"transport": "http", "x": ["${a + '{{inbox}}'}"]}},
            ("sink", "x", 0),
            "cannot stand within",
        ),
        ({"variables": {"a": {}}}, ("variables", "a"), "`description` is missing"),
        ({"more": 1}, ("more",), "unknown"),
    ],
)
def test_faults_of_a_template_are_said(change: Any, path: Any, words: str) -> None:
    """A template that cannot be filled in is at fault itself, at the place of the fault."""
    template, problems = parse_any(service() | change)
    assert template is None
    assert any(problem.path == path and words in problem.message for problem in problems), problems


def test_a_fault_that_the_template_brings_stands_at_its_name() -> None:
    """What is wrong with a field that the user did not write is said at the template's name."""
    _, problems = parse_any({"name": "x"})
    moved = in_user_words({"template": "x", "name": 1}, problems)
    assert ("template",) in {problem.path for problem in moved}
    assert in_user_words({"transport": "http"}, problems) == problems
