"""The check of a script, as `funicular check` asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.metrics import Registry
from pipeline.ports import Script
from pipeline.script import ScriptFault, ScriptLimits, ScriptProcesses, check_script


@pytest.fixture(scope="module")
def scripts() -> Iterator[ScriptProcesses]:
    scripts = ScriptProcesses(ScriptLimits(), Registry())
    yield scripts
    scripts.close()


@pytest.mark.parametrize(
    ("language", "source", "functions"),
    [
        ("javascript", "function Decoder() {} const decodeUplink = 1", {"Decoder"}),
        (
            "lua",
            "function decode_uplink() end local function encode_downlink() end",
            {"decode_uplink"},
        ),
    ],
)
def test_functions_are_named(
    scripts: ScriptProcesses, language: str, source: str, functions: set[str]
) -> None:
    """A good script has no problem, and its functions are those that can be called."""
    findings = check_script(Script("a/b", language, source), scripts)
    assert findings.problems == ()
    assert findings.functions == functions


@pytest.mark.parametrize(
    ("language", "source", "fault"),
    [
        (
            "javascript",
            "\n\n  let x = ;",
            (3, 11, "SyntaxError: unexpected token in expression: ';'"),
        ),
        ("javascript", "\nnone.x = 1", (2, 1, "ReferenceError: none is not defined")),
        ("lua", "\nlocal = 1", (2, 0, "<name> expected near '='")),
        ("lua", "\nnone.x = 1", (2, 0, "attempt to index a nil value (global 'none')")),
        ("javascript", "// \ud800", (1, 0, "the script is not Unicode text")),
    ],
)
def test_problems_have_their_place(
    scripts: ScriptProcesses, language: str, source: str, fault: tuple[int, int, str]
) -> None:
    """A script that does not compile, or fails outside its functions, has one problem with its
    place, and a message without it.
    """
    findings = check_script(Script("a/b", language, source), scripts)
    assert findings.problems == (ScriptFault(*fault),)
    assert findings.functions == frozenset()
