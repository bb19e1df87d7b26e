"""TBEL by the JavaScript engine, inside the child process: translated, with TBEL's functions."""

from __future__ import annotations

from pathlib import Path

from pipeline.script.javascript import BODY, JavaScript
from pipeline.script.tbel import translate


class Tbel(JavaScript):
    """The engine of a TBEL child."""

    # Read now: the confined process cannot open files.
    prelude = Path(__file__).with_name("tbel.js").read_text(encoding="utf-8")

    signed_bytes = True
    # A payload is a list of Java's bytes.
    body = (BODY[0].removesuffix("{") + "payload=$bytes(payload);{", BODY[1])

    def translate(self, source: str) -> str:
        """See `JavaScript`."""
        return translate(source)
