"""Objects as Parquet: JSON lines of deliveries in, one file's bytes out.

A row is a delivery: `id`, `device` (text), `time` (timestamp in milliseconds, UTC), `body` (JSON
as text), and the columns that the user takes out of the body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from pydantic import Field, field_validator

from pipeline.part import Part

COLUMNS_MAX = 200
CONTENT_TYPE = "application/vnd.apache.parquet"
OWN = ("id", "device", "time", "body")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 63) - 1


class ColumnConfig(Part):
    """A column of its own: a member of the body (`path`, as `telemetry.temperature`; by default the
    column's name) and its type. A value of another type is null there; it stays in `body`.
    """

    type: Literal["double", "int", "bool", "string"]
    path: str = Field(default="", max_length=500)


Columns = Mapping[str, ColumnConfig]


class ParquetColumns(Part):
    """What a Config has for objects as Parquet."""

    columns: dict[str, ColumnConfig] = Field(default_factory=dict, max_length=COLUMNS_MAX)

    @field_validator("columns")
    @classmethod
    def _have_names(cls, columns: dict[str, ColumnConfig]) -> dict[str, ColumnConfig]:
        for name in columns:
            if not _NAME.fullmatch(name) or name in OWN:
                raise ValueError(
                    f"`{name}` is no column's name: letters, digits and _, and none of"
                    f" {', '.join(OWN)}"
                )
        return columns


class _Line(msgspec.Struct):
    id: str
    device: str
    time: str
    body: msgspec.Raw


_decode = msgspec.json.Decoder(_Line).decode


def encode(lines: Sequence[bytes], columns: Columns, compression: str) -> bytes:
    """Return the file of some lines, as the sink writes them. `compression` is Parquet's own:
    `gzip`, `zstd` or `none`. It computes for a while: call it in a thread.
    """
    import pyarrow as pa  # noqa: PLC0415 - an extra
    from pyarrow import parquet  # noqa: PLC0415 - an extra

    types = {"double": pa.float64(), "int": pa.int64(), "bool": pa.bool_(), "string": pa.string()}
    rows = [_decode(line) for line in lines]
    bodies = [msgspec.json.decode(row.body) for row in rows] if columns else []
    made = {
        "id": pa.array([row.id for row in rows], pa.string()),
        "device": pa.array([row.device for row in rows], pa.string()),
        "time": pa.array(
            [datetime.fromisoformat(row.time) for row in rows], pa.timestamp("ms", tz="UTC")
        ),
        "body": pa.array([bytes(row.body).decode() for row in rows], pa.string()),
    }
    for name, column in columns.items():
        path = (column.path or name).split(".")
        values = [_value(body, path, column.type) for body in bodies]
        made[name] = pa.array(values, types[column.type])
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(made), sink, compression=compression)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _value(body: Any, path: Sequence[str], kind: str) -> Any:
    """Return a member of a body, None where it is not there or of another type."""
    value = body
    for name in path:
        value = value.get(name) if type(value) is dict else None
    match kind:
        case "double":
            return float(value) if type(value) in (int, float) else None
        case "int":
            return value if type(value) is int and _INT_MIN <= value <= _INT_MAX else None
        case "bool":
            return value if type(value) is bool else None
    return value if type(value) is str else None
