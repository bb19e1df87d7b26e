"""`docs/webhooks.md` and `docs/integrations.md` say which templates are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.rehearse.from_template import templates_of
from pipeline.rulebook.filled_template import parse_any
from pipeline.rulebook.reader import read_document
from pipeline.wiring import catalogue

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "webhooks.md").read_text()


@pytest.mark.parametrize(("kind", "page"), [("sink", "webhooks"), ("integration", "integrations")])
def test_the_table_of_templates_is_whole(kind: str, page: str) -> None:
    """Each template that comes along stands in its kind's table, with its own description."""
    found = templates_of(Path("none"), catalogue().templates)
    expected = [
        f"| `{name}` | {template.description} |"
        for name, template in found.items()
        if template.kind == kind
    ]
    text = (DOCS / f"{page}.md").read_text()
    listed = text.partition("| template |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `[a-z0-9-]+` \| [A-Z].*\|$", listed, re.MULTILINE) == expected


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
