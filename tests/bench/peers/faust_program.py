"""The job by hand on faust-streaming: one agent, one table in memory.

Run: `python faust_program.py FILE`, in an environment with faust-streaming; FILE is JSON:
`bootstrap`, `prefix`, `partitions`, `folder`, `once`. It works until SIGTERM.

What was chosen as fastest of what works: uvloop, bytes and orjson instead of Faust's models and
codecs, a store in memory, lz4 and a little linger. `send_soon` in place of `send` gained nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import faust
import orjson
from by_hand import decode, downlink, route

given = orjson.loads(Path(sys.argv[1]).read_bytes())
prefix, partitions = given["prefix"], given["partitions"]
app = faust.App(
    f"{prefix}job",
    broker=f"kafka://{given['bootstrap']}",
    broker_max_poll_records=2_000,
    consumer_auto_offset_reset="earliest",
    datadir=given["folder"],
    processing_guarantee="exactly_once" if given["once"] else "at_least_once",
    producer_compression_type="lz4",
    producer_linger=0.005,
    producer_max_batch_size=262_144,
    store="memory://",
    stream_buffer_maxsize=16_384,
    topic_disable_leader=True,
    topic_partitions=partitions,
    topic_replication_factor=1,
    web_enabled=False,
)
raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
uplinks = app.topic(f"{prefix}uplink.received", **raw)
deliveries = app.topic(f"{prefix}deliveries", **raw)
downlinks = app.topic(f"{prefix}downlinks", **raw)
changelog = app.topic(
    f"{prefix}job-attributes-changelog",
    internal=True,
    compacting=True,
    partitions=partitions,
    **raw,
)
attributes = app.Table(
    "attributes", key_type=bytes, value_type=bytes, partitions=partitions, changelog_topic=changelog
)


@app.agent(uplinks)
async def work(stream: faust.Stream) -> None:
    """Do the job, one uplink after the other."""
    async for key, body in stream.items():
        event = decode(body)
        before = attributes.get(key)
        after, delivery, down = route(event, None if before is None else orjson.loads(before))
        attributes[key] = orjson.dumps(after)
        await deliveries.send(key=key, value=orjson.dumps(delivery))
        if down is not None:
            message = orjson.dumps(downlink(event["device"], down))
            await downlinks.send(key=key, value=message)


if __name__ == "__main__":
    sys.argv[1:] = ["--loop=uvloop", "--quiet", "worker", "--loglevel=warn", "--without-web"]
    app.main()
