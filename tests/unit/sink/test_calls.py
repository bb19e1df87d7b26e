from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pipeline import __version__
from pipeline.errors import MessageError
from pipeline.model.http import Call
from pipeline.sink.calls import (
    RESPONSE_SHOWN_BYTES,
    Answer,
    Caller,
    UnansweredError,
    judge,
)
from pipeline.sink.transport import Result, Verdict
from tests.unit.sink.fakes import (
    SETTINGS,
    START_MS,
    Server,
    World,
    answers,
    drips,
    floods,
    resets,
    run,
    says_nothing,
    serving,
)


def calling(test: Callable[[Caller, Server], Awaitable[None]], timeout_s: float = 5.0) -> None:
    """Run a test with a caller and a server."""

    async def main() -> None:
        async with serving(World()) as server:
            caller = Caller(timeout_s=timeout_s, settings=SETTINGS)
            await caller.open()
            try:
                await test(caller, server)
            finally:
                await caller.close()

    run(main())


def verdict(status: int, body: bytes = b"", **headers: str) -> Result:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return judge(Answer(status, names, body), now_ms=START_MS, pause_s_max=3_600)


def test_a_request_and_its_answer() -> None:
    """Method, headers and body arrive; status, headers, warnings and body come back."""

    async def test(caller: Caller, server: Server) -> None:
        server.moods["/x"].append(answers(201, b"made", x_warning="slow down"))
        call = Call(server.url + "/x?k=v", b"{}", "PUT", {"X-Own": "yes"})
        answer = await caller.call(call)
        assert (answer.status, answer.body, answer.warnings) == (201, b"made", ("slow down",))
        heard = server.heard[0]
        assert (heard.method, heard.path, heard.body) == ("PUT", "/x?k=v", b"{}")
        assert heard.headers["x-own"] == "yes"
        assert heard.headers["user-agent"] == f"funicular/{__version__}"
        assert heard.headers["accept-encoding"] == "identity"

    calling(test)


def test_connections_are_kept() -> None:
    """Requests one after the other use one connection."""

    async def test(caller: Caller, server: Server) -> None:
        ports = set()

        async def mood(request: Any) -> Any:
            ports.add(request.transport.get_extra_info("peername")[1])
            return await answers(200, b"ok")(request)

        server.always["/x"] = mood
        for _ in range(3):
            await caller.call(Call(server.url + "/x"))
        assert len(ports) == 1

    calling(test)


def test_an_endless_body_is_cut() -> None:
    """Of a body without end, only the limit is read, and the status counts."""

    async def test(caller: Caller, server: Server) -> None:
        server.moods["/x"].append(floods(200))
        answer = await caller.call(Call(server.url + "/x"))
        assert (answer.status, len(answer.body)) == (200, SETTINGS.answer_bytes_max)
        assert (await caller.call(Call(server.url + "/x"))).status == 200

    calling(test, timeout_s=600)


def test_a_dripping_body_is_timed() -> None:
    """A body that never ends does not hold a request past its time; the status counts."""

    async def test(caller: Caller, server: Server) -> None:
        server.moods["/x"].append(drips(202))
        answer = await caller.call(Call(server.url + "/x"))
        assert (answer.status, answer.body) == (202, b"x")

    calling(test, timeout_s=0.2)


def test_silence_is_a_timeout() -> None:
    """No answer in time is the destination's fault, and the request may have arrived."""

    async def test(caller: Caller, server: Server) -> None:
        server.moods["/x"].append(says_nothing)
        with pytest.raises(UnansweredError, match=r"no answer within 0.1 s") as caught:
            await caller.call(Call(server.url + "/x"))
        assert (caught.value.code, caught.value.uncertain) == ("timeout", True)

    calling(test, timeout_s=0.1)


def test_timeouts_leave_no_connection_behind() -> None:
    """After timeouts, requests go out as before, and none of their connections is held."""

    async def test(caller: Caller, server: Server) -> None:
        server.moods["/x"].extend([says_nothing] * 3)
        for _ in range(3):
            with pytest.raises(UnansweredError):
                await caller.call(Call(server.url + "/x"))
        assert caller._exchange is not None
        assert not caller._exchange._session.connector._acquired  # type: ignore[union-attr]
        assert (await caller.call(Call(server.url + "/x"))).status == 200

    calling(test, timeout_s=0.1)


def test_user_and_password_of_the_address_become_basic() -> None:
    """`https://user:password@…` is sent as HTTP's basic authentication."""

    async def test(caller: Caller, server: Server) -> None:
        await caller.call(Call(server.url.replace("//", "//me:p%40ss@") + "/x"))
        assert server.heard[0].headers["authorization"] == "Basic bWU6cEBzcw=="

    calling(test)


def test_a_reset_is_a_broken_connection() -> None:
    """A connection that breaks before the answer is the destination's fault."""

    async def test(caller: Caller, server: Server) -> None:
        server.moods["/x"].append(resets)
        with pytest.raises(UnansweredError, match="connection broke") as caught:
            await caller.call(Call(server.url + "/x"))
        assert (caught.value.code, caught.value.uncertain) == ("connection", True)

    calling(test)


def test_nobody_there() -> None:
    """Where nobody listens, the request surely did not arrive."""

    async def main() -> None:
        async with serving(World()) as server:
            url = server.url
        caller = Caller(timeout_s=5, settings=SETTINGS)
        await caller.open()
        with pytest.raises(UnansweredError, match="cannot connect") as caught:
            await caller.call(Call(url))
        assert (caught.value.code, caught.value.uncertain) == ("connect", False)
        await caller.close()

    run(main())


def test_redirects_are_not_followed() -> None:
    """A redirect is an answer like any other; its target is not asked."""

    async def test(caller: Caller, server: Server) -> None:
        server.moods["/x"].append(answers(302, location=server.url + "/y"))
        assert (await caller.call(Call(server.url + "/x"))).status == 302
        assert [heard.path for heard in server.heard] == ["/x"]

    calling(test)


def test_cookies_are_not_kept() -> None:
    """A destination cannot make us carry its cookies."""

    async def test(caller: Caller, server: Server) -> None:
        server.moods["/x"].append(answers(200, set_cookie="a=b"))
        await caller.call(Call(server.url + "/x"))
        await caller.call(Call(server.url + "/x"))
        assert "cookie" not in server.heard[1].headers

    calling(test)


@pytest.mark.parametrize(
    "call",
    [
        Call("ftp://example.com/secret-key"),
        Call("no address secret-key"),
        Call("http://[::1secret-key"),
        Call("http:///secret-key"),
        Call("http://example.com:99999999/secret-key"),
        Call("http://" + "a" * 80 + ".example/secret-key"),
        Call("http://127.0.0.1:1/", headers={"x": "secret-key\r\nx: y"}),
        Call("http://127.0.0.1:1/", headers={"x": "secret-key€"}),
        Call("http://127.0.0.1:1/", headers={"x y": "secret-key"}),
        Call("http://127.0.0.1:1/\x00secret-key"),
    ],
)
def test_what_cannot_be_sent_is_the_messages_fault(call: Call) -> None:
    """An address or header that HTTP cannot carry is refused, in words without the secret."""

    async def test(caller: Caller, server: Server) -> None:
        with pytest.raises((MessageError, UnansweredError)) as caught:
            await caller.call(call)
        assert "secret-key" not in str(caught.value)
        if isinstance(caught.value, MessageError):
            assert caught.value.code == "bad_request"

    calling(test)


def test_no_log_line_shows_an_address(caplog: pytest.LogCaptureFixture) -> None:
    """Httpx and httpcore, which log addresses and headers, stay silent at every level."""

    async def test(caller: Caller, server: Server) -> None:
        headers = {"authorization": "Bearer secret-key"}
        await caller.call(Call(server.url + "/x?key=secret-key", headers=headers))

    with caplog.at_level(logging.DEBUG):
        calling(test)
    assert "secret-key" not in caplog.text
    assert [entry.name for entry in caplog.records if entry.name.startswith("http")] == []


def test_the_environments_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """`HTTP_PROXY` sends no delivery elsewhere."""

    async def test(caller: Caller, server: Server) -> None:
        assert (await caller.call(Call(server.url + "/x"))).status == 200

    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    calling(test)


def test_close_and_open_again() -> None:
    """Both may be done twice, and a closed caller can be opened again."""

    async def main() -> None:
        async with serving(World()) as server:
            caller = Caller(timeout_s=5, settings=SETTINGS)
            for _ in range(2):
                await caller.open()
                await caller.open()
                assert (await caller.call(Call(server.url))).status == 200
                await caller.close()
                await caller.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (200, Verdict.DELIVERED),
        (204, Verdict.DELIVERED),
        (301, Verdict.POSTPONED),
        (307, Verdict.POSTPONED),
        (400, Verdict.REFUSED),
        (401, Verdict.REFUSED),
        (404, Verdict.REFUSED),
        (408, Verdict.POSTPONED),
        (410, Verdict.REFUSED),
        (422, Verdict.REFUSED),
        (429, Verdict.POSTPONED),
        (500, Verdict.POSTPONED),
        (503, Verdict.POSTPONED),
    ],
)
def test_a_status_says_who_is_at_fault(status: int, expected: Verdict) -> None:
    """2xx is delivered; 3xx, 408, 429 and 5xx are the destination's fault, other 4xx ours."""
    assert verdict(status).verdict is expected


def test_a_refusal_shows_the_beginning_of_the_answer() -> None:
    """What a destination says about a refusal is kept, up to 1 KiB, without secrets it echoed."""
    answer = Answer(400, {}, b"bad key hunter22! " + b"z" * 5_000)
    result = judge(answer, now_ms=START_MS, pause_s_max=1, secrets=["hunter22"])
    shown = result.detail["response"]
    assert shown.startswith("bad key …! zzz")
    assert len(shown) <= RESPONSE_SHOWN_BYTES
    assert result.detail["status"] == 400


@pytest.mark.parametrize(
    ("status", "headers", "pause_s"),
    [
        (429, {"retry_after": "17"}, 17),
        (503, {"retry_after": "Thu, 09 Oct 2025 08:54:20 GMT"}, 60),
        (503, {"retry_after": "Thu, 09 Oct 2024 08:54:20 GMT"}, 0),
        (503, {"retry_after": "soon"}, None),
        (503, {"retry_after": "nan"}, None),
        (429, {"retry_after": "99999999"}, 3_600),
        (429, {"x_rate_limit_retry": "3", "x_rate_limit_reset": "9"}, 3),
        (429, {"x_rate_limit_retry": "-1", "x_rate_limit_reset": "9"}, 9),
        (429, {"x_ratelimit_reset": "8"}, 8),
        (429, {"x_ratelimit_reset": str(START_MS // 1_000 + 30)}, 30),
        (200, {"x_rate_limit_available": "0", "x_rate_limit_reset": "5"}, 5),
        (200, {"x_ratelimit_remaining": "0", "x_ratelimit_reset": "6"}, 6),
        (200, {"ratelimit_remaining": "0", "ratelimit_reset": "7"}, 7),
        (200, {"x_rate_limit_available": "1", "x_rate_limit_reset": "5"}, None),
        (200, {"retry_after": "9"}, None),
        (400, {"x_rate_limit_available": "0", "x_rate_limit_reset": "5"}, 5),
        (500, {}, None),
    ],
)
def test_how_long_a_destination_wants_to_be_left_alone(
    status: int, headers: dict[str, str], pause_s: float | None
) -> None:
    """`Retry-After` and the families of rate-limit headers are understood, up to our limit."""
    assert verdict(status, **headers).pause_s == pause_s


def names(*answers: str | Exception) -> Callable[..., Any]:
    """Return a stand-in for `socket.getaddrinfo` that gives these addresses, one a question."""
    left = list(answers)

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        family = socket.AF_INET6 if ":" in answer else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (answer, port))]

    return getaddrinfo


def test_the_address_is_checked_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that first has an allowed address and then another one is refused the second time."""

    async def test(caller: Caller, server: Server) -> None:
        url = server.url.replace("127.0.0.1", "rebinding.example") + "/x"
        assert (await caller.call(Call(url))).status == 200
        await caller.close()
        with pytest.raises(UnansweredError, match=r"169\.254\.169\.254 is link-local") as caught:
            await caller.call(Call(url))
        assert (caught.value.code, caught.value.uncertain) == ("address_denied", False)
        assert len(server.heard) == 1

    lookup = names("127.0.0.1", "169.254.169.254")
    monkeypatch.setattr("pipeline.sink.http_client.connections.socket.getaddrinfo", lookup)
    calling(test)


def test_a_name_with_several_denied_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with several special addresses is denied as one with one is."""

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("10.0.0.1", port)), (*kind, ("192.168.0.1", port))]

    async def test(caller: Caller, server: Server) -> None:
        with pytest.raises(UnansweredError, match="is private, and requests there") as caught:
            await caller.call(Call("http://two.example/"))
        assert caught.value.code == "address_denied"

    monkeypatch.setattr("pipeline.sink.http_client.connections.socket.getaddrinfo", getaddrinfo)
    calling(test)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "0x7f.1", "10.0.0.1"]
)
def test_by_default_no_special_address_is_connected_to(host: str) -> None:
    """Without an allowance nothing on this machine or its network is reached, however written."""

    async def main() -> None:
        caller = Caller(timeout_s=5)
        try:
            with pytest.raises((UnansweredError, MessageError)) as caught:
                await caller.call(Call(f"http://{host}:1/"))
            assert caught.value.code in {"address_denied", "bad_request"}
        finally:
            await caller.close()

    run(main())


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1"])
def test_odd_spellings_of_addresses_reach_nothing(host: str) -> None:
    """Numbers that some libraries take for an IPv4 address are refused before any connection."""

    async def test(caller: Caller, server: Server) -> None:
        with pytest.raises((UnansweredError, MessageError)):
            await caller.call(Call(server.url.replace("127.0.0.1", host)))
        assert server.heard == []

    calling(test)


def test_a_name_that_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name without an address is a destination that cannot be connected to."""

    async def test(caller: Caller, server: Server) -> None:
        with pytest.raises(UnansweredError, match="its name is not found") as caught:
            await caller.call(Call("http://nowhere.example/"))
        assert caught.value.code == "connect"

    lookup = names(socket.gaierror(-2, "Name or service not known"))
    monkeypatch.setattr("pipeline.sink.http_client.connections.socket.getaddrinfo", lookup)
    calling(test)


def test_a_silent_name_server_holds_up_its_own_destination_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many lookups hang, another destination looks its name up at once."""
    gate = threading.Event()

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if host.startswith("silent"):
            gate.wait(10)
        return names("127.0.0.1")(host, port)

    async def test(caller: Caller, server: Server) -> None:
        stuck = [Caller(timeout_s=9, settings=SETTINGS) for _ in range(40)]
        calls = [
            asyncio.ensure_future(one.call(Call(f"http://silent{number}.example/")))
            for number, one in enumerate(stuck)
        ]
        url = server.url.replace("127.0.0.1", "fine.example")
        try:
            async with asyncio.timeout(5):
                assert (await caller.call(Call(url))).status == 200
        finally:
            gate.set()
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            for one in stuck:
                await one.close()

    monkeypatch.setattr("pipeline.sink.http_client.connections.socket.getaddrinfo", getaddrinfo)
    calling(test)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/a%2Fb", "/a%2Fb"),
        ("/%2E%2E/x", "/%2E%2E/x"),
        ("/a b?c=d e", "/a%20b?c=d%20e"),
        ("/größe", "/gr%C3%B6%C3%9Fe"),
        ("/x?key=a%2Bb+c", "/x?key=a%2Bb+c"),
        ("/x#part", "/x"),
        ("", "/"),
        ("?k=v", "/?k=v"),
    ],
)
def test_an_address_is_sent_as_it_was_written(path: str, sent: str) -> None:
    """What is encoded stays so, what HTTP cannot carry is encoded, a fragment stays here."""

    async def test(caller: Caller, server: Server) -> None:
        await caller.call(Call(server.url + path))
        assert server.heard[0].path == sent

    calling(test)


def test_a_large_body_is_sent_whole() -> None:
    """A body of several megabytes arrives, its length said beforehand."""

    async def test(caller: Caller, server: Server) -> None:
        body = b"0123456789" * 300_000
        assert (await caller.call(Call(server.url + "/x", body))).status == 200
        assert server.heard[0].body == body
        assert server.heard[0].headers["content-length"] == str(len(body))

    calling(test)


def test_an_own_authorization_counts_more_than_the_addresss() -> None:
    """Where a header says who we are, user and password of the address are left out."""

    async def test(caller: Caller, server: Server) -> None:
        url = server.url.replace("//", "//me:secret@") + "/x"
        await caller.call(Call(url, headers={"authorization": "Bearer k"}))
        assert server.heard[0].headers["authorization"] == "Bearer k"

    calling(test)
