from __future__ import annotations

import ssl
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from pydantic import ValidationError
from standardwebhooks import Webhook

from pipeline.errors import RetryableError
from pipeline.model.delivery import Delivery
from pipeline.sink.http import HttpConfig, HttpSink
from pipeline.sink.transport import DELIVERED, Context, Verdict
from tests.unit.sink.fakes import (
    SETTINGS,
    START_MS,
    Server,
    World,
    answers,
    delivery,
    resets,
    run,
    serving,
)
from tests.unit.sink.fakes import context as around


def sending(
    test: Callable[[HttpSink, Server], Awaitable[None]],
    path: str = "/in",
    now_ms: Callable[[], int] = lambda: START_MS,
    **config: Any,
) -> None:
    """Run a test with an open sink and its server."""

    async def main() -> None:
        async with serving(World()) as server:
            sink = HttpSink(HttpConfig(url=server.url + path, **config), around(now_ms=now_ms))
            await sink.open()
            try:
                await test(sink, server)
            finally:
                await sink.close()

    run(main())


def test_one_object_a_request() -> None:
    """A delivery is its body as JSON, with an id by which a repeat is known."""

    async def test(sink: HttpSink, server: Server) -> None:
        assert await sink.deliver([delivery(1)]) == [DELIVERED]
        heard = server.heard[0]
        assert heard.json == {"n": 1, "device": "dev1"}
        assert heard.headers["content-type"] == "application/json"
        assert heard.headers["idempotency-key"] == heard.headers["webhook-id"] == "d1"
        assert heard.headers["authorization"] == "Bearer k"

    sending(test, headers={"Authorization": "Bearer k"})


def test_the_device_in_the_address_is_encoded() -> None:
    """A device's name cannot leave its place in the path."""

    async def test(sink: HttpSink, server: Server) -> None:
        await sink.deliver([delivery(1, "a/../b?c=d e")])
        assert server.heard[0].path == "/devices/a%2F..%2Fb%3Fc%3Dd%20e/up"
        await sink.deliver([delivery(2, "..")])
        assert server.heard[1].path == "/devices/%2E%2E/up"

    sending(test, "/devices/{device}/up")


def test_an_id_with_odd_characters_stays_one_header() -> None:
    """An id that came from outside cannot add a header."""

    async def test(sink: HttpSink, server: Server) -> None:
        odd = Delivery("a\r\nx: y é", "acme", "dev1", "app", 0, body=1)
        assert await sink.deliver([odd]) == [DELIVERED]
        assert server.heard[0].headers["webhook-id"] == "a%0D%0Ax:%20y%20%C3%A9"
        assert "x" not in server.heard[0].headers

    sending(test)


def test_several_are_an_array() -> None:
    """With `batch` above 1 the bodies come as an array, even a single one."""

    async def test(sink: HttpSink, server: Server) -> None:
        assert await sink.deliver([delivery(1), delivery(2)]) == [DELIVERED] * 2
        await sink.deliver([delivery(3)])
        assert [[one["n"] for one in heard.json] for heard in server.heard] == [[1, 2], [3]]
        keys = {heard.headers["idempotency-key"] for heard in server.heard}
        assert len(keys) == 2

    sending(test, batch=10)


def refuses(number: int) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def mood(request: web.Request) -> web.StreamResponse:
        bad = any(one["n"] == number for one in await request.json())
        return web.Response(status=422 if bad else 200)

    return mood


def test_a_refused_array_is_halved_until_the_bad_message_is_alone() -> None:
    """One bad message of an array does not take the others to the dead letters."""

    async def test(sink: HttpSink, server: Server) -> None:
        server.always["/in"] = refuses(3)
        results = await sink.deliver([delivery(number) for number in range(6)])
        verdicts = [result.verdict for result in results]
        assert verdicts == [*[Verdict.DELIVERED] * 3, Verdict.REFUSED, *[Verdict.DELIVERED] * 2]

    sending(test, batch=10)


def test_a_refusal_that_blames_no_message_is_not_halved() -> None:
    """401 says the same of each half, so it is asked once."""

    async def test(sink: HttpSink, server: Server) -> None:
        server.always["/in"] = answers(401)
        results = await sink.deliver([delivery(number) for number in range(6)])
        assert {result.verdict for result in results} == {Verdict.REFUSED}
        assert len(server.heard) == 1

    sending(test, batch=10)


def test_halving_stops_where_the_destination_fails() -> None:
    """When the destination fails half way, what comes after is postponed, so order is kept."""

    async def test(sink: HttpSink, server: Server) -> None:
        server.moods["/in"].extend([answers(400), answers(503)])
        results = await sink.deliver([delivery(number) for number in range(4)])
        assert [result.verdict for result in results] == [Verdict.POSTPONED] * 4
        assert len(server.heard) == 2

    sending(test, batch=10)


def test_a_broken_connection_is_postponed() -> None:
    """A reset is the destination's fault, and the message may have arrived."""

    async def test(sink: HttpSink, server: Server) -> None:
        server.moods["/in"].append(resets)
        (result,) = await sink.deliver([delivery(1)])
        assert (result.verdict, result.uncertain) == (Verdict.POSTPONED, True)

    sending(test)


def test_an_echoed_secret_does_not_reach_the_dead_letter() -> None:
    """A destination that shows our key in its error does not spread it."""

    async def test(sink: HttpSink, server: Server) -> None:
        server.moods["/in"].append(answers(403, b"no rights for hunter22-key"))
        (result,) = await sink.deliver([delivery(1)])
        assert result.detail == {"status": 403, "response": "no rights for …"}

    sending(test, headers={"authorization": "Bearer hunter22-key"})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"url": "example.com/x"}, "full web address"),
        ({"url": "ftp://example.com/x"}, "full web address"),
        ({"url": "https:///x"}, "full web address"),
        ({"url": "https://{device}.example.com/"}, "not in the host"),
        ({"url": "https://example.com/{dev}"}, r"\{dev\} is not known"),
        ({"url": "https://a.b/{device}", "batch": 2}, "leave `batch` at 1"),
        ({"url": "https://a.b/", "headers": {"a b": "c"}}, "not a header's name"),
        ({"url": "https://a.b/", "headers": {"Host": "c"}}, "set by Funicular itself"),
        ({"url": "https://a.b/", "headers": {"x": "hunter22\n"}}, "has characters"),
        ({"url": "https://a.b/", "headers": {"Webhook-Id": "c"}}, "set by Funicular itself"),
        ({"url": "https://a.b/", "sign": "hunter22"}, "begins with whsec_"),
        ({"url": "http://a.b/", "tls": {}}, "begins with https"),
        ({"url": "https://a.b/", "timeout": "0s"}, "greater than 0"),
        ({"url": "https://a.b/", "method": "GET"}, "POST"),
    ],
)
def test_a_bad_config_is_refused_in_words(config: dict[str, Any], words: str) -> None:
    """What cannot work is refused when the rules are read, without showing a secret."""
    with pytest.raises(ValidationError, match=words) as caught:
        HttpConfig.model_validate(config)
    assert "hunter22" not in str(caught.value)


def test_a_config_shows_no_secret() -> None:
    """Neither the address, which may hold a key, nor header values stand in its repr."""
    config = HttpConfig(url="https://a.b/?key=hunter22", headers={"x": "hunter22"})
    assert "hunter22" not in repr(config)


SECRETS = ["whsec_" + b64encode(letter * 32).decode() for letter in (b"a", b"b")]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_requests_are_signed_and_the_published_library_takes_them() -> None:
    """Each attempt is signed with each secret, with its own time and the delivery's id."""

    async def test(sink: HttpSink, server: Server) -> None:
        await sink.deliver([delivery(1)])
        await sink.deliver([delivery(1)])
        for heard in server.heard:
            assert heard.headers["webhook-id"] == heard.headers["idempotency-key"] == "d1"
            for secret in SECRETS:
                assert Webhook(secret).verify(heard.body, heard.headers) == heard.json

    sending(test, sign=SECRETS, now_ms=now_ms)


def test_an_array_is_signed_as_one() -> None:
    """A request with several messages has one id, which a repeat has again, and one signature."""

    async def test(sink: HttpSink, server: Server) -> None:
        for _ in range(2):
            await sink.deliver([delivery(1), delivery(2)])
        first, second = server.heard
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert len(Webhook(SECRETS[0]).verify(first.body, first.headers)) == 2

    sending(test, sign=SECRETS[0], batch=10, now_ms=now_ms)


def test_without_a_secret_nothing_is_signed() -> None:
    """The id is there all the same; signature and time are not."""

    async def test(sink: HttpSink, server: Server) -> None:
        await sink.deliver([delivery(1)])
        assert not {"webhook-signature", "webhook-timestamp"} & server.heard[0].headers.keys()

    sending(test)


def test_410_stops_the_destination() -> None:
    """A destination that is gone wants nothing more: no dead letter, and no other try."""

    async def test(sink: HttpSink, server: Server) -> None:
        server.always["/in"] = answers(410)
        results = await sink.deliver([delivery(1), delivery(2)])
        assert [(r.verdict, r.reason, r.stop) for r in results] == [
            (Verdict.POSTPONED, "gone", True)
        ] * 2
        assert len(server.heard) == 1

    sending(test, batch=10)


def test_410_of_one_devices_address_is_that_devices() -> None:
    """Where each device has its own address, 410 refuses its message and stops nothing."""

    async def test(sink: HttpSink, server: Server) -> None:
        server.always["/dev1"] = answers(410)
        (result,) = await sink.deliver([delivery(1)])
        assert (result.verdict, result.stop) == (Verdict.REFUSED, False)

    sending(test, "/{device}")


def test_an_address_that_is_not_allowed_waits_for_the_operator() -> None:
    """What may not be connected to is the destination's fault: nothing is sent, nothing lost."""

    async def main() -> None:
        async with serving(World()) as server:
            settings = replace(SETTINGS, allowed_networks=())
            around = Context("acme", "app", settings, now_ms)
            sink = HttpSink(HttpConfig(url=server.url + "/in"), around)
            await sink.open()
            (result,) = await sink.deliver([delivery(1)])
            await sink.close()
            assert (result.verdict, result.reason) == (Verdict.POSTPONED, "address_denied")
            assert not result.uncertain
            assert "--allow-network 127.0.0.1" in result.message
            assert server.heard == []

    run(main())


def test_a_client_certificate_and_an_own_authority(tmp_path: Path) -> None:
    """`tls` names whom to trust and who we are; without it such a server is not trusted."""

    async def main() -> None:
        authority = trustme.CA()
        paths = {name: str(tmp_path / name) for name in ("ca", "own")}
        authority.cert_pem.write_to_path(paths["ca"])
        authority.issue_cert("funicular").private_key_and_cert_chain_pem.write_to_path(paths["own"])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        tls = {"ca_file": paths["ca"], "certificate_file": paths["own"]}
        expected = [
            (tls, Verdict.DELIVERED),
            ({"ca_file": paths["ca"]}, Verdict.POSTPONED),
            (None, Verdict.POSTPONED),
        ]
        async with serving(World(), context) as server:
            for given, verdict in expected:
                config = HttpConfig.model_validate({"url": server.url + "/in", "tls": given})
                sink = HttpSink(config, around())
                await sink.open()
                (result,) = await sink.deliver([delivery(1)])
                await sink.close()
                assert result.verdict is verdict
            assert "certificate is not trusted" in result.message

    run(main())


def test_a_certificate_that_is_not_there_is_tried_again(tmp_path: Path) -> None:
    """A file that cannot be read keeps the destination from opening, and is said."""

    async def main() -> None:
        config = HttpConfig.model_validate(
            {"url": "https://a.b/", "tls": {"ca_file": str(tmp_path / "none.pem")}}
        )
        with pytest.raises(RetryableError, match="certificate"):
            await HttpSink(config, around()).open()

    run(main())
