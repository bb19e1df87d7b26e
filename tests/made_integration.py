"""An integration for tests, of which each says what matters to it alone."""

from __future__ import annotations

from typing import Any

from pipeline.rulebook.book import Authentication, Integration


def made_integration(**said: Any) -> Integration:
    """Return an integration of `acme` without authentication and converter; `name` and `dialect`
    must be said.
    """
    defaults: dict[str, Any] = {
        "tenant": "acme",
        "options": None,
        "authentication": Authentication(),
        "device_template": "{device_id}",
        "converter": None,
        "synchronous": False,
        "answer_timeout_s": 5.0,
        "unanswered": "requeue",
        "queue_max": 10,
        "body_bytes_max": 10_000,
        "ordered": True,
        "metadata": {},
        "device_type": "",
    }
    return Integration(**{**defaults, **said})
