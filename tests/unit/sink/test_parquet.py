"""Objects as Parquet, read by the library of Arrow."""

from __future__ import annotations

import io
from typing import Any

import orjson
import pytest
from pyarrow import parquet
from pydantic import ValidationError

from pipeline.sink.parquet import ColumnConfig, ParquetColumns, encode
from pipeline.sink.s3 import S3Config

TIME = "2026-09-21T14:13:20.001Z"


def line(number: int, body: Any) -> bytes:
    return orjson.dumps({"id": f"d{number}", "device": "dev", "time": TIME, "body": body})


def table(bodies: list[Any], compression: str = "gzip", **columns: Any) -> Any:
    taken = {name: ColumnConfig.model_validate(one) for name, one in columns.items()}
    content = encode([line(n, body) for n, body in enumerate(bodies)], taken, compression)
    return parquet.read_table(io.BytesIO(content))


def test_rows() -> None:
    """A row is a delivery: its names, its time to the millisecond in UTC, its body as JSON."""
    made = table([{"n": 1, "é": [None, 1.5]}, "text"])

    assert [str(kind) for kind in made.schema.types] == [
        "string", "string", "timestamp[ms, tz=UTC]", "string"
    ]  # fmt: skip
    rows = made.to_pylist()
    assert [row["id"] for row in rows] == ["d0", "d1"]
    assert rows[0]["time"].isoformat() == "2026-09-21T14:13:20.001000+00:00"
    assert [orjson.loads(row["body"]) for row in rows] == [{"n": 1, "é": [None, 1.5]}, "text"]


def test_body_is_kept_as_it_came() -> None:
    """Numbers past 64 bits are not rounded in `body`."""
    huge = b'{"id":"d","device":"v","time":"%s","body":{"n":123456789012345678901234567890}}'
    content = encode([huge % TIME.encode()], {}, "none")

    (row,) = parquet.read_table(io.BytesIO(content)).to_pylist()
    assert row["body"] == '{"n":123456789012345678901234567890}'


def test_columns_of_ones_own() -> None:
    """Members of the body by their path; what is not there, or of another type, is null."""
    made = table(
        [
            {"telemetry": {"t": 21.5, "open": True}, "count": 3, "name": "a"},
            {"telemetry": {"t": 21, "open": 1}, "count": 3.5, "name": 7},
            {"telemetry": 5, "count": True, "name": None},
            [1],
        ],
        t={"type": "double", "path": "telemetry.t"},
        open={"type": "bool", "path": "telemetry.open"},
        count={"type": "int"},
        name={"type": "string"},
    )

    assert made.column("t").to_pylist() == [21.5, 21.0, None, None]
    assert made.column("open").to_pylist() == [True, None, None, None]
    assert made.column("count").to_pylist() == [3, None, None, None]
    assert made.column("name").to_pylist() == ["a", None, None, None]


def test_whole_numbers_that_fit() -> None:
    """A column of `int` has 64 bits; a larger number is null there, not wrong."""
    made = table([{"n": (1 << 63) - 1}, {"n": 1 << 63}, {"n": -(1 << 63)}], n={"type": "int"})

    assert made.column("n").to_pylist() == [(1 << 63) - 1, None, -(1 << 63)]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_compression(compression: str) -> None:
    """Each is read; the bytes are the same each time, so that a repeat writes the same object."""
    lines = [line(n, {"text": "x" * 100}) for n in range(1_000)]
    first, second = (encode(lines, {}, compression) for _ in range(2))

    assert first == second
    assert parquet.read_table(io.BytesIO(first)).num_rows == 1_000
    codec = parquet.ParquetFile(io.BytesIO(first)).metadata.row_group(0).column(0).compression
    assert codec == {"none": "UNCOMPRESSED"}.get(compression, compression.upper())


@pytest.mark.parametrize("name", ["id", "body", "a b", "1a", ""])
def test_names_of_columns(name: str) -> None:
    """A column has a name that every reader takes, and none of those that are there."""
    with pytest.raises(ValidationError, match="no column's name"):
        ParquetColumns.model_validate({"columns": {name: {"type": "int"}}})


@pytest.mark.parametrize(
    "more", [{"compression": "zstd"}, {"columns": {"t": {"type": "double"}}}], ids=str
)
def test_lines_have_neither(more: dict[str, Any]) -> None:
    """Columns, and a compression that only Parquet has, are refused for lines."""
    settings = {"url": "https://s3.example", "bucket": "bucket", "access_key": "a",
                "secret_key": "s"}  # fmt: skip

    with pytest.raises(ValidationError, match="objects: parquet"):
        S3Config.model_validate(settings | more)
    assert S3Config.model_validate({**settings, **more, "objects": "parquet"})
