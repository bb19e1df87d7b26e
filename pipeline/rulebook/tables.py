"""A reference table's file, CSV or YAML → entries by key, and every fault in it.

CSV (RFC 4180, UTF-8): the first line names the columns, the first column is the key; an entry is a
mapping of the other columns. What is written as JSON writes a number, `true` or `false` is one;
all else is text (`007` stays text), and an empty cell is left out. YAML: a mapping from key to
entry, which may be anything; keys that look like numbers are written in quotes.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from pipeline.errors import Fault
from pipeline.rulebook.reader import read_document

ENTRIES_MAX = 50_000
COLUMNS_MAX = 256
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,17})?([eE][-+]?[0-9]{1,2})?")


def read_table(file: str, raw: bytes) -> tuple[dict[str, Any], list[Fault]]:
    """Return the entries by key; with a fault, those that could be read."""
    if file.endswith(".csv"):
        return _read_csv(file, raw)
    document, faults = read_document(file, raw)
    if document is None:
        return {}, list(faults)
    if not isinstance(document.value, dict) or not document.value:
        hint = "like `dev: {building: A}`"
        return {}, [*faults, Fault(file, 1, 1, "must be a mapping from key to entry", hint)]
    return document.value, list(faults)


def _read_csv(file: str, raw: bytes) -> tuple[dict[str, Any], list[Fault]]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        return {}, [Fault(file, line, 1, "not UTF-8", "save the file as UTF-8")]
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    entries: dict[str, Any] = {}
    faults: list[Fault] = []
    try:
        names = [name.strip() for name in next(rows, [])]
        faults += _check_names(file, names)
        for row in rows:
            if not row or faults:
                continue
            faults += _add(file, rows.line_num, names, row, entries)
    except csv.Error as error:
        faults.append(Fault(file, rows.line_num, 1, f"cannot be read as CSV: {error}"))
    if not entries and not faults:
        faults.append(Fault(file, 1, 1, "has no entries", "a line of names, then one an entry"))
    return entries, faults


def _check_names(file: str, names: list[str]) -> list[Fault]:
    if len(names) < 2 or not all(names):
        hint = "like `device,building,floor`"
        return [Fault(file, 1, 1, "the first line must name the columns, the key first", hint)]
    if len(set(names)) < len(names) or len(names) > COLUMNS_MAX:
        return [Fault(file, 1, 1, f"needs at most {COLUMNS_MAX} columns of different names")]
    return []


def _add(
    file: str, line: int, names: list[str], row: list[str], entries: dict[str, Any]
) -> list[Fault]:
    if len(row) != len(names):
        text = f"has {len(row)} cells where {len(names)} columns are named"
        return [Fault(file, line, 1, text, "put a cell with a comma in quotes")]
    key = row[0].strip()
    if not key or key in entries:
        text = f"the key `{key}` stands in an earlier line" if key else "the key is empty"
        return [Fault(file, line, 1, text)]
    if len(entries) >= ENTRIES_MAX:
        return [Fault(file, line, 1, f"more than {ENTRIES_MAX:,} entries")]
    entries[key] = {
        name: _value(cell.strip())
        for name, cell in zip(names[1:], row[1:], strict=True)
        if cell.strip()
    }
    return []


def _value(cell: str) -> Any:
    if cell in {"true", "false"}:
        return cell == "true"
    found = _NUMBER.fullmatch(cell)
    if found is None:
        return cell
    return float(cell) if found[2] or found[3] else int(cell)
