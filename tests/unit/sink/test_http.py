from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from pipeline.model.delivery import Delivery
from pipeline.sink.http import HttpConfig, HttpSink
from pipeline.sink.transport import DELIVERED, Verdict
from tests.unit.sink.fakes import Server, World, answers, context, delivery, resets, run, serving


def sending(
    test: Callable[[HttpSink, Server], Awaitable[None]], path: str = "/in", **config: Any
) -> None:
    """Run a test with an open sink and its server."""

    async def main() -> None:
        async with serving(World()) as server:
            sink = HttpSink(HttpConfig(url=server.url + path, **config), context())
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
