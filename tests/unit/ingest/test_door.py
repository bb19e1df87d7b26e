"""The door in, without sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from structlog.testing import capture_logs

from pipeline.errors import RetryableError, StorageFullError
from pipeline.ingest.door import SPREAD
from pipeline.model.http import Response
from pipeline.model.record import Outgoing
from pipeline.model.reply import Reply, ReplyTo
from pipeline.rulebook.book import Authentication
from pipeline.topics import DEVICE_EVENTS, UPLINK_RECEIVED

if TYPE_CHECKING:
    from conftest import World

    from pipeline.ingest.door import Answer

SECRET = {"x-key": "s3cret"}


async def take(
    world: World,
    body: bytes = b'{"devices": ["d1"]}',
    headers: dict[str, str] | None = None,
    query: dict[str, str] | None = None,
    method: str = "POST",
) -> Answer:
    headers = {**SECRET, **(headers or {})}
    gate = world.door.enter("acme", "meters", headers, query or {})
    assert gate is not None
    request = gate.request(method, headers, query or {}, body)
    return await world.door.take(gate, request, world.now_ms)


def downlink(record: Outgoing, to: ReplyTo) -> list[Reply]:
    """The stages' answer: one part, which carries a downlink."""
    return [Reply(to.request, device="d1", downlink_id="down1", payload=b"\x01")]


@pytest.mark.parametrize(
    ("tenant", "name", "headers"),
    [
        ("acme", "meters", {}),
        ("acme", "meters", {"x-key": "wrong"}),
        ("acme", "nothing", SECRET),
        ("nobody", "meters", SECRET),
        ("", "", {}),
    ],
)
def test_a_wrong_secret_and_no_integration_are_the_same(
    world: World, tenant: str, name: str, headers: dict[str, str]
) -> None:
    """Nothing tells an integration that is not there from one whose secret is wrong."""

    async def work() -> None:
        assert world.door.enter(tenant, name, headers, {}) is None

    world.run(work)


def test_a_changed_integration_counts_at_once(world: World) -> None:
    """After an edit of the rules the new secret lets in, the old one does not; a removed
    integration is gone.
    """

    async def work() -> None:
        assert world.door.enter("acme", "meters", SECRET, {}) is not None
        world.integration(authentication=Authentication("header", "X-Key", "new"))
        assert world.door.enter("acme", "meters", SECRET, {}) is None
        assert world.door.enter("acme", "meters", {"x-key": "new"}, {}) is not None
        del world.integrations["meters"]
        assert world.door.enter("acme", "meters", {"x-key": "new"}, {}) is None
        assert world.door._gates == {}

    world.run(work)


def test_a_request_becomes_a_record(world: World) -> None:
    """The bytes go on as they came, with CloudEvents headers, under the device's key; the
    answer is the dialect's, after the append.
    """

    async def work() -> None:
        answer = await take(
            world,
            headers={
                "content-type": "application/json",
                "user-agent": "http-ttn/2.6.0",
                "x-downlink-push": "https://ns/push",
                "host": "example.org",
            },
            query={"a": "ü", "b": ""},
            method="PUT",
        )
        assert answer == (Response(202), None)

    world.run(work)

    (record,) = world.log.records
    assert (record.topic, record.key) == (UPLINK_RECEIVED, "acme/d1")
    assert record.value == b'{"devices": ["d1"]}'
    headers = record.headers
    assert orjson.loads(headers.pop("http_headers")) == {
        "content-type": "application/json",
        "user-agent": "http-ttn/2.6.0",
        "x-downlink-push": "https://ns/push",
    }
    assert orjson.loads(headers.pop("http_query")) == {"a": "ü", "b": ""}
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": "id1",
        "ce_source": "/in/acme/meters",
        "ce_type": "funicular.uplink.received",
        "ce_time": "2026-09-21T14:13:20.123Z",
        "ce_tenant": "acme",
        "ce_integration": "meters",
        "content-type": "application/json",
        "http_method": "PUT",
    }


@pytest.mark.parametrize(
    ("authentication", "headers", "query"),
    [
        (Authentication("header", "X-Downlink-K", "s3cret"), {"x-downlink-k": "s3cret"}, {}),
        (Authentication("header", "Webhook-Id", "s3cret"), {"webhook-id": "s3cret"}, {}),
        (Authentication("bearer", "", "s3cret"), {"authorization": "Bearer s3cret"}, {}),
        (Authentication("basic", "u", "p"), {"authorization": "Basic dTpw"}, {}),
        (Authentication("query", "key", "s3cret"), {}, {"key": "s3cret"}),
        (Authentication("open"), {"cookie": "s3cret", "x-api-key": "dTpw"}, {}),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_secrets_do_not_reach_the_log(
    world: World, authentication: Authentication, headers: dict[str, str], query: dict[str, str]
) -> None:
    """No secret of the request is in the record, however the integration is guarded."""
    options = world.integrations["meters"].options.model_copy(
        update={"device_header": "Authorization", "repeat_header": "Cookie"}
    )
    world.integration(authentication=authentication, options=options)

    async def work() -> None:
        gate = world.door.enter("acme", "meters", headers, query)
        assert gate is not None
        request = gate.request("POST", headers, {**query, "other": "1"}, b"{}")
        await world.door.take(gate, request, world.now_ms)

    world.run(work)

    (record,) = world.log.records
    assert "s3cret" not in str(record)
    assert "dTpw" not in str(record)
    assert orjson.loads(record.headers["http_query"]) == {"other": "1"}


def test_headers_that_the_options_name_go_on(world: World) -> None:
    """A dialect's options may name headers; those are kept, in lower case."""
    options = world.integrations["meters"].options.model_copy(
        update={"device_header": "X-Device", "repeat_header": None}
    )
    world.integration(options=options)

    async def work() -> None:
        await take(world, headers={"X-Device": "d\udcff", "X-Other": "no"})

    world.run(work)

    (record,) = world.log.records
    assert orjson.loads(record.headers["http_headers"]) == {"x-device": "d\ufffd"}


@pytest.mark.parametrize(
    ("devices", "ordered", "key"),
    [
        (["d1", "d1"], True, "acme/d1"),
        (["a/b:c"], False, "acme/a/b:c"),
        (["d1", "d2"], True, "acme/meters"),
        ([None], True, "acme/meters"),
        ([None], False, "acme/meters#1"),
    ],
)
def test_the_key_is_the_device_where_it_is_known(
    world: World, devices: list[Any], ordered: bool, key: str
) -> None:
    """One device's requests stay in order by their key; what names no one device has the
    integration's, spread where order is not asked for.
    """
    world.integration(ordered=ordered)

    async def work() -> None:
        await take(world, orjson.dumps({"devices": devices}))

    world.run(work)

    assert world.log.records[0].key == key


def test_the_spread_has_an_end(world: World) -> None:
    """Spread keys are few, so that they stay bounded."""
    world.integration(ordered=False)

    async def work() -> None:
        for _ in range(3 * SPREAD):
            await take(world, b"{}")

    world.run(work)

    assert len({record.key for record in world.log.records}) == SPREAD


def test_a_bad_message_is_refused_and_not_written(world: World) -> None:
    """What the dialect refuses is 400 with what and where, and leaves no record."""

    async def work() -> None:
        answer = await take(world, b"{not json")
        assert answer.response.status == 400
        error = orjson.loads(answer.response.body)["error"]
        assert error["code"] == "json"
        assert error["field"] == "body"
        assert error["message"].startswith("not JSON: ")

    world.run(work)

    assert world.log.records == []


@pytest.mark.parametrize("synchronous", [False, True])
def test_a_full_disk_is_503_said_once(world: World, synchronous: bool) -> None:
    """While the log has no room each request gets 503 and when to come again, the program's log
    says it once, and once that it is over; nobody is left waiting.
    """
    world.integration(synchronous=synchronous, answer_timeout_s=0.0)

    async def work() -> None:
        world.log.fail = StorageFullError("no room", retry_after_s=7.2)
        for _ in range(3):
            response = (await take(world)).response
            assert response.status == 503
            assert response.headers["retry-after"] == "8"
            assert orjson.loads(response.body)["error"]["code"] == "storage_full"
        assert len(world.waiting) == 0
        world.log.fail = None
        assert (await take(world)).response.status == 202

    with capture_logs() as logs:
        world.run(work)

    assert [line["log_level"] for line in logs] == ["error", "info"]
    assert len(world.log.records) == 1


def test_other_faults_of_the_world_are_503(world: World) -> None:
    """Any error that will pass is 503 with the default time to come again."""

    async def work() -> None:
        world.log.fail = RetryableError("no broker")
        response = (await take(world)).response
        assert (response.status, response.headers["retry-after"]) == (503, "5")

    world.run(work)


def test_a_synchronous_request_gets_its_downlink(world: World) -> None:
    """The record says who waits and until when; the answer carries the downlink; once it is
    written, the downlink is reported as sent.
    """
    world.integration(synchronous=True, answer_timeout_s=9.0)
    world.log.answer = downlink

    async def work() -> None:
        answer = await take(world)
        assert answer.response.status == 200
        assert orjson.loads(answer.response.body) == {"d1": "down1"}
        assert len(world.log.events(DEVICE_EVENTS)) == 0
        answer.handed_over("answered")
        assert len(world.waiting) == 0
        await world.turns()

    world.run(work)

    uplink, report = world.log.records
    assert orjson.loads(uplink.headers["reply_to"]) == {
        "instance": "inst",
        "request": "id1",
        "deadline_ms": world.now_ms + 9_000,
        "partition": 3,
    }
    assert report.headers["trace"] == "id1"
    (event,) = world.log.events(DEVICE_EVENTS)
    assert event["report"] == {"state": "sent", "downlink_id": "down1"}


def test_nothing_to_say_reports_nothing(world: World) -> None:
    """An empty answer is given at once and nothing is to be told."""
    world.integration(synchronous=True)
    world.log.answer = lambda record, to: [Reply(to.request)]

    async def work() -> None:
        answer = await take(world)
        assert answer == (Response(202), None)
        assert len(world.waiting) == 0

    world.run(work)

    assert [record.topic for record in world.log.records] == [UPLINK_RECEIVED]


def test_the_deadline_counts_from_the_arrival(world: World) -> None:
    """A request whose body took all the time is answered empty at once; its downlink comes too
    late and is reported so.
    """
    world.integration(synchronous=True, answer_timeout_s=9.0)

    async def work() -> None:
        gate = world.door.enter("acme", "meters", SECRET, {})
        request = gate.request("POST", SECRET, {}, b'{"devices": ["d1"]}')
        arrived_ms = world.now_ms
        world.now_ms += 9_000
        answer = await world.door.take(gate, request, arrived_ms)
        assert answer == (Response(202), None)
        world.log.reply(Reply("id1", device="d1", downlink_id="down1"), world.instance)
        await world.turns()

    world.run(work)

    (event,) = world.log.events(DEVICE_EVENTS)
    assert event["report"] == {"state": "queued", "downlink_id": "down1", "reason": "too_late"}


def test_parts_that_came_are_used_at_the_deadline(world: World) -> None:
    """Of a request for two devices the one whose part came is answered; the other's downlink is
    too late.
    """
    world.integration(synchronous=True)
    world.log.answer = lambda record, to: [
        Reply(to.request, device="d2", part=2, of=2, downlink_id="down2")
    ]

    async def work() -> None:
        body = b'{"devices": ["d1", "d2"]}'
        task = asyncio.get_running_loop().create_task(take(world, body))
        await world.turns()
        world.waiting.expire_all()
        answer = await task
        assert orjson.loads(answer.response.body) == {"d2": "down2"}
        late = Reply("id1", device="d1", part=1, of=2, downlink_id="down1")
        world.log.reply(late, world.instance)
        await world.turns()
        answer.handed_over("not_answered")
        await world.turns()

    world.run(work)

    reports = [event["report"] for event in world.log.events(DEVICE_EVENTS)]
    assert reports == [
        {"state": "queued", "downlink_id": "down1", "reason": "too_late"},
        {"state": "queued", "downlink_id": "down2", "reason": "not_answered"},
    ]


def test_too_many_that_wait_are_turned_away(world: World) -> None:
    """Over the limit a synchronous request gets 503 and is not written; so it is while reports
    cannot be stored.
    """
    world.integration(synchronous=True)

    async def work() -> None:
        world.waiting._waiting_max = 0
        assert (await take(world)).response.status == 503
        world.waiting._waiting_max = 10
        world.reports._reports_max = 0
        assert (await take(world)).response.status == 503

    world.run(work)

    assert world.log.records == []


def test_a_request_that_is_broken_off_gives_its_place_back(world: World) -> None:
    """A cancelled request no longer waits; its downlink is then too late."""
    world.integration(synchronous=True)

    async def work() -> None:
        task = asyncio.get_running_loop().create_task(take(world))
        await world.turns()
        assert len(world.waiting) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(world.waiting) == 0

    world.run(work)


def test_counts_reach_the_metrics(world: World) -> None:
    """Answers are counted by integration and status; those without one share a label, so that
    made-up names make no series.
    """

    async def work() -> None:
        gate = world.door.enter("acme", "meters", SECRET, {})
        for status in (202, 202, 400):
            world.door.count(gate, status)
        world.door.count(None, 401)
        world.door.flush(world.metrics)
        world.door.count(gate, 202)
        world.door.flush(world.metrics)

    world.run(work)

    series = world.metrics.values("funicular_requests_total")
    assert {tuple(value for _, value in labels): n for labels, n in series.items()} == {
        ("meters", "202", "acme"): 3,
        ("meters", "400", "acme"): 1,
        ("", "401", ""): 1,
    }
    assert world.metrics.values("funicular_requests_waiting") == {(): 0}
