"""A converter and what goes into it, as its examples write it → the call of its script."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.errors import UsageError
from pipeline.ports import Contract, Script, ScriptCall
from pipeline.rehearse.compare import shown
from pipeline.rulebook.book import Converter, Rulebook
from pipeline.rulebook.catalogue import suggest

RECEIVED = "2026-01-01T00:00:00.000Z"
"""When an input was received that does not say it: the same in each run."""

GIVEN_BYTES_MAX = 64
"""Bytes of an input that a report shows."""

Routine = Literal["decode_uplink", "encode_downlink", "decode_downlink"]
"""What of a converter can be tried and has examples."""

_KEYS: Mapping[Routine, str] = {
    "decode_uplink": "uplinkDecoder",
    "encode_downlink": "downlinkEncoder",
    "decode_downlink": "downlinkDecoder",
}


def converter_of(book: Rulebook, name: str) -> Converter:
    """Return a converter by name, or by the name of an integration that has one.

    UsageError: there is none.
    """
    found = book.converters.get(name)
    if found is not None:
        return found
    integration = book.integrations.get(name)
    if integration is not None and integration.converter:
        return book.converters[integration.converter]
    hint = suggest(name, [*book.converters, *book.integrations])
    listed = ", ".join(book.converters) or "none"
    raise UsageError(
        f"{book.folder} has no converter `{name}`: {hint or f'there are {listed}'}",
        code="no_converter",
    )


def contract_of(book: Rulebook, converter: Converter) -> Contract:
    """Return a converter's contract: its own, or that of the dialects that it is used with."""
    if converter.contract is not None:
        return converter.contract
    used = {
        integration.dialect.contract
        for integration in book.integrations.values()
        if integration.converter == converter.name
    }
    return "thingsboard" if used == {"thingsboard"} else "lorawan"


def call_of(
    book: Rulebook, converter: Converter, routine: Routine, given: Mapping[str, Any]
) -> ScriptCall:
    """Return the call of one of the converter's scripts; `given` is as an example's `input`.

    UsageError: the converter has no such script.
    """
    script = script_of(converter, routine)
    contract = contract_of(book, converter)
    argument: dict[str, Any]
    if routine == "encode_downlink":
        if contract == "thingsboard":
            argument = {
                "msg": given.get("msg", given.get("data", {})),
                "metadata": given.get("metadata", {}),
                "msgType": given.get("msgType", "ATTRIBUTES_UPDATED"),
                "integrationMetadata": given.get("integrationMetadata", {}),
            }
        else:
            argument = {
                "data": given.get("data", {}),
                "fPort": given.get("fPort"),
                "variables": given.get("variables", {}),
            }
    elif contract == "thingsboard" and routine == "decode_uplink":
        argument = {"payload": _base64(given), "metadata": given.get("metadata", {})}
    else:
        argument = {
            "bytes": _base64(given),
            "fPort": given.get("fPort", 0),
            "recvTime": given.get("recvTime", RECEIVED),
            "variables": given.get("variables", {}),
        }
    return ScriptCall(
        tenant=book.tenant,
        script=script,
        operation=routine,
        argument=argument,
        contract=contract,
    )


def given_text(routine: Routine, given: Mapping[str, Any]) -> str:
    """Return what goes into a converter as one reads it: `port 1, 3 bytes: 00 d7 21`."""
    port = f"port {given['fPort']}, " if given.get("fPort") is not None else ""
    if routine == "encode_downlink":
        return f"{port}{shown(given.get('msg', given.get('data')))}"
    raw = bytes(given.get("bytes", ()))
    more = "…" if len(raw) > GIVEN_BYTES_MAX else ""
    return f"{port}{len(raw)} bytes: {raw[:GIVEN_BYTES_MAX].hex(' ')}{more}"


def script_of(converter: Converter, routine: Routine) -> Script:
    """Return the script of one routine. UsageError: the converter has none."""
    scripts: Mapping[Routine, Script | None] = {
        "decode_uplink": converter.decoder,
        "encode_downlink": converter.encoder,
        "decode_downlink": converter.downlink_decoder,
    }
    script = scripts[routine]
    if script is None:
        raise UsageError(
            f"the converter {converter.name} has no `{_KEYS[routine]}` in {converter.file}",
            code="no_script",
        )
    return script


def _base64(given: Mapping[str, Any]) -> str:
    return b64encode(bytes(given.get("bytes", ()))).decode()
