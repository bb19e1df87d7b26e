"""Examples that come with the program are listed, and copied where nothing is."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.errors import UsageError
from pipeline.rehearse.worked import FOLDER, copy_example, worked_examples


def test_they_are_listed() -> None:
    """Each says in a paragraph what it is about."""
    assert set(worked_examples()) == {"building", "cold-chain", "parking"}
    assert all(about.endswith(".") for about in worked_examples().values())


@pytest.mark.parametrize("name", sorted(worked_examples()))
def test_a_copy_is_whole(name: str, tmp_path: Path) -> None:
    """The copy has every file of the example, byte for byte."""
    files = copy_example(name, tmp_path / "rules")

    assert {str(file) for file in files} == {
        str(path.relative_to(FOLDER / name)) for path in (FOLDER / name).rglob("*.*")
    }
    for file in files:
        assert (tmp_path / "rules" / file).read_bytes() == (FOLDER / name / file).read_bytes()


def test_nothing_is_replaced(tmp_path: Path) -> None:
    """A folder with something in it stays as it is."""
    (tmp_path / "mine.yaml").write_text("x")

    with pytest.raises(UsageError, match="is there already"):
        copy_example("parking", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_an_example_that_is_not_there(tmp_path: Path) -> None:
    """A misspelt name is met with the one that was meant."""
    with pytest.raises(UsageError, match="did you mean `cold-chain`"):
        copy_example("cold-chains", tmp_path / "rules")


def run(*words: object) -> tuple[int, str]:
    ended = CliRunner().invoke(main, ["new", "example", *map(str, words)])
    return ended.exit_code, ended.output


def test_the_command(tmp_path: Path) -> None:
    """It lists without a name, copies with one, and what it copies passes `check`."""
    folder = tmp_path / "rules"

    assert "cold-chain: Loggers in refrigerated lorries" in run()[1]
    assert orjson.loads(run("--json")[1].splitlines()[0])["example"] == "building"
    code, said = run("parking", folder)
    assert (code, f"funicular test {folder}" in said) == (0, True)
    checked = CliRunner().invoke(main, ["check", "--strict", str(folder)])
    assert checked.exit_code == 0, checked.output
    assert run("parking", folder)[0] == 2
