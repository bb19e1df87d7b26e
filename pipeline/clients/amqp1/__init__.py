"""A client of AMQP 1.0, for sources and sinks."""

from __future__ import annotations

from .arrivals import Arrival, Outcome, Receiver, ServerError
from .connection import Connection, connected
from .management import Management

__all__ = [
    "Arrival",
    "Connection",
    "Management",
    "Outcome",
    "Receiver",
    "ServerError",
    "connected",
]
