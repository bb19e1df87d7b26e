"""The rules folders of this repository that are shown to users."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(each for each in (ROOT / "pipeline/examples").iterdir() if each.is_dir())
FOLDERS = [ROOT / "rules", *EXAMPLES]
