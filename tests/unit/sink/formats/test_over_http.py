"""Formats over HTTP: content types, headers, arrays, secrets; and the Device API of ThingsBoard,
with a fake server in ThingsBoard's place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pipeline.model.delivery import Origin
from pipeline.sink.transport import DELIVERED, Transport, Verdict, transports
from tests.unit.sink.fakes import Server, World, answers, context, delivery, run, serving


def sending(
    test: Callable[[Transport, Server], Awaitable[None]],
    name: str = "http",
    address: str = "url",
    **config: Any,
) -> None:
    """Run a test with an open sink and its server."""

    async def main() -> None:
        async with serving(World()) as server:
            kind = transports()[name]
            sink = kind(kind.Config.model_validate({address: server.url, **config}), context())
            await sink.open()
            try:
                await test(sink, server)
            finally:
                await sink.close()

    run(main())


def test_cloudevents_binary_is_in_headers() -> None:
    """Binary mode: the attributes are headers `ce-…`, the body is the data."""

    async def test(sink: Transport, server: Server) -> None:
        assert await sink.deliver([delivery(1)]) == [DELIVERED]
        (heard,) = server.heard
        assert heard.json == {"n": 1, "device": "dev1"}
        assert heard.headers["ce-id"] == heard.headers["webhook-id"] == "d1"
        assert heard.headers["ce-specversion"] == "1.0"
        assert heard.headers["content-type"] == "application/json"

    sending(test, format="cloudevents_binary")


def test_cloudevents_in_a_batch() -> None:
    """Several structured events are an array, of the content type that says so."""

    async def test(sink: Transport, server: Server) -> None:
        assert await sink.deliver([delivery(1), delivery(2)]) == [DELIVERED] * 2
        (heard,) = server.heard
        assert [event["id"] for event in heard.json] == ["d1", "d2"]
        assert heard.headers["content-type"].startswith("application/cloudevents-batch+json")

    sending(test, format="cloudevents", batch=10)


def test_v3s_headers_are_sent() -> None:
    """The Things Stack's headers for downlinks go out with each message."""

    async def test(sink: Transport, server: Server) -> None:
        await sink.deliver([delivery(1)])
        (heard,) = server.heard
        assert heard.headers["x-downlink-apikey"] == "fk_1_geheim"
        assert heard.headers["x-downlink-push"].endswith("/devices/dev1/down/push")
        assert heard.json["uplink_message"]["decoded_payload"]["n"] == 1

    sending(test, format={"tts_v3": {"url": "https://f.example", "key": "fk_1_geheim"}})


def test_a_template_of_text_has_its_content_type() -> None:
    """The content type is the template's, unless `headers` says another."""

    async def test(sink: Transport, server: Server) -> None:
        await sink.deliver([delivery(1)])
        (heard,) = server.heard
        assert heard.body == b"n=1"
        assert heard.headers["content-type"] == "text/plain"

    sending(test, format={"template": {"body": "n=${body.n}", "content_type": "text/plain"}})


def test_a_message_that_a_template_cannot_take_is_alone() -> None:
    """An expression that fails on one message refuses that one; the array of the rest goes out."""

    async def test(sink: Transport, server: Server) -> None:
        batch = [delivery(1), delivery(2, body={}), delivery(3)]
        results = await sink.deliver(batch)
        assert [one.verdict for one in results] == [
            Verdict.DELIVERED,
            Verdict.REFUSED,
            Verdict.DELIVERED,
        ]
        assert [number for heard in server.heard for number in heard.json] == [1, 3]

    sending(test, format={"template": {"body": "${body.n}"}}, batch=10)


def test_a_key_that_comes_back_is_blotted_out() -> None:
    """A receiver that answers with the body it got does not bring the downlink key into a log."""

    async def test(sink: Transport, server: Server) -> None:
        server.always["/"] = answers(400, b"bad: ?key=fk_1_geheim")
        (result,) = await sink.deliver([delivery(1)])
        assert result.verdict is Verdict.REFUSED
        assert "geheim" not in str(result)

    sending(test, format={"ttn_v2": {"url": "https://f.example", "key": "fk_1_geheim"}})


WHOLE = {
    "id": "m1",
    "type": "uplink",
    "time": "2026-09-21T14:13:20.000Z",
    "telemetry": {"temperature": 21.5},
    "metadata": {"thingsboard_token": "geheim/77"},
}
TOKEN = "${body.metadata.thingsboard_token}"


def test_thingsboards_device_api() -> None:
    """Telemetry goes to the address of the device's own token with its time, attributes to theirs;
    a device that ThingsBoard does not know is refused alone, and no token is shown.
    """

    async def test(sink: Transport, server: Server) -> None:
        updated = delivery(2, body=WHOLE | {"type": "attributes_updated", "attributes": {"a": 1}})
        updated = msgspec.structs.replace(updated, origin=Origin(type="attributes_updated"))
        assert await sink.deliver([delivery(1, body=WHOLE)]) == [DELIVERED]
        assert await sink.deliver([updated]) == [DELIVERED]
        said = [(heard.method, heard.path, heard.json) for heard in server.heard]
        assert said == [
            (
                "POST",
                "/api/v1/geheim%2F77/telemetry",
                {"ts": 1_790_000_000_000, "values": {"temperature": 21.5}},
            ),
            ("POST", "/api/v1/geheim%2F77/attributes", {"a": 1}),
        ]
        server.always["/api/v1/geheim/77/telemetry"] = answers(401, b"geheim/77 is unknown")
        (result,) = await sink.deliver([delivery(3, body=WHOLE)])
        assert result.verdict is Verdict.REFUSED
        assert "geheim" not in str(result)
        (result,) = await sink.deliver([delivery(4)])
        assert result.verdict is Verdict.REFUSED  # a message without a token

    sending(test, "thingsboard", "server", api="device", token=TOKEN)
