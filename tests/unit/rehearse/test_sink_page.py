"""The page of sinks: whole, and true to the transports' files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from ruamel.yaml import YAML

from pipeline.rehearse.sink_page import main, page, section
from pipeline.sink.formats.format import Format
from pipeline.sink.transport import transports

PAGE = Path(__file__).parents[3] / "docs/sinks.md"


def test_page_is_made_from_the_files() -> None:
    """The page in docs/ is what `python -m pipeline.rehearse.sink_page docs/sinks.md` makes."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_page_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    """The generator writes the file that is named."""
    main([str(tmp_path / "page.md")])

    assert (tmp_path / "page.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("name", sorted(transports()))
def test_each_option_is_there(name: str) -> None:
    """No option of a transport is left out of its part of the page, and its row says the id."""
    text = section(name, transports()[name])

    for option in transports()[name].Config.model_fields:
        shared = option in ("retry", "tls", "format")
        assert shared or re.search(rf"\b{option}\b", text), option
    assert f"| `{name}` |" in page()


def test_the_examples_of_formats_are_valid() -> None:
    """Each YAML of the part on formats is accepted as it stands."""
    blocks = re.findall(r"```yaml\n(.*?)```", page().partition("## Formats")[2], re.DOTALL)

    assert len(blocks) == 4
    for block in blocks:
        TypeAdapter(Format).validate_python(YAML(typ="safe", pure=True).load(block)["format"])
