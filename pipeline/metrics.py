"""Every metric's name, with what it counts; and the registry that `/metrics` prints.

Names are `funicular_<noun>_<unit>_total` for counters, `funicular_<noun>_<unit>` for gauges.
Counters are bumped per batch, never per message.
"""

from __future__ import annotations

from collections import defaultdict
from threading import Lock

METRICS: dict[str, str] = {
    # The door: requests by integration and HTTP status.
    "funicular_requests_total": "HTTP requests at the door, by tenant, integration and status",
    # Integrations with a connection of their own (MQTT, Kafka): whether it stands, and what came.
    "funicular_integration_connected": "1 where the connection stands, by tenant and integration",
    "funicular_integration_standby": "1 where another worker has the connection, by integration",
    "funicular_integration_messages_total": "Messages taken by a connection, by integration",
    "funicular_integration_refused_total": "Messages that were none of the dialect: dead letters",
    "funicular_integration_passed_over_total": "Messages that were none of a device's",
    "funicular_integration_connects_total": "Connections made, the first and each anew",
    "funicular_integration_errors_total": "Connections that failed or broke, appends that failed",
    "funicular_integration_last_message_seconds": "When the last message came, in epoch seconds",
    # Requests that wait for a downlink or a verdict right now.
    "funicular_requests_waiting": "Requests that wait for their answer",
    # Records a stage has handled and committed.
    "funicular_stage_records_total": "Records handled and committed, by stage",
    # Batches a stage has committed; records / batches is the mean batch.
    "funicular_stage_batches_total": "Batches committed, by stage",
    # Time in `handle`, the script engine's included.
    "funicular_stage_seconds_total": "Seconds spent handling batches, by stage",
    # Records appended to a topic and not yet handled by the group.
    "funicular_lag_records": "Records that wait, by topic and group",
    # Dead letters by stage and reason (the error's code).
    "funicular_dead_letters_total": "Dead letters, by stage and reason",
    # What rule nodes decided: messages by chain, node and the outlet that they left by.
    "funicular_rule_nodes_total": "Messages through rule nodes, by tenant, chain, node and outlet",
    # Moves in downlinks' lives, by the state reached.
    "funicular_downlinks_total": "Downlinks that reached a state, by state",
    # Deliveries by destination and result: delivered, retried, given_up.
    "funicular_deliveries_total": "Deliveries, by tenant, destination and result",
    # 1 for the state that a destination is in: ok, failing (it is tried again), disabled (410).
    "funicular_destination_state": "1 for the destination's state, by tenant and destination",
    # Commits of the embedded log and what they took with the sync to disk.
    "funicular_log_commits_total": "Commits of the embedded log (one sync to disk each)",
    "funicular_log_bytes": "Size of the embedded log's file",
    # Records that a stage put out; beside it `funicular_stage_records_total` is what came in.
    "funicular_stage_outputs_total": "Records put out and committed, by stage and partition",
    # Transactions of stages on Kafka: committed, or aborted (and tried again).
    "funicular_transactions_total": "Transactions on Kafka, by stage and result",
    "funicular_transaction_seconds_total": "Seconds in committed transactions, by stage",
    # Partitions that a stage of this process has, and how often they were dealt out anew.
    "funicular_partitions": "Partitions assigned, by stage",
    "funicular_partition_held": "1: it waits for the rules that wrote it, by stage and partition",
    "funicular_rebalances_total": "Rebalances of a stage's group seen, by stage and kind",
    # What it took to bring a partition's state here: the last time, and all records read.
    "funicular_restore_seconds": "Seconds of a partition's last restore, by stage and partition",
    "funicular_restore_records_total": "Changelog records restored, by stage and partition",
    # Script processes that had to be ended and started anew, by reason.
    "funicular_script_restarts_total": "Script processes ended and started anew, by reason",
    # Rules: what is in force, and what is wrong with edits that were refused (0: nothing).
    "funicular_rules_info": "1 for the version of the rules in force, by tenant and version",
    "funicular_rules_faults": "Faults of edited rules that were refused; the old ones run",
}

_Labels = tuple[tuple[str, str], ...]


class Registry:
    """Counts. Thread-safe; one a process."""

    def __init__(self) -> None:
        self._values: dict[str, dict[_Labels, float]] = defaultdict(dict)
        self._lock = Lock()

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Add to a counter. KeyError: the name is not in METRICS."""
        METRICS[name]
        key = tuple(sorted(labels.items()))
        with self._lock:
            series = self._values[name]
            series[key] = series.get(key, 0) + amount

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge. KeyError: the name is not in METRICS."""
        METRICS[name]
        with self._lock:
            self._values[name][tuple(sorted(labels.items()))] = value

    def clear(self, name: str) -> None:
        """Forget all series of a gauge, before those that are left are set. KeyError: as `set`."""
        METRICS[name]
        with self._lock:
            self._values.pop(name, None)

    def values(self, name: str) -> dict[_Labels, float]:
        """Return a copy of one metric's series: labels (sorted pairs) → value."""
        with self._lock:
            return dict(self._values.get(name, {}))

    def text(self) -> str:
        """Return all of them in Prometheus' text format."""
        lines = []
        for name, about in METRICS.items():
            series = self.values(name)
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            for labels, value in sorted(series.items()):
                lines.append(f"{name}{_braces(labels)} {value:g}")
        return "\n".join(lines) + "\n"


def _braces(labels: _Labels) -> str:
    if not labels:
        return ""
    pairs = (f'{name}="{_escape(value)}"' for name, value in labels)
    return "{" + ",".join(pairs) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
