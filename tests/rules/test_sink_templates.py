"""The templates of sinks that come along, each against a server that sees what arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from aiohttp import web

from pipeline.errors import ConfigError
from pipeline.model.delivery import Delivery, Origin
from pipeline.rehearse.from_template import templates_of
from pipeline.rulebook.book import SinkEntry
from pipeline.sink.addresses import LOOPBACK
from pipeline.sink.settings import SinkSettings
from pipeline.sink.transport import Context, Verdict, transports
from pipeline.wiring import catalogue, load_rules

TIME = "2026-11-21T10:00:00.000Z"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = {
    "id": "m1",
    "device": "acme:dev 1",
    "device_type": "thermostat",
    "integration": "tts",
    "type": "uplink",
    "time": TIME,
    "telemetry": {"temperature": 21.5},
    "metadata": {},
}
LINE = {"title": "Cold room"}
SAID = f"acme:dev 1 uplink at {TIME}"
TTS = "the body of The Things Stack"


@dataclass(frozen=True)
class Expected:
    """What a template's server is to see: `host` of the service, then path, headers and body."""

    variables: dict[str, str]
    host: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = field(default_factory=lambda: MESSAGE)


EXPECTED = {
    "akenza": Expected(
        {"uplink_secret": "s1"}, "data-gateway.akenza.io", "/v3/capture?secret=s1", body=TTS
    ),
    "aws-api-gateway": Expected(
        {"url": "https://abc.execute-api.eu-west-1.amazonaws.com/prod/up", "api_key": "k1"},
        "abc.execute-api.eu-west-1.amazonaws.com",
        "/prod/up",
        {"x-api-key": "k1"},
    ),
    "azure-event-hubs": Expected(
        {"namespace": "ns1", "hub": "h1", "signature": "SharedAccessSignature sr=a&sig=b"},
        "ns1.servicebus.windows.net",
        "/h1/messages?api-version=2014-01",
        {"authorization": "SharedAccessSignature sr=a&sig=b"},
    ),
    "datacake": Expected(
        {"token": "t1"},
        "api.datacake.co",
        "/integrations/lorawan/tti/",
        {"authorization": "Token t1"},
        TTS,
    ),
    "discord": Expected(
        {"url": "https://discord.com/api/webhooks/1/x", **LINE},
        "discord.com",
        "/api/webhooks/1/x",
        body={"content": f"Cold room: {SAID}"},
    ),
    "elasticsearch": Expected(
        {"url": "https://es.example.com:9200", "index": "iot", "api_key": "k1"},
        "es.example.com:9200",
        "/iot/_doc",
        {"authorization": "ApiKey k1"},
        {
            "@timestamp": TIME,
            "id": "d1",
            "device": "acme:dev 1",
            "tenant": "acme",
            "message": MESSAGE,
        },
    ),
    "home-assistant": Expected(
        {"url": "https://home.example.com:8123", "webhook_id": "w1"},
        "home.example.com:8123",
        "/api/webhook/w1",
    ),
    "influxdb-cloud": Expected(
        {"url": "https://eu.cloud2.influxdata.com", "org": "o1", "bucket": "b1", "token": "t1"},
        "eu.cloud2.influxdata.com",
        "/api/v2/write?",
        {"authorization": "Token t1"},
        b"telemetry,device=acme:dev\\ 1 temperature=21.5 1795255200000",
    ),
    "losant": Expected({"webhook": "w1"}, "triggers.losant.com", "/webhooks/w1"),
    "microsoft-teams": Expected(
        {"url": "https://prod.westeurope.logic.azure.com/workflows/1?sig=s", **LINE},
        "prod.westeurope.logic.azure.com",
        "/workflows/1?sig=s",
        body={
            "type": "message",
            "attachments": [
                {
                    "contentType": "application/vnd.microsoft.card.adaptive",
                    "content": {
                        "type": "AdaptiveCard",
                        "version": "1.4",
                        "body": [
                            {"type": "TextBlock", "weight": "bolder", "text": "Cold room"},
                            {
                                "type": "TextBlock",
                                "wrap": True,
                                "text": f"acme:dev 1: uplink at {TIME}",
                            },
                        ],
                    },
                }
            ],
        },
    ),
    "n8n": Expected(
        {"url": "https://n8n.example.com/webhook/x", "api_key": "k1"},
        "n8n.example.com",
        "/webhook/x",
        {"x-api-key": "k1"},
    ),
    "pagerduty": Expected(
        {"routing_key": "r1"},
        "events.pagerduty.com",
        "/v2/enqueue",
        body={
            "routing_key": "r1",
            "event_action": "trigger",
            "dedup_key": "acme/acme:dev 1",
            "payload": {
                "summary": "acme:dev 1: uplink",
                "source": "acme:dev 1",
                "severity": "error",
                "timestamp": TIME,
                "custom_details": MESSAGE,
            },
        },
    ),
    "qubitro": Expected(
        {"project_id": "p1", "webhook_signing_key": "k1"},
        "webhook.qubitro.com",
        "/integrations/ttn",
        {"projectid": "p1", "webhooksigningkey": "k1"},
        TTS,
    ),
    "slack": Expected(
        {"url": "https://hooks.slack.com/services/a/b", **LINE},
        "hooks.slack.com",
        "/services/a/b",
        body={"text": f"Cold room: {SAID}"},
    ),
    "splunk": Expected(
        {"url": "https://splunk.example.com:8088", "token": "t1"},
        "splunk.example.com:8088",
        "/services/collector/event",
        {"authorization": "Splunk t1"},
        {
            "time": 1795255200,
            "host": "acme:dev 1",
            "source": "funicular",
            "sourcetype": "_json",
            "index": "main",
            "event": MESSAGE,
        },
    ),
    "tagoio": Expected(
        {"authorization": "a1"}, "ttn.middleware.tago.io", "/uplink", {"authorization": "a1"}, TTS
    ),
    "telegram": Expected(
        {"token": "1:A", "chat": "@room", **LINE},
        "api.telegram.org",
        "/bot1:A/sendMessage",
        body={"chat_id": "@room", "text": f"Cold room: {SAID}"},
    ),
    "thingsboard": Expected({"key": "k1"}, "thingsboard.cloud", "/api/v1/integrations/http/k1"),
    "thingspeak": Expected(
        {"channel_id": "c1", "api_key": "k1"},
        "api.thingspeak.com",
        "/things_network/v3/update/",
        {"authorization": "k1", "channelid": "c1"},
        TTS,
    ),
    "ttnmapper": Expected(
        {"email": "a@b.example"},
        "integrations.ttnmapper.org",
        "/tts/v3/uplink-message",
        {"ttnmapperorg-user": "a@b.example"},
        TTS,
    ),
    "ubidots": Expected(
        {"token": "t1"},
        "industrial.api.ubidots.com",
        "/api/v1.6/devices/acme%3Adev%201",
        {"x-auth-token": "t1"},
        {"temperature": 21.5},
    ),
    "webhook": Expected(
        {"url": "https://example.com/in", "secret": SECRET},
        "example.com",
        "/in",
        {"webhook-id": "d1"},
    ),
}
SHIPPED = sorted(
    name
    for name, template in templates_of(Path("none"), catalogue().templates).items()
    if template.kind == "sink"
)


def sink_of(folder: Path, name: str, variables: dict[str, str]) -> SinkEntry:
    """Load a rules folder with one sink, as a user would write it, and return the sink."""
    lines = [f"template: {name}", "variables:"]
    env = {}
    for number, (variable, value) in enumerate(variables.items()):
        env[f"V{number}"] = value
        lines.append(f"  {variable}: ${{env:V{number}}}")
    (folder / "sinks").mkdir(parents=True)
    (folder / "sinks/out.yaml").write_text("\n".join(lines))
    (book,) = load_rules([folder], None, env).values()
    assert book.warnings == ()
    return book.sinks["out"]


@asynccontextmanager
async def seeing() -> AsyncIterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """Run a server; give its address, and what it saw: path, headers, body."""
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def see(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen.append((request.raw_path, headers, await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", see)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2]), seen
    finally:
        await runner.cleanup()


def test_each_template_is_tried() -> None:
    """Every template that comes along has its case here, and there are more than ten."""
    assert sorted(EXPECTED) == SHIPPED
    assert len(SHIPPED) > 10


@pytest.mark.parametrize("name", SHIPPED)
def test_a_template_speaks_its_services_language(name: str, tmp_path: Path) -> None:
    """With a user's values alone, host, path, headers and body are what the service asks for."""
    expected = EXPECTED[name]
    entry = sink_of(tmp_path, name, expected.variables)
    address = urlsplit(entry.config.url)
    assert (address.scheme, address.netloc) == ("https", expected.host)
    origin = Origin(
        type="uplink", integration="tts", application_id="acme", device_id="dev 1", f_port=2
    )
    delivery = Delivery("d1", "acme", "acme:dev 1", "out", 1, body=MESSAGE, origin=origin)

    async def main() -> None:
        async with seeing() as (url, seen):
            here = entry.config.model_copy(
                update={"url": url + entry.config.url.removeprefix(f"https://{expected.host}")}
            )
            settings = SinkSettings(allowed_networks=LOOPBACK)
            context = Context("acme", "out", settings, lambda: 1_795_255_200_000)
            sink = transports()[entry.transport](here, context)
            await sink.open()
            (result,) = await sink.deliver([delivery])
            await sink.close()
            assert result.verdict is Verdict.DELIVERED
            ((path, headers, body),) = seen
        assert path.startswith(expected.path) if expected.path.endswith("?") else True
        assert expected.path.endswith("?") or path == expected.path
        assert {name: headers.get(name) for name in expected.headers} == expected.headers
        if isinstance(expected.body, bytes):
            assert body == expected.body
        elif expected.body is TTS:
            said = orjson.loads(body)
            assert said["end_device_ids"]["device_id"] == "dev 1"
            assert said["uplink_message"]["decoded_payload"] == {"temperature": 21.5}
        else:
            assert headers["content-type"].startswith("application/json")
            assert orjson.loads(body) == expected.body

    asyncio.run(asyncio.wait_for(main(), 15))


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_template_lacks_is_said(name: str, tmp_path: Path) -> None:
    """Without values, each variable that must be given is named, in the user's own file."""
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks/out.yaml").write_text(f"template: {name}\n")
    with pytest.raises(ConfigError) as caught:
        load_rules([tmp_path], None, {})
    assert all(fault.file == "sinks/out.yaml" for fault in caught.value.faults)
    assert all("is missing: " in fault.message for fault in caught.value.faults)


def test_a_folders_own_template_counts_more(tmp_path: Path) -> None:
    """A template in the folder is used in place of one of the same name that comes along."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/slack.yaml").write_text(
        "name: Ours\ndescription: Ours.\nvariables: {room: {description: The room}}\n"
        "sink: {transport: http, url: 'https://chat.example.com/{{room}}'}\n"
    )
    assert sink_of(tmp_path, "slack", {"room": "1"}).config.url == "https://chat.example.com/1"


def test_a_template_of_the_things_stack_as_it_stands(tmp_path: Path) -> None:
    """A file in The Things Stack's format, `.yml` and index beside it, is used as it is."""
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates/templates.yml").write_text("- example\n")
    (tmp_path / "templates/example.yml").write_text(
        "template-id: example\nname: Example\nfields:\n  - {id: key, name: Key, secret: true}\n"
        "format: json\nheaders: {Authorization: 'Bearer {key}'}\nbase-url: https://a.example/in\n"
        "paths: {uplink-message: '/up{/devID}'}\n"
    )
    config = sink_of(tmp_path, "example", {"key": "k1"}).config
    assert config.url == "https://a.example/in/up/{device_id}"
    assert config.headers["Authorization"].get_secret_value() == "Bearer k1"
    assert config.format.tts_v3 is not None


def test_faults_say_where_they_are(tmp_path: Path) -> None:
    """A template that is not there, a faulty one, and a field that does not fit: each in its
    place, with what to do.
    """
    (tmp_path / "templates").mkdir()
    (tmp_path / "sinks").mkdir()
    (tmp_path / "templates/bad.yaml").write_text(
        "name: Bad\ndescription: Bad.\nsink: {transport: http, url: '{{nothing}}'}\n"
    )
    (tmp_path / "sinks/a.yaml").write_text("template: slak\n")
    (tmp_path / "sinks/b.yaml").write_text("template: bad\n")
    (tmp_path / "sinks/c.yaml").write_text(
        "template: losant\nvariables: {webhook: w}\ntimeout: soon\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_rules([tmp_path], None, {})
    said = [str(fault) for fault in caught.value.faults]
    assert said == [
        "sinks/a.yaml:1:11: there is no template `slak` (did you mean `slack`?)",
        "sinks/c.yaml:3:10: write a duration as seconds, or as 250ms, 10s, 5m, 6h or 7d",
        "templates/bad.yaml:3:31: there is no variable `nothing` (declare it under `variables`)",
    ]


def test_a_secret_in_the_file_is_warned_of(tmp_path: Path) -> None:
    """A secret that is no reference runs, and is warned of in the user's file."""
    (tmp_path / "sinks").mkdir()
    (tmp_path / "sinks/out.yaml").write_text("template: losant\nvariables:\n  webhook: w1\n")
    (book,) = load_rules([tmp_path], None, {}).values()
    (warning,) = book.warnings
    assert (warning.file, warning.line) == ("sinks/out.yaml", 3)
    assert "stands here for all to read" in warning.message
