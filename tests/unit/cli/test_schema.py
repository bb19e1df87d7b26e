"""`funicular schema`: of topics, of rules files, and what an editor needs to know of them."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.rulebook.schema import FILES


def run(*words: object) -> tuple[int, str, str]:
    ended = CliRunner().invoke(main, ["schema", *map(str, words)])
    return ended.exit_code, ended.stdout, ended.stderr


def test_topics() -> None:
    """Of one topic, or of all."""
    assert "state" in orjson.loads(run("downlink.status")[1])["$defs"]["Downlink"]["properties"]
    assert {"device.events", "dead.letter"} <= set(orjson.loads(run()[1]))


def test_rules() -> None:
    """Of all kinds of files, or of one."""
    assert set(orjson.loads(run("rules")[1])) == set(FILES)
    assert orjson.loads(run("rules", "--kind", "chain")[1])["title"] == "rules/chains/*.yaml"


def test_files_for_an_editor(tmp_path: Path) -> None:
    """A file a kind, and the settings that tell an editor which is whose: no file has two."""
    folder = tmp_path / "schemas"
    code, out, _ = run("rules", "--output", folder)
    settings = orjson.loads(out)["yaml.schemas"]

    assert code == 0
    assert {Path(path).stem for path in settings} == set(FILES)
    assert all(orjson.loads(Path(path).read_bytes())["$schema"] for path in settings)
    assert settings[f"{folder}/chain.json"] == "rules/chains/!(*_test).yaml"
    assert settings[f"{folder}/test.json"] == "rules/chains/*_test.yaml"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["device.event"], "there is no topic device.event"),
        (["downlink.status", "--kind", "chain"], "are for `funicular schema rules`"),
        (["rules", "--kind", "node"], "is not one of"),
    ],
)
def test_mistakes(words: list[str], said: str) -> None:
    """A mistake is told in a sentence."""
    code, _, error = run(*words)

    assert (code, said in error) == (2, True)
