"""One payload, or one set of fields, through a converter."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.errors import ScriptError, UsageError
from pipeline.rehearse.calls import contract_of
from pipeline.rehearse.decode import decode
from pipeline.rehearse.encode import encode


def test_decode(book: Any, scripts: Any) -> None:
    """Bytes go in, telemetry and warnings come out."""
    decoded = decode(book, scripts, "acme/meter", b"\x07", f_port=3, variables={"unit": "C"})

    assert (decoded.data, decoded.warnings) == ({"temperature": 7}, ("old firmware",))
    assert decoded.script == "converters/acme/meter.js"
    assert scripts.calls[0].argument["fPort"] == 3
    assert scripts.calls[0].argument["variables"] == {"unit": "C"}


def test_decode_by_an_integrations_name(book: Any, scripts: Any) -> None:
    """Whoever knows only the integration need not look up its converter."""
    assert decode(book, scripts, "lora", b"\x07").converter == "acme/sensor"


def test_decode_in_the_contract_of_thingsboard(book: Any, scripts: Any) -> None:
    """All that the converter returned is shown, and it has the metadata."""
    decoded = decode(book, scripts, "acme/page", b"abc", metadata={"site": "A"})

    assert decoded.data["telemetry"] == {"length": 3}
    assert scripts.calls[0].argument == {"payload": "YWJj", "metadata": {"site": "A"}}


def test_encode(book: Any, scripts: Any) -> None:
    """Fields go in, bytes and a port come out; the caller's port goes before the script's."""
    encoded = encode(book, scripts, "acme/sensor", {"cooling": True})

    assert (encoded.payload, encoded.f_port) == (b"\x01", 10)
    assert encode(book, scripts, "acme/sensor", {}, f_port=4).f_port == 4
    assert encode(book, scripts, "acme/page", {"a": 1}).payload == b"{'a': 1}"


def test_encode_base64_of_thingsboard(book: Any, scripts: Any) -> None:
    """`BINARY` is base64."""
    scripts.functions["page"] = lambda *_: {"contentType": "BINARY", "data": "AQI="}

    assert encode(book, scripts, "acme/page", {}).payload == b"\x01\x02"


@pytest.mark.parametrize(
    "value",
    [None, [], {"contentType": "JPEG", "data": ""}, {"contentType": "BINARY", "data": "!"}],
)
def test_encode_nonsense_of_thingsboard(book: Any, scripts: Any, value: Any) -> None:
    """What is no downlink of ThingsBoard's is the script's fault, and named by its file."""
    scripts.functions["page"] = lambda *_: value

    with pytest.raises(ScriptError, match=r"converters/acme/page\.js: ") as caught:
        encode(book, scripts, "acme/page", {})
    assert caught.value.code == "script_result"


def test_a_scripts_refusal_is_raised(book: Any, scripts: Any) -> None:
    """The caller is told in the script's own words, with its file."""
    with pytest.raises(ScriptError, match=r"converters/acme/sensor\.js: one byte is needed"):
        decode(book, scripts, "acme/sensor", b"")


def test_what_is_not_there(rules: Any, scripts: Any) -> None:
    """A slip in a name gets a suggestion; a converter without an encoder says its file."""
    rules.write("converters/acme/meter.yaml", "uplinkDecoder: {fileName: meter.js}")
    book = rules.book()

    with pytest.raises(UsageError, match="did you mean `acme/sensor`"):
        decode(book, scripts, "acme/sensr", b"")
    with pytest.raises(UsageError, match=r"no `downlinkEncoder` in converters/acme/meter\.yaml"):
        encode(book, scripts, "acme/meter", {})


def test_the_contract_is_that_of_the_dialect_it_is_used_with(rules: Any) -> None:
    """A converter that does not say its contract is called as convert would call it."""
    rules.write("integrations/web.yaml", "{dialect: http, authentication: open, converter: acme/x}")
    rules.write("converters/acme/x.yaml", "uplinkDecoder: {fileName: page.js}")
    book = rules.book()

    assert contract_of(book, book.converters["acme/x"]) == "thingsboard"
    assert contract_of(book, book.converters["acme/sensor"]) == "lorawan"
