"""`funicular decode`, `encode` and `send`: try a converter, or a running Funicular, by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline.cli.speaking import (
    FAILED,
    fail,
    json_line,
    json_option,
    one_book,
    rulebooks,
    rules_option,
    telling,
)

if TYPE_CHECKING:
    from pipeline.errors import ScriptError
    from pipeline.rehearse.post import Posted

_port_option = click.option(
    "--port", "f_port", type=click.IntRange(0, 255), help="LoRaWAN's FPort."
)


@click.command()
@click.argument("words", metavar="[CONVERTER] [PAYLOAD]", nargs=-1)
@click.option("--converter", default=None, help="CONVERTER, by its name.")
@click.option("--hex", "payload", default=None, help="PAYLOAD, by its name.")
@_port_option
@click.option("--downlink", is_flag=True, help="Decode what went down, by decodeDownlink.")
@rules_option
@json_option
@telling
def decode(
    *, words: tuple[str, ...], converter: str | None, payload: str | None, f_port: int | None,
    downlink: bool, rules: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Decode PAYLOAD (hexadecimal or base64) by CONVERTER, or by an integration's.

    \b
    Examples:
      funicular decode acme/thermostat 00ff5a01
      funicular decode --converter acme/thermostat --port 1 --hex 00ff5a01
      funicular decode sigfox-meters AAHiQAD6AoM= --json
    """
    from pipeline.errors import ScriptError
    from pipeline.rehearse.calls import given_text
    from pipeline.rehearse.decode import decode as run
    from pipeline.rehearse.payload import payload_of

    converter, payload = _named(words, CONVERTER=converter, PAYLOAD=payload)
    raw = payload_of(payload)
    with rulebooks(rules) as (books, scripts):
        try:
            decoded = run(
                one_book(books),
                scripts,
                converter,
                raw,
                f_port=f_port,
                routine="decode_downlink" if downlink else "decode_uplink",
            )
        except ScriptError as error:
            given = given_text("decode_uplink", {"bytes": raw, "fPort": f_port or 0})
            _fail(error, converter, given, as_json=as_json)
    _warn(decoded.warnings)
    _show(decoded.data, as_json=as_json)


@click.command()
@click.argument("words", metavar="[CONVERTER] [FIELDS]", nargs=-1)
@click.option("--converter", default=None, help="CONVERTER, by its name.")
@click.option("--fields", default=None, help="FIELDS, by its name.")
@_port_option
@rules_option
@json_option
@telling
def encode(
    *, words: tuple[str, ...], converter: str | None, fields: str | None, f_port: int | None,
    rules: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Encode FIELDS (a JSON object) by CONVERTER, or by an integration's.

    \b
    Examples:
      funicular encode acme/thermostat '{"cooling": true, "target": 21.5}'
      funicular encode --converter acme/thermostat --fields '{"cooling": false}' --json
    """
    from pipeline.errors import ScriptError
    from pipeline.rehearse.calls import given_text
    from pipeline.rehearse.encode import encode as run

    converter, fields = _named(words, CONVERTER=converter, FIELDS=fields)
    given = _object(fields)
    with rulebooks(rules) as (books, scripts):
        try:
            encoded = run(one_book(books), scripts, converter, given, f_port=f_port)
        except ScriptError as error:
            said = given_text("encode_downlink", {"data": given, "fPort": f_port})
            _fail(error, converter, said, as_json=as_json)
    _warn(encoded.warnings)
    if as_json:
        json_line({"payload": encoded.payload.hex(), "f_port": encoded.f_port})
    else:
        port = "" if encoded.f_port is None else f"  (port {encoded.f_port})"
        click.echo(f"{encoded.payload.hex(' ')}{port}")


def _named(words: tuple[str, ...], **options: str | None) -> list[str]:
    """Return each value: an option's, or else the next word. Ends where there are too few words,
    or too many.
    """
    left = list(words)
    values = []
    for name, value in options.items():
        if value is None and not left:
            fail(f"{name} is missing; see --help", 2)
        values.append(left.pop(0) if value is None else value)
    if left:
        fail(f"there is one word too many: `{left[0]}`; see --help", 2)
    return values


def _fail(error: ScriptError, converter: str, given: str, *, as_json: bool) -> NoReturn:
    """Say what a script failed with: the converter, the place, and what went in."""
    if as_json:
        said = {"error": error.message, "code": error.code, **error.detail}
        json_line({**said, "converter": converter, "input": given})
        sys.exit(FAILED)
    fail(f"{error.message}\n  converter {converter}, input {given}", FAILED)


@click.command()
@click.argument("integration")
@click.argument("device")
@click.argument("payload", default="")
@click.option("--body", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A file with the request's whole body, in place of a sample.")  # fmt: skip
@click.option("--to", "address", default="http://127.0.0.1:8080", show_default=True,
              envvar="FUNICULAR_ADDRESS", help="Where Funicular listens.")  # fmt: skip
@click.option("--count", "-n", default=1, show_default=True, type=click.IntRange(1))
@click.option("--interval", default=1.0, show_default=True, help="Seconds between two uplinks.")
@click.option("--counter", default=1, show_default=True, help="The first one's frame counter.")
@rules_option
@json_option
@telling
def send(
    *, integration: str, device: str, payload: str, body: Path | None, address: str, count: int,
    interval: float, counter: int, rules: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Post a sample uplink of DEVICE, in the format of INTEGRATION's network server.

    The key is the integration's own. PAYLOAD is hexadecimal or base64. For an integration over
    MQTT it is published to its broker instead.

    \b
    Examples:
      funicular send ttn-thermostats room-1 010e5a00
      funicular send sigfox-meters 1A2B3C 0001e24000fa0283 -n 10 --interval 0.5
      funicular send http-generic any --body uplink.json
    """
    from pipeline.rehearse.payload import payload_of
    from pipeline.rehearse.post import integration_of, post
    from pipeline.rehearse.samples import request_of_body, samples
    from pipeline.rehearse.sending import send_samples

    with rulebooks(rules) as (books, _):
        chosen = integration_of(one_book(books), integration)
    uplinks = samples(
        chosen,
        device_id=device,
        payload=payload_of(payload) if payload else b"",
        request=request_of_body(body.read_bytes()) if body else None,
        count=count,
        counter=counter,
        interval_s=interval,
    )
    if chosen.connection is None:
        sent = post(chosen, address, uplinks)
    else:
        sent = send_samples(chosen, device, uplinks)
    refused = 0
    for posted in sent:
        refused += not posted.ok
        _tell(posted, as_json=as_json)
    if refused:
        sys.exit(FAILED)


def _tell(posted: Posted, *, as_json: bool) -> None:
    body = posted.body.decode(errors="replace")
    if as_json:
        json_line(
            {
                "counter": posted.counter,
                "status": posted.status,
                "body": body,
                "error": posted.error,
                "duration_s": round(posted.duration_s, 6),
            }
        )
        return
    said = posted.error or f"{posted.status} {body}".rstrip()
    click.secho(
        f"{posted.counter}: {said}  ({posted.duration_s * 1000:.1f} ms)",
        fg="green" if posted.ok else "red",
    )


def _object(text: str) -> dict[str, Any]:
    import orjson

    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        fail(f"FIELDS is not JSON: {error}", 2)
    if not isinstance(value, dict):
        fail("FIELDS must be a JSON object, as '{\"target\": 21}'", 2)
    return value


def _show(value: Any, *, as_json: bool) -> None:
    import orjson

    if as_json:
        json_line(value)
    else:
        click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _warn(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        click.secho(f"warning: {warning}", fg="yellow", err=True)
