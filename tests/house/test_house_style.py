"""The house style as tests: what a reviewer would otherwise have to say again and again."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted((ROOT / "pipeline").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
NO_NAMES = {"utils", "helpers", "common", "base", "manager", "core", "misc"}
PURE = {"model", "expression", "integrations", "convert", "route", "downlink"}
UNTRACKED = {".git", ".venv", "data", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis",
             ".pytest_cache", ".import_linter_cache"}  # fmt: skip
IMPURE_CALLS = re.compile(r"\b(datetime|date)\.(now|utcnow|today)\(|\btime\.(time|monotonic)\(")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", CODE, ids=named)
def test_module(path: Path) -> None:
    """A module says what it is, is not too long, and its functions fit a screen."""
    text = path.read_text()
    tree = ast.parse(text)

    if text.strip():
        assert ast.get_docstring(tree), "a module starts with what comes in and what goes out"
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    too_long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in functions(tree)
        if node.end_lineno and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    }
    assert too_long == {}


@pytest.mark.parametrize("path", CODE, ids=named)
def test_names(path: Path) -> None:
    """No module is called by a word that says nothing."""
    assert not NO_NAMES & {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}


@pytest.mark.parametrize("path", CODE, ids=named)
def test_no_loose_ends(path: Path) -> None:
    """No marker of unfinished work, no swallowed exception, no print but in the commands."""
    text = path.read_text()
    tree = ast.parse(text)

    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            broad = isinstance(node.type, ast.Name) and node.type.id in (
                "Exception",
                "BaseException",
            )
            nothing = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
            assert not (broad and nothing), f"line {node.lineno} swallows every exception"


@pytest.mark.parametrize(
    "path", [path for path in CODE if path.relative_to(ROOT).parts[1] in PURE], ids=named
)
def test_pure_rooms_ask_no_clock(path: Path) -> None:
    """In the pure rooms time is an argument."""
    assert not IMPURE_CALLS.search(path.read_text())


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_tests_state_their_claim(path: Path) -> None:
    """Each test's docstring states the claim that it proves."""
    silent = [
        node.name
        for node in functions(ast.parse(path.read_text()))
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]

    assert silent == []


def test_unit_tests_mirror_the_rooms() -> None:
    """`tests/unit` has a folder for each room, and no folder without one."""
    rooms = {path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir()} - {"__pycache__"}
    tested = {path.name for path in (ROOT / "tests/unit").iterdir() if path.is_dir()}

    assert tested - {"__pycache__"} <= rooms


def test_no_registry_host_and_no_foreign_path() -> None:
    """No file names a package registry's host or a path of somebody's machine."""
    hosts = re.compile(
        r"(pypi\.org|pythonhosted|npmjs|repo1?\.maven|crates\.io|proxy\.golang|deb\.debian)"
    )
    for path in ROOT.rglob("*"):
        inside = path.relative_to(ROOT).parts
        if not path.is_file() or any(part in UNTRACKED for part in inside):
            continue
        if path.suffix in {".py", ".md", ".toml", ".yaml", ".yml", ".js", ".lua", ""}:
            text = path.read_text(errors="replace")
            assert path == Path(__file__) or not hosts.search(text), named(path)
            assert path == Path(__file__) or "/work/" not in text, named(path)
