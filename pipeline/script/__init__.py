"""The script engines: JavaScript and Lua in child processes, behind `ports.ScriptPort`.

The names are looked up when they are asked for: a child imports this package too, and must start
fast, so it must not load what only the parent needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.script.check import ScriptFault, ScriptFindings, check_script
    from pipeline.script.limits import ScriptLimits
    from pipeline.script.processes import ScriptProcesses

__all__ = ["ScriptFault", "ScriptFindings", "ScriptLimits", "ScriptProcesses", "check_script"]


def __getattr__(name: str) -> Any:
    if name == "ScriptProcesses":
        from pipeline.script.processes import ScriptProcesses  # noqa: PLC0415 - see above

        return ScriptProcesses
    if name == "ScriptLimits":
        from pipeline.script.limits import ScriptLimits  # noqa: PLC0415 - see above

        return ScriptLimits
    if name in __all__:
        from pipeline.script import check  # noqa: PLC0415 - see above

        return getattr(check, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
