"""What the README shows of the commands for rules is what they say, on the demo's rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import main

ROOT = Path(__file__).parents[2]
COMMANDS = ("check", "test", "explain", "graph")


def shown(command: str) -> tuple[list[str], list[str]]:
    """Return a command's words and its lines of output in the README; `…` stands for any lines."""
    text = (ROOT / "README.md").read_text()
    found = re.search(rf"^\$ funicular ({command}\b.*)\n((?:(?!\$ |```).*\n)+)", text, re.MULTILINE)
    assert found, f"the README shows no `funicular {command}`"
    words = re.findall(r"'[^']*'|\S+", found[1])
    return [word.strip("'") for word in words], found[2].rstrip().splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_what_the_readme_shows(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each line that the README shows is a line of the output, in that order."""
    monkeypatch.chdir(ROOT)
    words, lines = shown(command)
    said = CliRunner().invoke(main, words)
    assert said.exit_code == 0, said.output
    output = iter(any_version(line.rstrip()) for line in said.output.splitlines())
    for line in map(any_version, lines):
        if line.strip() != "…":
            assert any(line == each for each in output), f"{line!r} is not there, or not there yet"


def any_version(line: str) -> str:
    """Return a line without the hash of the rules, which changes with every edit of them."""
    return re.sub(r"\b[0-9a-f]{12}\b", "VERSION", line)
