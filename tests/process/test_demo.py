"""The demo: a newcomer's first minute, as a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.process
@pytest.mark.timeout(120)
def test_demo_closes_the_loop(tmp_path: Path) -> None:
    """Within a minute thermostats, trackers and meters have each been told by a rule, and obeyed;
    without a terminal the demo says so in plain lines, with an address and a line to try.
    """
    ended = subprocess.run(
        [
            sys.executable, "-m", "pipeline.cli", "demo", "--until-closed",
            "--rules", str(ROOT / "rules"), "--data", str(tmp_path), "--port", "0",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        check=False,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    for said in ("http://127.0.0.1:", "curl", "thermostat", "tracker", "meter", "loop"):
        assert said in ended.stdout
    assert "Traceback" not in ended.stderr
