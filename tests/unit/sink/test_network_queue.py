"""The network server's own queue, over HTTP: asked for, emptied, and what is told of it."""

from __future__ import annotations

import msgspec
import pytest

from pipeline.errors import RetryableError
from pipeline.integrations.dialect import QueueDialect, dialects
from pipeline.model.dead_letter import DeadLetter
from pipeline.model.delivery import Delivery
from pipeline.model.event import DownlinkReport
from pipeline.model.http import Call
from pipeline.model.record import Record, headers_of
from pipeline.model.uplink import Link
from pipeline.sink.asking import Asker
from pipeline.sink.downlinks import DownlinkTransport
from pipeline.sink.endings import Ended, How, downlink_ending
from pipeline.sink.mqtt_downlinks import MqttDownlinkTransport
from pipeline.sink.transport import DELIVERED, Context, Verdict
from tests.unit.sink.fakes import (
    REFUSED,
    SETTINGS,
    START_MS,
    TENANT,
    World,
    integration,
    run,
    serving,
)

LINK = Link(application_id="app1", device_id="dev1")
CLEAR = Delivery("c1.clear", TENANT, "dev1", "downlink-ns", START_MS, link=LINK, clear=True)
RECORD = Record(
    "delivery.acme.downlink-ns",
    0,
    7,
    START_MS,
    "acme/dev1",
    msgspec.json.encode(CLEAR),
    headers_of(event_id="c1.clear", trace="t1", cause="c1", tenant=TENANT, rules="r1"),
)


def test_the_things_stack_is_emptied_by_replacing_with_nothing() -> None:
    """The delivery becomes `down/replace` with an empty list."""

    async def main() -> None:
        async with serving(World()) as server:
            dialect = dialects()["tts_v3"]
            options = dialect.options.model_validate({"server": server.url, "api_key": "key"})
            context = Context(TENANT, "downlink-ns", SETTINGS, lambda: START_MS)
            transport = DownlinkTransport(integration(dialect, options=options), context)
            await transport.open()
            assert await transport.deliver([CLEAR]) == [DELIVERED]
            await transport.close()
            (heard,) = server.heard
            assert heard.path.endswith("/applications/app1/devices/dev1/down/replace")
            assert heard.json == {"downlinks": []}

    run(main())


@pytest.mark.parametrize("name", ["chirpstack", "chirpstack_v3"])
@pytest.mark.parametrize("carried", ["http", "mqtt"])
def test_chirpstack_is_flushed(name: str, carried: str) -> None:
    """The delivery becomes a DELETE of the device's queue; also of an integration over MQTT, which
    has no such way of its own.
    """

    async def main() -> None:
        async with serving(World()) as server:
            dialect = dialects()[name]
            options = dialect.options.model_validate({"server": server.url, "api_key": "key"})
            context = Context(TENANT, "downlink-ns", SETTINGS, lambda: START_MS)
            kind = DownlinkTransport if carried == "http" else MqttDownlinkTransport
            transport = kind(integration(dialect, options=options), context)
            assert await transport.deliver([CLEAR]) == [DELIVERED]
            await transport.close()
            (heard,) = server.heard
            assert (heard.method, heard.path) == ("DELETE", "/api/devices/dev1/queue")

    run(main())


def test_others_cannot_be_emptied() -> None:
    """A network server without such a way refuses, with its reason; nothing is sent."""

    async def main() -> None:
        dialect = dialects()["ttn_v2"]
        assert not isinstance(dialect, QueueDialect)
        context = Context(TENANT, "downlink-ns", SETTINGS, lambda: START_MS)
        transport = DownlinkTransport(integration(dialect, options=dialect.options()), context)
        await transport.open()
        (result,) = await transport.deliver([CLEAR])
        await transport.close()
        assert (result.verdict, result.reason) == (Verdict.REFUSED, "no_clear")

    run(main())


def test_what_came_of_it() -> None:
    """An emptied queue is news for the device, of that integration; one that was not emptied is a
    dead letter that can be replayed.
    """
    (news,) = downlink_ending(RECORD, CLEAR, Ended(How.DELIVERED, DELIVERED), START_MS)
    event = msgspec.json.decode(news.value or b"", type=DownlinkReport)
    assert (event.report.cleared, event.integration, event.report.downlink_id) == (True, "ns", "")

    (buried,) = downlink_ending(RECORD, CLEAR, Ended(How.REFUSED, REFUSED), START_MS)
    letter = msgspec.json.decode(buried.value or b"", type=DeadLetter)
    assert (letter.stage, letter.topic) == ("sink", RECORD.topic)
    assert letter.value == RECORD.value


def test_asking() -> None:
    """An answer comes back as it is, whatever its status; none is the world's fault."""

    async def main() -> None:
        asker = Asker(SETTINGS)
        async with serving(World()) as server:
            answer = await asker(Call(f"{server.url}/queue", method="GET"))
            assert answer.status == 200
            assert server.heard[0].method == "GET"
            address = server.url
        with pytest.raises(RetryableError):
            await asker(Call(f"{address}/queue", method="GET"))
        await asker.close()

    run(main())
