"""What logs say, and what they must not."""

from __future__ import annotations

import io
import json

import pytest
import structlog

from pipeline.logs import LogFormat, configure_logs, get_logger


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_error_is_logged_without_the_values_of_variables(log_format: LogFormat) -> None:
    """The way that it came by is there; what variables held on it, such as a key, is not."""
    written = io.StringIO()
    before = structlog.get_config()
    configure_logs(log_format, to=written)
    try:
        _fail("the-key-of-a-" + "device")
    except ValueError as error:
        get_logger("test").error("it failed", exc_info=error)
    finally:
        structlog.configure(**before)

    said = written.getvalue()
    assert "it failed" in said
    assert "_fail" in said
    assert "what went wrong" in said
    assert "the-key-of-a-device" not in said
    if log_format == "json":
        assert json.loads(said)["level"] == "error"


def _fail(secret: str) -> None:
    raise ValueError("what went wrong" if secret else "")
