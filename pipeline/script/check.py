"""Says of a script, without a message: does it compile, and which functions does it define?"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.ports import Script
from pipeline.script.processes import ScriptProcesses


@dataclass(frozen=True, slots=True)
class ScriptFault:
    """One thing wrong in a script. Lines and columns count from 1; 0 is unknown."""

    line: int
    column: int
    message: str


@dataclass(frozen=True, slots=True)
class ScriptFindings:
    """What a check found. `functions`: those that a converter may call, of the ones it defines
    (`decodeUplink`, `Decoder`, `encodeDownlink`, …; in Lua `decode_uplink`, …).
    """

    problems: tuple[ScriptFault, ...]
    functions: frozenset[str]


def check_script(script: Script, scripts: ScriptProcesses) -> ScriptFindings:
    """Compile a script and run what stands outside its functions; call none of them.

    May block for a call's time limit. RetryableError: the engine does not start.
    """
    functions, error = scripts.check(script)
    if error is None:
        return ScriptFindings((), functions)
    line, column = error.detail.get("line", 0), error.detail.get("column", 0)
    message = error.message
    for place in (
        f"{script.path}:{line}:{column}: ",
        f"{script.path}:{line}: ",
        f"{script.path}: ",
    ):
        message = message.removeprefix(place)
    return ScriptFindings((ScriptFault(line, column, message),), frozenset())
