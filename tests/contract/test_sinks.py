"""The suite that every sink transport passes: those of the folder, and plug-ins of others.

Those that write to a server pass it with the real one; s3 with moto's.
"""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError
from ruamel.yaml import YAML

from pipeline.model.delivery import Delivery
from pipeline.sink.addresses import LOOPBACK
from pipeline.sink.retry import RetryConfig
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Context, Result, Transport, Verdict, transports
from tests.real.sink_servers import (
    Kafka,
    Mqtt,
    ObjectStore,
    Postgresql,
    Rabbitmq,
    Redis,
    SinkServers,
)

NOW_MS = 1_760_000_000_000
TRANSPORTS = sorted(transports())
WORKING = [
    pytest.param(name, marks=pytest.mark.kafka) if name == "kafka" else name for name in TRANSPORTS
]
MINIMAL: dict[str, Callable[[str, SinkServers], dict[str, Any]]] = {
    "http": lambda url, _: {"url": url},
    "file": lambda url, _: {"path": "out/lines.jsonl"},
    "mqtt": lambda _, servers: {
        "server": f"mqtt://127.0.0.1:{servers[Mqtt].port}",
        "topic": "contract/{device}",
    },
    "postgresql": lambda _, servers: {
        "url": f"postgresql://postgres@127.0.0.1:{servers[Postgresql].port}/postgres"
    },
    "kafka": lambda _, servers: {
        "servers": servers[Kafka].bootstrap,
        "topic": servers[Kafka].contract,
    },
    "redis": lambda _, servers: {
        "url": f"redis://127.0.0.1:{servers[Redis].port}",
        "stream": "contract",
    },
    "amqp": lambda _, servers: {
        "url": f"amqp://guest:guest@127.0.0.1:{servers[Rabbitmq].port}/",
        "exchange": "contract",
        "declare": "topic",
        "mandatory": False,
    },
    "influxdb": lambda url, _: {"url": url.removesuffix("/in"), "bucket": "iot"},
    "s3": lambda _, servers: {
        "url": servers[ObjectStore].url,
        "bucket": "bucket",
        "access_key": "access",
        "secret_key": "secret",
        "every": 0.01,
    },
    "thingsboard": lambda _, servers: {
        "server": f"mqtt://127.0.0.1:{servers[Mqtt].port}",
        "token": "gateway",
    },
}
"""A new transport gets a line here: the least config with which it works in a test."""


def example_of(name: str) -> dict[str, Any]:
    """Return the YAML that the docstring of a transport's Config shows."""
    doc = textwrap.dedent(transports()[name].Config.__doc__ or "")
    found = re.search(r"```yaml\n(.*?)```", doc, re.DOTALL)
    assert found, f"the docstring of {name}'s Config shows no YAML"
    return dict(YAML(typ="safe", pure=True).load(textwrap.dedent(found[1])))


def deliveries(count: int) -> list[Delivery]:
    return [
        Delivery(f"d{n}", "acme", f"dev{n % 2}", "app", NOW_MS, body={"n": n, "é": [None, 1.5]})
        for n in range(count)
    ]


@asynccontextmanager
async def accepting() -> AsyncIterator[str]:
    """Run a web server that takes everything; give its address."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=200)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}/in"
    finally:
        await runner.cleanup()


Test = Callable[[Transport], Awaitable[None]]
Using = Callable[[str, Path, Test], None]


@pytest.fixture
def using(sink_servers: SinkServers) -> Using:
    """Return what runs a test with a transport that was made and not opened."""
    return partial(_using, sink_servers)


def _using(servers: SinkServers, name: str, folder: Path, test: Test) -> None:
    MINIMAL[name]("", servers)  # so that servers start before the transport's time begins

    async def main() -> None:
        kind = transports()[name]
        async with accepting() as url:
            context = Context(
                "acme",
                "app",
                SinkSettings(folder=folder, allowed_networks=LOOPBACK),
                lambda: NOW_MS,
            )
            config = kind.Config.model_validate(MINIMAL[name](url, servers))
            await test(kind(config, context))

    asyncio.run(asyncio.wait_for(main(), 15))


@pytest.mark.parametrize("name", TRANSPORTS)
def test_the_name_is_the_files(name: str) -> None:
    """`transport: <name>` is found in `sink/<name>.py`, or in a plug-in's module."""
    kind = transports()[name]
    assert kind.name == name
    module = getattr(kind, "__module__", "")
    assert module == f"pipeline.sink.{name}" or not module.startswith("pipeline.")


@pytest.mark.parametrize("name", TRANSPORTS)
def test_the_docstrings_yaml_is_valid(name: str) -> None:
    """The example that a user copies is accepted, and names its transport."""
    example = example_of(name)
    assert example.pop("transport") == name
    transports()[name].Config.model_validate(example)


@pytest.mark.parametrize("name", TRANSPORTS)
def test_the_config_is_frozen_and_strict(name: str) -> None:
    """A config cannot be changed, and an unknown key is a fault."""
    model = transports()[name].Config
    example = example_of(name)
    example.pop("transport")
    config = model.model_validate(example)
    field = next(iter(model.model_fields))
    with pytest.raises(ValidationError):
        setattr(config, field, getattr(config, field))
    with pytest.raises(ValidationError):
        model.model_validate(example | {"no_such_key": 1})


@pytest.mark.parametrize("name", TRANSPORTS)
def test_equal_configs_are_equal(name: str) -> None:
    """The same YAML read twice gives equal configs, so that a new version restarts nothing."""
    example = example_of(name)
    example.pop("transport")
    model = transports()[name].Config
    assert model.model_validate(example) == model.model_validate(example)
    assert model.model_json_schema()["additionalProperties"] is False


@pytest.mark.parametrize("name", WORKING)
def test_one_result_a_delivery(name: str, tmp_path: Path, using: Using) -> None:
    """`deliver` returns as many results as it got deliveries, in order, up to its own limit."""

    async def test(transport: Transport) -> None:
        await transport.open()
        assert transport.deliveries_max >= 1
        assert transport.concurrency >= 1
        assert isinstance(transport.retry, RetryConfig)
        for count in {1, min(3, transport.deliveries_max)}:
            results = await transport.deliver(deliveries(count))
            assert all(isinstance(result, Result) for result in results)
            assert [result.verdict for result in results] == [Verdict.DELIVERED] * count
        await transport.close()

    using(name, tmp_path, test)


@pytest.mark.parametrize("name", WORKING)
def test_open_and_close_again(name: str, tmp_path: Path, using: Using) -> None:
    """Both may be done twice, close also before open, and a closed one can be opened again."""

    async def test(transport: Transport) -> None:
        await transport.close()
        for _ in range(2):
            await transport.open()
            await transport.open()
            (result,) = await transport.deliver(deliveries(1))
            assert result.verdict is Verdict.DELIVERED
            await transport.close()
            await transport.close()

    using(name, tmp_path, test)


@pytest.mark.parametrize("name", WORKING)
def test_a_cancelled_delivery_leaves_it_usable(name: str, tmp_path: Path, using: Using) -> None:
    """Cancelled in the middle, it closes cleanly, and works when it is opened again."""

    async def test(transport: Transport) -> None:
        await transport.open()
        task = asyncio.create_task(transport.deliver(deliveries(1)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await transport.close()
        await transport.open()
        (result,) = await transport.deliver(deliveries(1))
        assert result.verdict is Verdict.DELIVERED
        await transport.close()

    using(name, tmp_path, test)
