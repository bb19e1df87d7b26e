"""The job by hand on Quix Streams: one dataframe without branches, its RocksDB state.

Run: `python quix_program.py FILE`, in an environment with quixstreams; FILE is JSON: `bootstrap`,
`prefix`, `folder`, `job` (`whole`, or `convert`: decode alone). It works until SIGTERM.

What was chosen as fastest: bytes in and orjson here instead of a deserializer, one stateful
function that gives all messages for both topics (a branch would copy each value), one entry of
state a device, no fsync of the state (its changelog is in Kafka), lz4, commits each second.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
from by_hand import decode, downlink, route
from quixstreams import Application, State
from quixstreams.state.rocksdb import RocksDBOptions

COMMIT_S = 1.0

given = orjson.loads(Path(sys.argv[1]).read_bytes())
prefix = given["prefix"]
app = Application(
    broker_address=given["bootstrap"],
    consumer_group=f"{prefix}job",
    auto_offset_reset="earliest",
    auto_create_topics=True,
    commit_interval=COMMIT_S,
    processing_guarantee="exactly-once",
    state_dir=Path(given["folder"]) / "state",
    rocksdb_options=RocksDBOptions(use_fsync=False),
    producer_extra_config={
        "compression.type": "lz4",
        "linger.ms": 20,
        "queue.buffering.max.messages": 1_000_000,
    },
    loglevel="WARNING",
)


def topic(name: str, value: str) -> Any:
    """Return one of the topics, whose keys are bytes."""
    return app.topic(
        prefix + name,
        key_serializer="bytes",
        key_deserializer="bytes",
        value_serializer=value,
        value_deserializer="bytes",
    )


uplinks, deliveries, downlinks, events = (
    topic(name, "json") for name in ("uplink.received", "deliveries", "downlinks", "events")
)


def work(body: bytes, state: State) -> list[dict[str, Any]]:
    """Return the messages that come of one uplink."""
    event = decode(body)
    after, delivery, down = route(event, state.get("attributes"))
    state.set("attributes", after)
    if down is None:
        return [delivery]
    return [delivery, downlink(event["device"], down)]


def which(value: dict[str, Any], _key: Any, _timestamp: int, _headers: Any) -> Any:
    """Return the topic of a message."""
    return downlinks if "payload_raw" in value else deliveries


def main() -> None:
    """Do the job."""
    frame = app.dataframe(uplinks)
    if given["job"] == "convert":
        frame.apply(decode).to_topic(events)
    else:
        frame.apply(work, stateful=True, expand=True).to_topic(which)
    app.run()


if __name__ == "__main__":
    main()
