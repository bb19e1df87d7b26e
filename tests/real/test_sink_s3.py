"""The sink `s3` against moto's server: a fake, yet of the real protocol."""

from __future__ import annotations

import asyncio
import gzip
import io
from typing import Any

import orjson
import pytest
from pyarrow import parquet

from tests.real.sink_servers import ObjectStore, SinkServers
from tests.real.sink_work import (
    DELIVERED,
    POSTPONED,
    deliveries,
    delivery,
    opened,
    verdicts,
)


@pytest.fixture
def store(sink_servers: SinkServers) -> ObjectStore:
    return sink_servers[ObjectStore]


def config(store: ObjectStore, prefix: str, **more: Any) -> dict[str, Any]:
    return {
        "url": store.url,
        "bucket": "bucket",
        "access_key": "access",
        "secret_key": "secret",
        "prefix": f"{prefix}/{{tenant}}/",
        "every": 0.2,
        **more,
    }


def objects(store: ObjectStore, prefix: str) -> dict[str, bytes]:
    """Return the objects below a prefix, by name."""
    found = store.client.list_objects_v2(Bucket="bucket", Prefix=f"{prefix}/").get("Contents", [])
    return {
        one["Key"]: store.client.get_object(Bucket="bucket", Key=one["Key"])["Body"].read()
        for one in found
    }


async def test_what_comes_together_is_one_object(store: ObjectStore) -> None:
    """Calls that come within `every` make one object of JSON lines, zipped, under its day."""
    async with opened("s3", **config(store, "one")) as transport:
        calls = [transport.deliver([one]) for one in deliveries(20, devices=20)]
        results = [result for call in await asyncio.gather(*calls) for result in call]
    ((name, content),) = objects(store, "one").items()

    assert verdicts(results) == [DELIVERED] * 20
    assert name.startswith("one/acme/2026/09/21/141320-")
    assert name.endswith(".jsonl.gz")
    lines = [orjson.loads(line) for line in gzip.decompress(content).splitlines()]
    assert [line["id"] for line in lines] == [f"d{n}" for n in range(20)]
    assert lines[1] == {
        "id": "d1",
        "device": "dev1",
        "time": "2026-09-21T14:13:20.001Z",
        "body": {"n": 1, "é": [None, 1.5]},
    }


async def test_a_full_object_waits_for_nothing(store: ObjectStore) -> None:
    """With `records` reached an object is stored at once, also when `every` is an hour."""
    settings = config(store, "full", every="1h", records=10, compression="none")
    async with opened("s3", **settings) as transport:
        async with asyncio.timeout(5):
            results = await transport.deliver(deliveries(10))
    ((name, content),) = objects(store, "full").items()

    assert verdicts(results) == [DELIVERED] * 10
    assert name.endswith(".jsonl")
    assert len(content.splitlines()) == 10


async def test_the_same_deliveries_make_the_same_object(store: ObjectStore) -> None:
    """A repeat of the same batch in the same second writes over its own object."""
    async with opened("s3", **config(store, "same", records=5)) as transport:
        for _ in range(2):
            await transport.deliver(deliveries(5))

    assert len(objects(store, "same")) == 1


async def test_who_is_cancelled_takes_no_other_along(store: ObjectStore) -> None:
    """A call that is cancelled leaves the object of the others to be stored."""
    async with opened("s3", **config(store, "cancel")) as transport:
        first = asyncio.create_task(transport.deliver([delivery(0, "a")]))
        second = asyncio.create_task(transport.deliver([delivery(1, "b")]))
        await asyncio.sleep(0.05)
        first.cancel()
        assert verdicts(await second) == [DELIVERED]
        assert (await asyncio.gather(first, return_exceptions=True))[0].__class__.__name__ == (
            "CancelledError"
        )

    assert len(objects(store, "cancel")) == 1


async def test_what_is_wrong_with_the_destination_is_said(store: ObjectStore) -> None:
    """A bucket that is not there, and nobody there, postpone all, in words without a secret."""
    for change, said in (
        ({"bucket": "absent"}, "NoSuchBucket"),
        ({"url": "http://127.0.0.1:1"}, ""),
    ):
        settings = config(store, "bad") | change | {"secret_key": "geheim77"}
        async with opened("s3", **settings) as transport:
            results = await transport.deliver(deliveries(2))
        assert verdicts(results) == [POSTPONED] * 2
        assert said in results[0].message
        assert "geheim77" not in str(results[0])


async def test_text_of_a_template_is_one_line(store: ObjectStore) -> None:
    """What is no JSON, or has line breaks, is a text in its line."""
    template = {"template": {"body": "n=${body.n}\n", "content_type": "text/plain"}}
    settings = config(store, "text", format=template, compression="none", records=2)
    async with opened("s3", **settings) as transport:
        await transport.deliver(deliveries(2))
    (content,) = objects(store, "text").values()

    assert [orjson.loads(line)["body"] for line in content.splitlines()] == ["n=0\n", "n=1\n"]


async def test_objects_as_parquet(store: ObjectStore) -> None:
    """An object is a Parquet file that Arrow reads: each delivery a row, with a column out of its
    body.
    """
    settings = config(store, "columns", objects="parquet", compression="zstd", records=20,
                      columns={"n": {"type": "int"}})  # fmt: skip
    async with opened("s3", **settings) as transport:
        results = await transport.deliver(deliveries(20))
    ((name, content),) = objects(store, "columns").items()

    assert verdicts(results) == [DELIVERED] * 20
    assert name.endswith(".parquet")
    head = store.client.head_object(Bucket="bucket", Key=name)
    assert head["ContentType"] == "application/vnd.apache.parquet"
    rows = parquet.read_table(io.BytesIO(content)).to_pylist()
    assert [(row["id"], row["n"]) for row in rows] == [(f"d{n}", n) for n in range(20)]
    assert orjson.loads(rows[1]["body"]) == {"n": 1, "é": [None, 1.5]}
