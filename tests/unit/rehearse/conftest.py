"""A small rules folder of the real dialects, and scripts that are Python functions."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ScriptError
from pipeline.integrations.dialect import dialects
from pipeline.ports import ScriptCall
from pipeline.route.parse import chain_schema, check_chains, parse_chain
from pipeline.rulebook.book import Rulebook
from pipeline.rulebook.catalogue import Catalogue
from pipeline.rulebook.load import load
from pipeline.sink.transport import config_models

FILES = {
    "funicular.yaml": "tenant: acme\n",
    "integrations/lora.yaml": """
        dialect: ttn_v2
        authentication: {header: X-Key, value: lora-secret}
        converter: acme/sensor
        device_type: sensor
        """,
    "integrations/stack.yaml": """
        dialect: tts_v3
        authentication: {bearer: stack-secret}
        options: {server: "http://stack.example", api_key: down-secret}
        converter: acme/sensor
        device_type: sensor
        """,
    "integrations/fox.yaml": """
        dialect: sigfox
        authentication: {basic: {user: fox, password: fox-secret}}
        converter: acme/meter
        device_type: meter
        """,
    "integrations/web.yaml": """
        dialect: http
        authentication: {query: key, value: web-secret}
        converter: acme/page
        synchronous: true
        """,
    "integrations/bare.yaml": """
        dialect: http
        authentication: open
        options: {device_field: device}
        device_type: bare
        """,
    "converters/acme/sensor.yaml": """
        uplinkDecoder:
          fileName: sensor.js
          examples:
            - {description: warm, input: {bytes: [25], fPort: 1}, output: {data: {temperature: 25}}}
        downlinkEncoder: {fileName: sensor.js}
        """,
    "converters/acme/sensor.js": "// stands for the function `sensor`",
    "converters/acme/meter.yaml": """
        uplinkDecoder: {fileName: meter.js}
        downlinkEncoder: {fileName: meter.js}
        """,
    "converters/acme/meter.js": "// stands for the function `meter`",
    "converters/acme/page.yaml": """
        contract: thingsboard
        uplinkDecoder: {fileName: page.js}
        downlinkEncoder: {fileName: page.js}
        """,
    "converters/acme/page.js": "// stands for the function `page`",
    "sinks/out.yaml": "{transport: file, path: out.jsonl}\n",
    "sinks/other.yaml": "{transport: file, path: other.jsonl}\n",
    "chains/cool.yaml": """
        chain: cool
        on: {messages: [uplink, attributes_updated], device_type: [sensor, meter]}
        nodes:
          - name: which
            switch:
              - {when: 'message.type == "attributes_updated"', to: tell}
            otherwise: keep
          - name: keep
            send: {to: out}
          - name: warm
            filter: telemetry.temperature > 20
            otherwise: stop
          - name: remember
            set_attributes: {scope: shared, values: {cooling: true}}
            then: stop
          - name: tell
            send_downlink:
              payload: {cooling: "${has(attributes.shared.cooling)}"}
              expires_in: 1h
          - name: note
            log: {level: info, message: "told ${device.name}"}
        """,
}


def _unindented(text: str) -> str:
    from textwrap import dedent

    return dedent(text).lstrip("\n")


@dataclass
class Rules:
    """A rules folder on the disk; `book` loads it."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(_unindented(text))

    def book(self) -> Rulebook:
        catalogue = Catalogue(
            dialects=dialects(),
            sinks=config_models(),
            parse_chain=parse_chain,
            check_chains=check_chains,
            chain_schema=chain_schema,
        )
        return load(self.folder, catalogue, self.env)


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    """The folder of FILES."""
    made = Rules(tmp_path / "rules")
    for path, text in FILES.items():
        made.write(path, text)
    return made


@pytest.fixture
def book(rules: Rules) -> Rulebook:
    return rules.book()


Function = Callable[[str, dict[str, Any]], Any]


def refused(script: str, words: str) -> ScriptError:
    """What the engine returns where a script returned `errors`."""
    return ScriptError(f"{script}: {words}", code="script_errors", script=script)


def sensor(operation: str, argument: dict[str, Any]) -> Any:
    """One byte of degrees up, one byte of cooling down, on port 10."""
    if operation == "encode_downlink":
        return {"bytes": [int(bool(argument["data"].get("cooling")))], "fPort": 10, "warnings": []}
    payload = b64decode(argument["bytes"])
    if len(payload) != 1:
        return refused("converters/acme/sensor.js", "one byte is needed")
    return {"data": {"temperature": payload[0]}, "warnings": []}


def meter(operation: str, argument: dict[str, Any]) -> Any:
    """One byte up, eight bytes down, the first of them cooling."""
    if operation == "encode_downlink":
        return {"bytes": [int(bool(argument["data"].get("cooling"))), *[0] * 7], "warnings": []}
    return {"data": {"temperature": b64decode(argument["bytes"])[0]}, "warnings": ["old firmware"]}


def page(operation: str, argument: dict[str, Any]) -> Any:
    """ThingsBoard's contract: a device's name and a length up, text down."""
    if operation == "encode_downlink":
        return {"contentType": "TEXT", "data": str(argument["msg"]), "metadata": {}}
    telemetry = {"length": len(b64decode(argument["payload"]))}
    return {"deviceName": "page", "deviceType": "page", "telemetry": telemetry}


class FakeScripts:
    """`ports.ScriptPort` by the functions above; `calls` are those that were made."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {"sensor": sensor, "meter": meter, "page": page}
        self.calls: list[ScriptCall] = []

    def call(self, calls: Sequence[ScriptCall]) -> list[Any]:
        self.calls += calls
        return [self._one(call) for call in calls]

    def _one(self, call: ScriptCall) -> Any:
        name = call.script.path.rsplit("/", 1)[1].partition(".")[0]
        return self.functions[name](call.operation, call.argument)

    def close(self) -> None:
        """Nothing to end."""


@pytest.fixture
def scripts() -> FakeScripts:
    return FakeScripts()
