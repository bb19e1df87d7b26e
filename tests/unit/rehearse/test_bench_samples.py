"""What a bench sends."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.integrations.dialect import dialects
from pipeline.model.http import Request
from pipeline.rehearse.bench_load import Load, Sample, Source, device_ids, requests
from pipeline.rehearse.bench_samples import PAYLOAD, sources, without_connections
from pipeline.rehearse.messages import read_messages
from pipeline.rulebook.book import Rulebook
from pipeline.wiring import load_rules

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def book() -> Rulebook:
    return load_rules([ROOT / "rules"], None, {})["demo"]


def sent(source: Source, count: int, devices: int = 2) -> Iterator[tuple[str, bytes]]:
    load = Load("127.0.0.1", 80, (source,), devices, 0.0, 1.0, 1)
    for raw in islice(requests(load, source), count):
        head, _, body = raw.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head
        yield head.decode(), body


def test_samples_are_the_examples_of_converters(book: Rulebook) -> None:
    """Each integration sends the bytes and ports that its converter's good examples decode."""
    found = {source.integration: source for source in sources(book)}

    assert set(found) == set(book.integrations)
    thermostat = found["ttn-thermostats"]
    converter = book.converters["acme/thermostat"]
    good = [
        Sample(bytes(example.input["bytes"]), example.input.get("fPort"))
        for example in converter.examples
        if example.routine == "decode_uplink" and "errors" not in example.output
    ]
    assert list(thermostat.samples) == good
    assert thermostat.target == "/in/demo/ttn-thermostats"
    assert thermostat.headers == {"authorization": "demo-key"}


def test_without_examples_the_dialects_own_sample_is_sent(book: Rulebook) -> None:
    """An integration whose converter has none sends eight bytes that mean nothing."""
    bare = type(book)(
        **{name: getattr(book, name) for name in book.__slots__ if name != "converters"},
        converters={},
    )

    (source,) = sources(bare, only=["ttn-thermostats"])

    assert source.samples == (Sample(PAYLOAD),)
    assert "ttn_v2" in source.said


def test_requests_are_no_repeats_of_each_other(book: Rulebook) -> None:
    """Of all requests of two devices no two have the same repeat key, and each has its secret."""
    (source,) = sources(book, only=["ttn-thermostats"])
    integration = book.integrations["ttn-thermostats"]
    keys = []
    for head, body in sent(source, 20):
        assert head.startswith("POST /in/demo/ttn-thermostats HTTP/1.1\r\n")
        assert "authorization: demo-key" in head
        (uplink,) = dialects()["ttn_v2"].read(
            Request(body=body), integration.options, integration.device_template
        )
        keys.append((uplink.device, uplink.f_cnt))

    assert len(set(keys)) == 20
    assert {device for device, _ in keys} == {"sample-app:b00000", "sample-app:b00001"}


def test_each_dialect_takes_the_ids_of_the_load() -> None:
    """Every dialect makes a sample of a device of the load."""
    for name, dialect in dialects().items():
        assert dialect.sample(device_ids(dialect)(77), 1, b"\x01\x02", 1_767_225_600_000).body, name


def test_a_files_uplinks_are_sent_in_place_of_examples(book: Rulebook) -> None:
    """Bytes and port of a step become a sample, a whole body goes as it stands, with a word on
    repeats.
    """
    text = (
        b'{"uplink": {"integration": "ttn-thermostats", "bytes": "00fa5700", "f_port": 3}}\n'
        b'{"uplink": {"integration": "sigfox-meters", "body": {"device": "1A2B3C",'
        b' "time": "1767225600", "data": "0001e24000fa0294", "seqNumber": "1"}}}\n'
    )
    found = {source.integration: source for source in sources(book, read_messages(text, "f"))}

    assert found["ttn-thermostats"].samples == (Sample(b"\x00\xfa\x57\x00", 3),)
    assert found["ttn-thermostats"].warning == ""
    assert found["sigfox-meters"].samples[0].whole is not None
    assert "repeats" in found["sigfox-meters"].warning


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"uplink": {"bytes": "00"}}', "message 1 of the file names no integration"),
        (b'{"message": {"telemetry": {"a": 1}}}', "message 1 of the file is no uplink"),
        (b'{"uplink": {"integration": "gone", "bytes": "00"}}', "names no integration of"),
    ],
)
def test_a_file_that_cannot_be_sent_is_refused(book: Rulebook, text: bytes, said: str) -> None:
    """The error says which message it is, and what to write."""
    with pytest.raises(UsageError, match=said):
        sources(book, read_messages(text, "f"))


def test_an_integration_that_is_not_there_is_refused(book: Rulebook) -> None:
    """The error lists those that there are."""
    with pytest.raises(UsageError, match="ttn-thermostats"):
        sources(book, only=["gone"])


def test_no_rulebook_of_a_bench_connects_anywhere(book: Rulebook) -> None:
    """Integrations over a broker come by the door in a bench."""
    integrations = without_connections(book).integrations.values()

    assert all(each.connection is None and each.transport == "http" for each in integrations)
