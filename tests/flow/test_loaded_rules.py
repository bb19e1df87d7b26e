"""What is left of loading rules, beside the rules."""

from __future__ import annotations

from pathlib import Path

from pipeline.metrics import Registry
from pipeline.script import ScriptLimits, ScriptProcesses
from pipeline.wiring import load_rules, script_port

RULES = Path(__file__).parents[2] / "rules"


def test_loaded_rules_leave_no_process_behind() -> None:
    """What their scripts were checked in has ended: a worker holds none that does nothing."""
    scripts = script_port(ScriptLimits(), Registry())
    try:
        load_rules([RULES], scripts, {})
        assert isinstance(scripts.scripts, ScriptProcesses)
        assert not scripts.scripts._seats._seats
    finally:
        scripts.close()
