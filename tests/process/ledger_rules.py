"""A rules folder for the fault tests: every uplink carries a number, and what comes of it does."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "funicular.yaml": "tenant: t\n",
    "converters/t/ledger.yaml": """
uplinkDecoder: {fileName: ledger.js}
downlinkEncoder: {fileName: ledger.js}
""",
    "converters/t/ledger.js": """
function decodeUplink(input) {
  var b = input.bytes;
  return {data: {n: (b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3]) >>> 0}};
}
function encodeDownlink(input) {
  var n = input.data.n;
  if (typeof n !== "number") throw new TypeError("n is not a number");
  return {bytes: [n >>> 24, n >>> 16 & 255, n >>> 8 & 255, n & 255, 0, 0, 0, 7], fPort: 2};
}
""",
    "converters/t/http.yaml": """
contract: thingsboard
uplinkDecoder: {fileName: http.js}
""",
    "converters/t/http.js": """
function Decoder(payload, metadata) {
  var said = decodeToJson(payload);
  return {deviceName: said.device, deviceType: "plain", telemetry: {n: said.n}};
}
""",
    "integrations/ttn.yaml": """
dialect: ttn_v2
authentication: {header: X-Key, value: secret}
converter: t/ledger
""",
    "integrations/tts.yaml": """
dialect: tts_v3
authentication: {bearer: secret}
converter: t/ledger
options: {server: "${env:LEDGER_SERVERS}", api_key: secret}
""",
    "integrations/sigfox.yaml": """
dialect: sigfox
authentication: {query: key, value: secret}
converter: t/ledger
answer_timeout: 4s
""",
    "integrations/plain.yaml": """
dialect: http
authentication: {basic: {user: u, password: secret}}
converter: t/http
synchronous: true
answer_timeout: 4s
options: {repeat_header: Idempotency-Key}
""",
    "sinks/application.yaml": """
transport: http
url: "${env:LEDGER_SERVERS}/application"
""",
    "sinks/archive.yaml": """
transport: file
path: "${env:LEDGER_ARCHIVE}"
""",
    "chains/ledger.yaml": """
chain: ledger
on: {messages: [uplink]}
nodes:
  - name: remember
    set_attributes: {scope: server, values: {last: "${telemetry.n}"}}
  - name: tell
    send: {to: application, body: {n: "${telemetry.n}", device: "${device.name}"}}
  - name: keep
    send: {to: archive, body: {n: "${telemetry.n}"}}
  - name: some
    filter: telemetry.n % 5 == 0
  - name: answer
    send_downlink: {payload: {n: "${telemetry.n}"}, queue: last}
""",
}


def write_rules(folder: Path) -> Path:
    """Write the folder and return it."""
    for name, text in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.lstrip("\n"))
    return folder
