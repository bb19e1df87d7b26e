from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from pipeline.integrations.dialect import dialects
from pipeline.model.delivery import Delivery
from pipeline.model.uplink import Link
from pipeline.sink.downlinks import DownlinkTransport
from pipeline.sink.transport import DELIVERED, Context, Verdict
from tests.unit.sink.fakes import (
    SETTINGS,
    START_MS,
    TENANT,
    Server,
    World,
    answers,
    downlink_delivery,
    integration,
    resets,
    run,
    serving,
)

KEY = "NNSXS.SECRETSECRET"
PUSH = "/api/v3/as/applications/app1/devices/dev1/down/push"
ERROR = (
    b'{"code":5,"message":"error:pkg/networkserver:device_not_found (device `dev1` not found)",'
    b'"details":[{"@type":"type.googleapis.com/ttn.lorawan.v3.ErrorDetails"}]}'
)


def one(number: int = 1, **more: Any) -> Delivery:
    link = Link(application_id="app1", device_id="dev1")
    return msgspec.structs.replace(downlink_delivery(number, **more), link=link)


def handing_over(test: Callable[[DownlinkTransport, Server], Awaitable[None]]) -> None:
    """Run a test with the transport of a Things Stack integration."""

    async def main() -> None:
        async with serving(World()) as server:
            dialect = dialects()["tts_v3"]
            options = dialect.options.model_validate({"server": server.url, "api_key": KEY})
            context = Context(TENANT, "downlink-ns", SETTINGS, lambda: START_MS)
            transport = DownlinkTransport(integration(dialect, options=options), context)
            await transport.open()
            try:
                await test(transport, server)
            finally:
                await transport.close()

    run(main())


def test_a_downlink_reaches_the_things_stack() -> None:
    """The dialect's request goes out with its key, its agent and our id."""

    async def test(transport: DownlinkTransport, server: Server) -> None:
        assert await transport.deliver([one()]) == [DELIVERED]
        heard = server.heard[0]
        assert (heard.method, heard.path) == ("POST", PUSH)
        assert heard.headers["authorization"] == f"Bearer {KEY}"
        assert heard.headers["user-agent"].startswith("funicular/")
        (message,) = heard.json["downlinks"]
        assert message["frm_payload"] == "AQ=="
        assert message["correlation_ids"] == ["funicular:l1"]

    handing_over(test)


def test_a_downlink_reaches_ttn_v2() -> None:
    """The uplink's own `downlink_url`, key included, is called."""

    async def main() -> None:
        async with serving(World()) as server:
            dialect = dialects()["ttn_v2"]
            options = dialect.options()
            context = Context(TENANT, "downlink-ns", SETTINGS, lambda: START_MS)
            transport = DownlinkTransport(integration(dialect, options=options), context)
            await transport.open()
            urls = {"downlink": server.url + "/ttn/api/v2/down/app/proc?key=ttn-key"}
            link = Link(device_id="dev1", urls=urls)
            delivery = msgspec.structs.replace(one(), link=link)
            assert await transport.deliver([delivery]) == [DELIVERED]
            await transport.close()
            assert server.heard[0].path == "/ttn/api/v2/down/app/proc?key=ttn-key"
            assert server.heard[0].json["payload_raw"] == "AQ=="

    run(main())


def test_chirpstacks_answer_names_the_downlink() -> None:
    """The queue item's id in the answer is the reference by which reports will name it."""

    async def main() -> None:
        async with serving(World()) as server:
            dialect = dialects()["chirpstack"]
            options = dialect.options.model_validate({"server": server.url, "api_key": KEY})
            context = Context(TENANT, "downlink-ns", SETTINGS, lambda: START_MS)
            transport = DownlinkTransport(integration(dialect, options=options), context)
            await transport.open()
            queue = "/api/devices/0101010101010101/queue"
            server.moods[queue].append(answers(200, b'{"id":"item-1"}'))
            delivery = msgspec.structs.replace(one(), link=Link(device_id="01" * 8))
            (result,) = await transport.deliver([delivery])
            await transport.close()
            assert (result.verdict, result.detail) == (
                Verdict.DELIVERED,
                {"reference": "item-1"},
            )
            assert server.heard[0].headers["grpc-metadata-authorization"] == f"Bearer {KEY}"

    run(main())


def test_the_things_stacks_own_words_are_the_reason() -> None:
    """A 4xx fails the downlink with the status and the error's message."""

    async def test(transport: DownlinkTransport, server: Server) -> None:
        server.moods[PUSH].append(answers(404, ERROR))
        (result,) = await transport.deliver([one()])
        words = "error:pkg/networkserver:device_not_found (device `dev1` not found)"
        assert (result.verdict, result.reason) == (Verdict.REFUSED, "rejected")
        assert result.message == words
        assert result.detail == {"status": 404, "message": words}

    handing_over(test)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"message": 5}', b"\xff", b"[" * 60_000])
def test_a_refusal_without_words_has_the_status(body: bytes) -> None:
    """An answer that is no error JSON is shown as it came."""

    async def test(transport: DownlinkTransport, server: Server) -> None:
        server.moods[PUSH].append(answers(400, body))
        (result,) = await transport.deliver([one()])
        assert (result.verdict, result.message) == (
            Verdict.REFUSED,
            "the destination answered 400",
        )
        assert result.detail["response"] == body[:1_024].decode(errors="replace")

    handing_over(test)


@pytest.mark.parametrize("body", [f'{{"message":"no rights: {KEY}"}}'.encode(), KEY.encode()])
def test_an_echoed_key_is_not_kept(body: bytes) -> None:
    """A network server that shows our key in its error does not spread it."""

    async def test(transport: DownlinkTransport, server: Server) -> None:
        server.moods[PUSH].append(answers(403, body))
        (result,) = await transport.deliver([one()])
        assert KEY not in str(result)

    handing_over(test)


def test_no_link_fails_without_a_request() -> None:
    """A device of which no uplink told the way cannot be reached, and that is said."""

    async def test(transport: DownlinkTransport, server: Server) -> None:
        delivery = msgspec.structs.replace(one(), link=None)
        (result,) = await transport.deliver([delivery])
        assert (result.verdict, result.reason) == (Verdict.REFUSED, "no_link")
        assert server.heard == []

    handing_over(test)


def test_a_delivery_without_a_downlink_is_refused() -> None:
    """A record that holds none is nobody's downlink."""

    async def test(transport: DownlinkTransport, server: Server) -> None:
        (result,) = await transport.deliver([msgspec.structs.replace(one(), downlink=None)])
        assert (result.verdict, result.reason) == (Verdict.REFUSED, "no_downlink")

    handing_over(test)


def test_too_many_requests_wait() -> None:
    """429 postpones for as long as either family of headers says."""

    async def test(transport: DownlinkTransport, server: Server) -> None:
        server.moods[PUSH].extend(
            [
                answers(429, x_rate_limit_available="0", x_rate_limit_retry="4"),
                answers(429, x_ratelimit_remaining="0", x_ratelimit_reset="6"),
                answers(429, retry_after="9", x_rate_limit_retry="4"),
                answers(200, b"{}", x_rate_limit_available="0", x_rate_limit_reset="2"),
            ]
        )
        pauses = [(await transport.deliver([one()]))[0].pause_s for _ in range(4)]
        assert pauses == [4, 6, 9, 2]

    handing_over(test)


def test_warnings_are_said_once() -> None:
    """`X-Warning` is logged, each text once."""

    async def test(transport: DownlinkTransport, server: Server) -> None:
        server.moods[PUSH].extend([answers(200, x_warning="old API")] * 3)
        with capture_logs() as logs:
            for number in range(3):
                await transport.deliver([one(number)])
        assert [(entry["log_level"], entry["warning"]) for entry in logs] == [
            ("warning", "old API")
        ]

    handing_over(test)


def test_after_a_postponed_one_none_is_tried() -> None:
    """In one batch, what comes after a failure is postponed without a request."""

    async def test(transport: DownlinkTransport, server: Server) -> None:
        server.moods[PUSH].extend([answers(200), resets])
        results = await transport.deliver([one(1), one(2), one(3)])
        assert [result.verdict for result in results] == [
            Verdict.DELIVERED,
            Verdict.POSTPONED,
            Verdict.POSTPONED,
        ]
        assert len(server.heard) == 2

    handing_over(test)


def test_an_address_that_an_uplink_made_up_fails_the_downlink_alone() -> None:
    """A `downlink_url` that is no address is that downlink's failure, told without the address."""

    async def main() -> None:
        dialect = dialects()["ttn_v2"]
        context = Context(TENANT, "downlink-ns", SETTINGS, lambda: START_MS)
        transport = DownlinkTransport(integration(dialect, options=dialect.options()), context)
        await transport.open()
        for url in ("http://[bad-secret", "file:///etc/bad-secret", "http://h:1e9/bad-secret"):
            link = Link(device_id="dev1", urls={"downlink": url})
            (result,) = await transport.deliver([msgspec.structs.replace(one(), link=link)])
            assert result.verdict is Verdict.REFUSED
            assert "bad-secret" not in str(result)
        await transport.close()

    asyncio.run(main())


def test_an_agent_is_named_where_the_dialect_names_none() -> None:
    """Every request to a network server says who we are."""

    class Silent:
        """A dialect that sets no header."""

        name = "silent"

        def __init__(self, url: str) -> None:
            self._url = url

        def send(self, downlink: Any, link: Link, options: Any) -> Any:
            from pipeline.model.http import Call

            return Call(url=self._url, headers={"x-api-token": "token-1234"})

    async def main() -> None:
        async with serving(World()) as server:
            context = Context(TENANT, "downlink-ns", SETTINGS, lambda: START_MS)
            plain = integration(dialects()["http"])
            transport = DownlinkTransport(replace(plain, dialect=Silent(server.url)), context)
            await transport.open()
            server.moods["/"].append(answers(400, b"no token-1234"))
            (result,) = await transport.deliver([one()])
            assert server.heard[0].headers["user-agent"].startswith("funicular/")
            assert "token-1234" not in str(result)
            await transport.close()

    run(main())


def test_options_keep_the_key_to_themselves() -> None:
    """The integration's options do not print the API key."""
    options = dialects()["tts_v3"].options.model_validate(
        {"server": "https://eu1.cloud.thethings.network", "api_key": SecretStr(KEY)}
    )
    assert KEY not in repr(options)


def test_an_uplink_cannot_lead_a_downlink_inside() -> None:
    """An uplink's `downlink_url` that leads to a special address fails that downlink alone, at
    once, and says why; nothing is sent there.
    """

    async def main() -> None:
        async with serving(World()) as server:
            dialect = dialects()["ttn_v2"]
            settings = replace(SETTINGS, allowed_networks=())
            context = Context(TENANT, "downlink-ns", settings, lambda: START_MS)
            transport = DownlinkTransport(integration(dialect, options=dialect.options()), context)
            await transport.open()
            link = Link(device_id="dev1", urls={"downlink": server.url + "/latest/meta-data"})
            delivery = msgspec.structs.replace(one(), link=link)
            (result,) = await transport.deliver([delivery])
            await transport.close()
            assert (result.verdict, result.reason) == (Verdict.REFUSED, "address_denied")
            assert server.heard == []

    run(main())
