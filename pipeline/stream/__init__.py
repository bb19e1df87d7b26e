"""The logs and the engines that run stages on them."""

from pipeline.stream.engine import SqliteEngine
from pipeline.stream.memory import MemoryEngine
from pipeline.stream.settings import EngineSettings, LogSettings
from pipeline.stream.sqlite import SqliteLog, SqliteReader
from pipeline.stream.view import LogView

__all__ = [
    "EngineSettings",
    "LogSettings",
    "LogView",
    "MemoryEngine",
    "SqliteEngine",
    "SqliteLog",
    "SqliteReader",
]
