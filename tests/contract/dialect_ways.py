"""The device of the dialects' tests, and where each dialect sends its downlinks."""

from __future__ import annotations

from typing import Any

from pipeline.integrations.dialect import OverMqtt, dialects

DEVICE = "1A2B3C"  # an id that every network server can have
EUI = "0a0b0c0d0e0f0102"
OVER_MQTT = sorted(name for name, dialect in dialects().items() if isinstance(dialect, OverMqtt))
# How each dialect is told where its downlinks go.
WAYS: dict[str, dict[str, Any]] = {
    "ttn_v2": {"downlink_url": "https://ns.example/down"},
    "tts_v3": {"server": "https://ns.example", "api_key": "k"},
    "http": {"downlink_url": "https://ns.example/{device_id}"},
    "chirpstack": {"server": "https://ns.example", "api_key": "k"},
    "chirpstack_v3": {"server": "https://ns.example", "api_key": "k"},
    "helium": {"downlink_url": "https://ns.example/down"},
    "kerlink": {"server": "https://ns.example/gms", "api_key": "k"},
    "loriot": {"server": "https://ns.example", "api_key": "k", "application_id": "BE7A0001"},
    "thingpark": {"downlink_url": "https://ns.example/thingpark/lrc/rest/downlink"},
}
