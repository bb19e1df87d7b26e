from __future__ import annotations

from pipeline.sink.file import FileConfig, FileSink
from pipeline.sink.http import HttpConfig, HttpSink
from pipeline.sink.transport import config_models, transports


def test_the_folder_is_scanned() -> None:
    """Each file of the room with a TRANSPORT is found by its name."""
    assert transports()["http"] is HttpSink
    assert transports()["file"] is FileSink


def test_the_rulebook_gets_the_models() -> None:
    """The catalogue's models are those of the transports."""
    models = config_models()
    assert (models["http"], models["file"]) == (HttpConfig, FileConfig)
    assert set(models) == set(transports())
