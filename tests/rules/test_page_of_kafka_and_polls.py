"""The YAML of the page of integrations that asks and reads: it can be copied as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.ingest.source import connection_models
from pipeline.wiring import load_rules

PAGE = (Path(__file__).parents[2] / "docs/integrations.md").read_text()
ENV = dict.fromkeys(re.findall(r"\$\{env:([A-Z_]+)", PAGE), "secret")


def blocks(heading: str) -> list[str]:
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    return re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)


@pytest.mark.parametrize(
    ("heading", "place"),
    [("Over Kafka", 0), ("Over Kafka", 1), ("Polling", 0), ("Polling", 1)],
)
def test_the_yaml_can_be_copied(heading: str, place: int, tmp_path: Path) -> None:
    """Each example is an integration without a fault, with secrets from the environment."""
    (tmp_path / "integrations").mkdir()
    (tmp_path / "funicular.yaml").write_text("tenant: acme\n")
    (tmp_path / "integrations/barn.yaml").write_text(blocks(heading)[place])
    (book,) = load_rules([tmp_path], None, ENV).values()

    assert book.integrations["barn"].transport in {"kafka", "poll"}


@pytest.mark.parametrize(("heading", "transport"), [("Over Kafka", "kafka"), ("Polling", "poll")])
def test_the_page_has_every_key(heading: str, transport: str) -> None:
    """The section names each key of the transport's `connection:`."""
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    missing = [
        name for name in connection_models()[transport].model_fields if f"`{name}`" not in section
    ]
    assert missing == []
