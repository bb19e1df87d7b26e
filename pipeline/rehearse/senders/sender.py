"""The port of a sender, and how the folder is scanned for them.

A sender is a function named `SENDER` in `senders/<transport>.py`: it puts one message where the
integration's source finds it, as a device or a network server would.
"""

from __future__ import annotations

from collections.abc import Coroutine
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from pipeline.errors import UsageError
from pipeline.model.http import Request
from pipeline.rulebook.book import Integration


class NotSentError(Exception):
    """The other side could not be reached, or did not take it. The text holds no secret."""


class Sender(Protocol):
    """Sends over one transport."""

    def __call__(
        self, integration: Integration, device_id: str, request: Request
    ) -> Coroutine[Any, Any, bytes]:
        """Send one message, and return what is to be shown of it: its topic, or the answer.

        It returns when the other side has the message. NotSentError: it has not.
        """
        ...


@cache
def sender_of(transport: str) -> Sender:
    """Return the sender of a transport. UsageError: there is none."""
    name = f"pipeline.rehearse.senders.{transport}"
    if not transport.isidentifier() or find_spec(name) is None:
        said = f"nothing can be sent to an integration over {transport}"
        raise UsageError(said, code="no_sender")
    found: Sender = import_module(name).SENDER
    return found
