"""`docs/webhooks.md` says what is there."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from pipeline.cli import main
from pipeline.rulebook.reader import read_document
from pipeline.rulebook.sink_template import parse_any
from pipeline.wiring import catalogue

PAGE = (Path(__file__).parents[2] / "docs/webhooks.md").read_text()


def test_the_table_of_templates_is_whole() -> None:
    """Each template that comes along stands in the table, with its own description."""
    expected = []
    for name, raw in catalogue().templates.items():
        document, _ = read_document(name, raw)
        assert document is not None
        template, _ = parse_any(document.value)
        assert template is not None
        expected.append(f"| `{name}` | {template.description} |")
    assert re.findall(r"^\| `[a-z0-9-]+` \| [A-Z].*\|$", PAGE, re.MULTILINE) == expected


def test_the_shown_sink_is_what_the_command_prints() -> None:
    """The example of `funicular templates slack` is its output."""
    said = CliRunner().invoke(main, ["templates", "slack"]).output
    assert f"$ cat rules/sinks/alarms.yaml\n{said}```" in PAGE


def test_the_shown_template_is_valid() -> None:
    """The template that a user copies has no fault."""
    (example,) = re.findall(r"```yaml\n(name: Example\n.*?)```", PAGE, re.DOTALL)
    document, faults = read_document("example", example.encode())
    assert document is not None, faults
    assert parse_any(document.value)[1] == []
