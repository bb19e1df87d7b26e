"""`funicular new converter`: what it writes passes, and what is there is left alone."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import main


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.mark.parametrize("language", ["js", "lua", "layout"])
def test_what_is_written_passes(tmp_path: Path, language: str) -> None:
    """A new converter has no fault, and its examples pass, both ways."""
    made = run(
        *("new", "converter", "acme/Meter.2", "--language", language),
        *("--rules", str(tmp_path), "--json"),
    )
    assert made.exit_code == 0, made.output
    files = orjson.loads(made.output)["files"]
    assert Path(files[0]) == tmp_path / "converters/acme/Meter.2.yaml"
    assert len(files) == (1 if language == "layout" else 2)
    assert run("check", str(tmp_path)).exit_code == 0
    tested = run("test", str(tmp_path), "--only", "acme/Meter.2", "--json")
    assert tested.exit_code == 0, tested.output
    passed = [line for line in tested.output.splitlines() if '"example"' in line]
    assert len(passed) == (3 if language == "layout" else 5)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Where one of the files is there already, none is written, and the command says which."""
    script = tmp_path / "converters/acme/meter.js"
    script.parent.mkdir(parents=True)
    script.write_text("mine")
    made = run("new", "converter", "acme/meter", "--rules", str(tmp_path))
    assert made.exit_code == 2
    assert f"{script} is there already" in made.output
    assert script.read_text() == "mine"
    assert not script.with_suffix(".yaml").exists()


@pytest.mark.parametrize("name", ["meter", "acme/", "acme/a b", "../up", "a/b/c"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    """A name is a vendor and a model, and leads nowhere else."""
    made = run("new", "converter", name, "--rules", str(tmp_path))
    assert made.exit_code == 2
    assert "write VENDOR/MODEL" in made.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The rules folder must be there: a slip in its name would make another one."""
    made = run("new", "converter", "acme/meter", "--rules", str(tmp_path / "ruls"))
    assert made.exit_code == 2
    assert not (tmp_path / "ruls").exists()
