"""How one integration's connection does: for `funicular integrations`, the metrics and the log.

A fault is logged when it is new, and its end once; what repeats is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from pipeline.logs import get_logger
from pipeline.metrics import Registry

State = Literal["connecting", "connected", "lost", "standby", "stopped"]
_log = get_logger(__name__)


class IntegrationStatus(msgspec.Struct, frozen=True):
    """One integration, at one moment. Times are epoch milliseconds; None: never.

    `state` of an integration that is posted to is `open`: whether its network server still posts,
    `last_message_ms` tells. `standby`: another worker has the connection (`note` says which).
    `passed_over` counts messages that were none of a device's.
    """

    tenant: str
    integration: str
    dialect: str
    transport: str
    state: str
    since_ms: int | None
    last_message_ms: int | None
    messages: int
    refused: int
    passed_over: int
    connects: int
    errors: int
    last_error: str = ""
    last_error_ms: int | None = None
    note: str = ""


class SourceHealth:
    """Keeps count for one source. All methods are called on the loop."""

    def __init__(
        self, tenant: str, integration: str, dialect: str, transport: str, now_ms: Callable[[], int]
    ) -> None:
        self._labels = {"tenant": tenant, "integration": integration}
        self._dialect = dialect
        self._transport = transport
        self._now_ms = now_ms
        self._state: State = "connecting"
        self._since_ms = now_ms()
        self._last_message_ms: int | None = None
        self._counts: Counter[str] = Counter()
        self._told: Counter[str] = Counter()  # what the registry has
        self._last_error = ""
        self._last_error_ms: int | None = None
        self._fault = ""  # that was logged, and whose end was not
        self._faults = 0
        self._note = ""

    def connecting(self) -> None:
        """A connection is being made. A fault stays the state until it is there."""
        if self._state != "lost":
            self._enter("connecting")

    def standby(self) -> None:
        """The connection is another worker's, or nobody's yet."""
        if self._state == "connected":
            _log.info("an integration stands by: its lease is another worker's", **self._labels)
        self._enter("standby")
        self._fault, self._faults, self._note = "", 0, ""

    def connected(self, note: str = "") -> None:
        """It is connected and subscribed."""
        self._enter("connected")
        self._counts["connects"] += 1
        if note != self._note and note:
            _log.warning("an integration's connection has a limit", note=note, **self._labels)
        self._note = note
        if self._fault or self._counts["connects"] == 1:
            more = {"after": self._fault, "tries": self._faults} if self._fault else {}
            _log.info("an integration is connected", **self._labels, **more)
        self._fault, self._faults = "", 0

    def broke(self, error: str) -> None:
        """A connection could not be made, or broke."""
        self._enter("lost")
        self._counts["errors"] += 1
        self._faults += 1
        self._last_error, self._last_error_ms = error, self._now_ms()
        if self._fault != error:
            self._fault = error
            _log.warning("an integration is not connected", error=error, **self._labels)

    def troubled(self, error: str) -> None:
        """The connection is there, and what it brings cannot be stored: no message is taken."""
        self._counts["errors"] += 1
        self._last_error, self._last_error_ms = error, self._now_ms()

    def stopped(self) -> None:
        """Nobody wants it any more."""
        self._enter("stopped")

    def took(self, messages: int, refused: int) -> None:
        """So many messages are durable; `refused` of them are no message of the dialect, and will
        be dead letters.
        """
        self._counts["messages"] += messages
        self._counts["refused"] += refused
        self._last_message_ms = self._now_ms()

    def passed_over(self, count: int, reason: str) -> None:
        """So many messages were none of a device's; said in the log once a reason."""
        if not self._counts[f"over {reason}"]:
            _log.info("messages are passed over", reason=reason, **self._labels)
        self._counts[f"over {reason}"] += count
        self._counts["passed_over"] += count

    def _enter(self, state: State) -> None:
        if state != self._state:
            self._state, self._since_ms = state, self._now_ms()

    def status(self) -> IntegrationStatus:
        """Return how it does now."""
        counts = self._counts
        return IntegrationStatus(
            tenant=self._labels["tenant"],
            integration=self._labels["integration"],
            dialect=self._dialect,
            transport=self._transport,
            state=self._state,
            since_ms=self._since_ms,
            last_message_ms=self._last_message_ms,
            messages=counts["messages"],
            refused=counts["refused"],
            passed_over=counts["passed_over"],
            connects=counts["connects"],
            errors=counts["errors"],
            last_error=self._last_error,
            last_error_ms=self._last_error_ms,
            note=self._note,
        )

    def flush(self, metrics: Registry) -> None:
        """Move the counts into the registry. Called now and then."""
        labels = self._labels
        for name, metric in _COUNTED.items():
            amount = self._counts[name] - self._told[name]
            if amount:
                metrics.add(metric, amount, **labels)
        self._told = Counter(self._counts)
        connected: Any = self._state == "connected"
        metrics.set("funicular_integration_connected", float(connected), **labels)
        standby: Any = self._state == "standby"
        metrics.set("funicular_integration_standby", float(standby), **labels)
        if self._last_message_ms is not None:
            metrics.set(
                "funicular_integration_last_message_seconds",
                self._last_message_ms / 1_000,
                **labels,
            )


_COUNTED = {
    "messages": "funicular_integration_messages_total",
    "refused": "funicular_integration_refused_total",
    "passed_over": "funicular_integration_passed_over_total",
    "connects": "funicular_integration_connects_total",
    "errors": "funicular_integration_errors_total",
}
