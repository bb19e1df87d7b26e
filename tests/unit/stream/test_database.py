"""Opening the file: what is ours, what is not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.stream import SqliteLog
from pipeline.stream.database import TABLES, delete_rows, write_rows


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """A text file is left alone, and the user is told."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes, " * 100)
    with pytest.raises(UsageError, match="not a database"):
        SqliteLog.open(path)
    with pytest.raises(UsageError, match="not a database"):
        SqliteLog.peek(path)
    assert path.read_text().startswith("my notes")


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    """A database of another program is left alone."""
    path = tmp_path / "theirs.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(UsageError, match="not a log of Funicular"):
        SqliteLog.open(path)


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    """A log that a later program wrote is not touched."""
    path = tmp_path / "log.db"
    SqliteLog.open(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(UsageError, match="version 99"):
        SqliteLog.open(path)


def test_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    """Looking at a log that is not there makes none."""
    with pytest.raises(UsageError, match="There is no log"):
        SqliteLog.peek(tmp_path / "log.db")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """A log below a file, or a log that is a folder, is a sentence for the user."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="Cannot make the folder"):
        SqliteLog.open(tmp_path / "file" / "log.db")
    with pytest.raises(UsageError, match="Cannot"):
        SqliteLog.open(tmp_path)


def test_a_refused_log_can_be_opened_when_it_is_mended(tmp_path: Path) -> None:
    """A failed opening holds no lock."""
    path = tmp_path / "log.db"
    path.write_text("x" * 1_000)
    with pytest.raises(UsageError):
        SqliteLog.open(path)
    path.unlink()
    SqliteLog.open(path).close()


@pytest.mark.parametrize("count", [0, 1, 2, 3, 31, 128, 200])
def test_many_rows_are_written_in_few_statements(count: int) -> None:
    """Each row is written once, whatever their number."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (a, b)")
    write_rows(connection, "INSERT INTO t VALUES", [(n, str(n)) for n in range(count)])
    assert connection.execute("SELECT a FROM t ORDER BY rowid").fetchall() == [
        (n,) for n in range(count)
    ]
    connection.close()


@pytest.mark.parametrize(
    ("table", "columns"),
    [("state", "stage, key, part"), ("timer", "stage, key, name"), ("position", "topic, reader")],
)
@pytest.mark.parametrize("count", [1, 2, 9, 300])
def test_rows_are_deleted_by_their_key(table: str, columns: str, count: int) -> None:
    """Those given go, the others stay, and SQLite finds each by the table's key."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(TABLES)
    width = len(columns.split(", "))
    others = len(connection.execute(f"PRAGMA table_info({table})").fetchall()) - width
    keys = [("s", f"k{number}", "p")[:width] for number in range(count)]
    rows = [(*key, *([0] * others)) for key in [*keys, ("s", "other", "p")[:width]]]
    write_rows(connection, f"INSERT INTO {table} VALUES", rows)
    steps: list[str] = []
    connection.set_trace_callback(steps.append)

    delete_rows(connection, table, columns, keys)

    connection.set_trace_callback(None)
    assert connection.execute(f"SELECT {columns} FROM {table}").fetchall() == [rows[-1][:width]]
    for step in steps:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {step}")]
        assert plan[0].startswith(f"SEARCH {table} USING PRIMARY KEY"), plan
    connection.close()
