"""How many payloads a second converters decode, by engine and weight.

    python -m tests.bench.codecs [--seconds 2] [--batch 500] [--only eight]

Each codec runs as a stage runs it: a batch of calls through the port, in a child process where it
is a script. A core's decodes are those that the CPU time of both processes would give, which does
not depend on what else the machine does; `child` and `parent` are their shares in µs. Prints a
table in Markdown.
"""

from __future__ import annotations

import argparse
import time
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from pipeline.convert.codec_port import CodecPort
from pipeline.errors import ScriptError
from pipeline.metrics import Registry
from pipeline.ports import Script, ScriptCall
from pipeline.script import ScriptLimits, ScriptProcesses

SOURCES = Path(__file__).with_name("codec_sources")
LANGUAGES = {"js": "javascript", "lua": "lua", "tbel": "tbel"}
EIGHT = bytes([0x00, 0xD7, 0x28, 0x0C, 0xE4, 0x01, 0x07, 0x08])
# Nine of the sensors, as such a device sends them each ten minutes.
MANY = bytes.fromhex(
    "017564 0367d700 046850 056a4000 0665dc05 077d9a02 087d3000 09733f27 ff0113".replace(" ", "")
)
CAYENNE = bytes.fromhex("0367 0110 0567 00ff 0273 279c 0168 50 0671 04d2 fb2e 0000")
ENVELOPE = orjson.dumps(
    {
        "end_device_ids": {
            "device_id": "room-1",
            "application_ids": {"application_id": "building"},
            "dev_eui": "24E124725C140001",
            "join_eui": "24E124C0002A0001",
            "dev_addr": "260B1234",
        },
        "correlation_ids": [
            "as:up:01E0WZGT6Y7657CPFPE5WEYDSQ",
            "gs:conn:01E0WZGT6Y7657CPFPE5WEYDSR",
        ],
        "received_at": "2026-11-21T10:00:00.123456789Z",
        "uplink_message": {
            "session_key_id": "AXA50tHUGUucuzS/bCGMNw==",
            "f_port": 85,
            "f_cnt": 4711,
            "frm_payload": b64encode(bytes.fromhex("0175640367d700046850")).decode(),
            "rx_metadata": [
                {"gateway_ids": {"gateway_id": name, "eui": eui}, "rssi": rssi, "snr": snr}
                for name, eui, rssi, snr in (
                    ("roof", "9C5C8E00001A05C4", -87, 7.2),
                    ("hall", "9C5C8E00001A05C5", -61, 9.5),
                )
            ],
            "settings": {"data_rate": {"lora": {"bandwidth": 125000, "spreading_factor": 7}}},
        },
    }
)  # fmt: skip


@dataclass(frozen=True)
class Codec:
    """One codec on one engine."""

    what: str
    engine: str
    source: str
    payload: bytes
    contract: Any = "lorawan"
    config: dict[str, Any] = field(default_factory=dict)

    def call(self) -> ScriptCall:
        raw = b64encode(self.payload).decode()
        argument: dict[str, Any] = {
            "bytes": raw,
            "fPort": 1,
            "recvTime": 1_767_225_600_000,
            "variables": {},
        }
        if self.contract == "thingsboard":
            argument = {"payload": raw, "metadata": {"name": "room-1", "integrationName": "bench"}}
        if self.config:
            script = Script(self.what, "codec", orjson.dumps(self.config).decode())
        else:
            text = (SOURCES / self.source).read_text(encoding="utf-8")
            language: Any = LANGUAGES[self.source.rsplit(".", 1)[1]]
            script = Script(self.source, language, text)
        return ScriptCall("bench", script, "decode_uplink", argument, self.contract)


def _eight() -> list[Codec]:
    what = "8 bytes → 4 fields"
    layout = [
        {"name": "temperature", "type": "int16", "scale": 0.1},
        {"name": "humidity", "type": "uint8", "scale": 0.5},
        {"name": "battery", "type": "uint16", "scale": 0.001},
        {"name": "counter", "type": "uint24"},
    ]
    proto = b64encode((SOURCES / "eight.proto").read_bytes()).decode()
    return [
        Codec(what, "JavaScript", "eight.js", EIGHT),
        Codec(what, "Lua", "eight.lua", EIGHT),
        Codec(what, "TBEL", "eight.tbel", EIGHT, "thingsboard"),
        Codec(
            what, "layout", "", EIGHT, config={"codec": "layout", "uplink": [{"fields": layout}]}
        ),
        Codec(
            what, "protobuf", "", bytes.fromhex("08ae03 1028 18e419 20888e04"),
            config={"codec": "protobuf", "schema": "eight.proto", "files": {"eight.proto": proto},
                    "uplink": [{"message": "Reading"}]},
        ),
    ]  # fmt: skip


def codecs() -> list[Codec]:
    """Return all that is measured."""
    cayenne = "Cayenne LPP, 5 channels"
    many = "a multi-sensor's, 188 lines"
    envelope = "ThingsBoard's, envelope of 800 bytes"
    return [
        *_eight(),
        Codec(many, "JavaScript", "many.js", MANY),
        Codec(many, "Lua", "many.lua", MANY),
        Codec(cayenne, "JavaScript", "cayenne.js", CAYENNE),
        Codec(cayenne, "Lua", "cayenne.lua", CAYENNE),
        Codec(cayenne, "cayenne_lpp", "", CAYENNE, config={"codec": "cayenne_lpp"}),
        Codec(envelope, "TBEL", "envelope.tbel", ENVELOPE, "thingsboard"),
        Codec(envelope, "JavaScript", "envelope.js", ENVELOPE, "thingsboard"),
    ]


def _child_cpu_s(processes: ScriptProcesses) -> float:
    total = 0.0
    for seat in processes._seats._seats.values():
        if seat._process is not None:
            schedstat = Path(f"/proc/{seat._process.pid}/schedstat").read_text()
            total += int(schedstat.split()[0]) / 1e9
    return total


def measure(codec: Codec, seconds: float, batch: int) -> tuple[float, float, float]:
    """Return decodes a second by the clock, and µs of CPU a decode, of the child and of us."""
    processes = ScriptProcesses(ScriptLimits(), Registry())
    port = CodecPort(processes)
    try:
        calls = [codec.call()] * batch
        first = port.call(calls)[0]
        if isinstance(first, ScriptError):
            raise SystemExit(f"{codec.what}, {codec.engine}: {first}")
        child, own, began, count = (
            _child_cpu_s(processes),
            time.process_time(),
            time.perf_counter(),
            0,
        )
        while time.perf_counter() - began < seconds:
            port.call(calls)
            count += batch
        took_s = time.perf_counter() - began
        own = time.process_time() - own
        child = _child_cpu_s(processes) - child
    finally:
        port.close()
    return count / took_s, child / count * 1e6, own / count * 1e6


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what a benchmark is for


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3, help="of each; the fastest is shown")
    parser.add_argument("--only", default="", help="a part of a codec's name or engine")
    given = parser.parse_args()
    say("| codec | engine | decodes/s a core | child µs | parent µs | decodes/s by the clock |")
    say("|---|---|---:|---:|---:|---:|")
    for codec in codecs():
        if given.only not in f"{codec.what} {codec.engine}":
            continue
        runs = [measure(codec, given.seconds, given.batch) for _ in range(given.runs)]
        clock, child, own = min(runs, key=lambda run: run[1] + run[2])
        a_core = 1e6 / (child + own)
        cells = (f"{a_core:,.0f}", f"{child:.1f}", f"{own:.1f}", f"{clock:,.0f}")
        say(f"| {codec.what} | {codec.engine} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
