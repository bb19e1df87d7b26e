"""`funicular downlinks`: what waits for a device, what became of it, take it back, ask for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.cli.addressing import api_options, remote, tenant_of, time_text
from pipeline.cli.speaking import FAILED, fail, json_line, json_option, telling

_STATES = ["requested", "encoded", "queued", "answering", "sending", "sent", "accepted",
           "acknowledged", "not_acknowledged", "failed", "expired", "superseded",
           "cancelled"]  # fmt: skip
CALL_TIMEOUT_S = 330.0
"""For one call: longer than the door lets one wait by default."""
_PRIORITIES = ["lowest", "low", "below_normal", "normal", "above_normal", "high", "highest"]


def _content_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says what a downlink holds; `_body` reads it."""
    for option in (
        click.option("--confirmed", is_flag=True, help="The device is to acknowledge it."),
        click.option("--port", "f_port", type=click.IntRange(0, 255), help="LoRaWAN's FPort."),
        click.option("--fields", help="A JSON object for the converter's encoder."),
        click.option("--payload", help="Bytes: hexadecimal or base64."),
    ):
        command = option(command)
    return command


def _request_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add how a downlink is to leave, and `--idempotency-key`."""
    for option in (
        click.option("--idempotency-key", default="",
                     help="A second request with the same key is answered as the first."),
        click.option("--integration", help="The one to leave by; by default the device's last."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def downlinks() -> None:
    """See and change the downlinks of a device, at a running Funicular."""


@downlinks.command("list")
@click.argument("device")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES),
              help="Only those that stand there; may be given several times.")  # fmt: skip
@click.option("--network-server", is_flag=True,
              help="Show the network server's own queue too.")  # fmt: skip
@api_options
@json_option
@telling
def list_(
    *, device: str, states: tuple[str, ...], network_server: bool, address: str, key: str,
    tenant: str, rules: Path, as_json: bool,
) -> None:  # fmt: skip
    """List the downlinks of DEVICE: under way, waiting in their order, then the last ended ones.

    \b
    Examples:
      funicular downlinks list acme:room-1
      funicular downlinks list acme:room-1 --network-server --json
    """
    path = _path(tenant, rules, device)
    with remote(address, key) as api:
        said = api.ask("GET", path, query={"network_server": "true" if network_server else ""})
    for one in said["downlinks"]:
        if states and one["state"] not in states:
            continue
        if as_json:
            json_line(one)
        else:
            _tell(one)
    for name, shown in said.get("network_servers", {}).items():
        if as_json:
            json_line({"network_server": name, **shown})
            continue
        click.secho(f"{name}: {shown.get('error') or 'its own queue'}", bold=True)
        for held in shown.get("downlinks", ()):
            ours = f"  ours: {held['ours']}" if held.get("ours") else ""
            click.echo(f"  port {held.get('f_port')}  {held.get('payload')}{ours}")


@downlinks.command("show")
@click.argument("device")
@click.argument("downlink")
@api_options
@telling
def show(
    *, device: str, downlink: str, address: str, key: str, tenant: str, rules: Path
) -> None:  # fmt: skip
    """Show all that is known of one DOWNLINK of DEVICE, as JSON.

    \b
    Example:
      funicular downlinks show acme:room-1 0197a0c46a500000000000000000abcd.downlink
    """
    with remote(address, key) as api:
        json_line(api.ask("GET", _path(tenant, rules, device, downlink)))


@downlinks.command("cancel")
@click.argument("device")
@click.argument("ids", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that wait.")
@click.option("--network-server", is_flag=True,
              help="With --all: empty the network server's own queue too.")  # fmt: skip
@api_options
@json_option
@telling
def cancel(
    *, device: str, ids: tuple[str, ...], everything: bool, network_server: bool, address: str,
    key: str, tenant: str, rules: Path, as_json: bool,
) -> None:  # fmt: skip
    """Take back downlinks of DEVICE that wait: those with IDS, or all.

    \b
    Examples:
      funicular downlinks cancel acme:room-1 0197a0c46a500000000000000000abcd.downlink
      funicular downlinks cancel acme:room-1 --all --network-server
    """
    if bool(ids) == everything or (network_server and not everything):
        fail("name the downlinks by their ids, or say --all (--network-server goes with it)", 2)
    with remote(address, key) as api:
        if everything:
            query = {"network_server": "true" if network_server else ""}
            said = api.ask("DELETE", _path(tenant, rules, device), query=query)
        else:
            answers = [api.ask("DELETE", _path(tenant, rules, device, one)) for one in ids]
            said = {"cancelled": [one for answer in answers for one in answer["cancelled"]]}
    if as_json:
        json_line(said)
        return
    click.echo(f"cancelled {len(said['cancelled'])}")
    for name in said.get("clearing", ()):
        click.echo(f"asked {name} to empty its queue")


@downlinks.command("send")
@click.argument("device")
@_content_options
@click.option("--queue", type=click.Choice(["replace", "first", "last", "push"]),
              help="By default the integration's own way.")  # fmt: skip
@click.option("--priority", type=click.Choice(_PRIORITIES))
@click.option("--expires-in", help="It is not sent after this time, as 6h.")
@click.option("--supersede-key", help="Takes the place of a waiting one with the same key.")
@_request_options
@api_options
@json_option
@telling
def send(
    *, device: str, payload: str | None, fields: str | None, idempotency_key: str, address: str,
    key: str, tenant: str, rules: Path, as_json: bool, **asked: Any,
) -> None:  # fmt: skip
    """Ask for a downlink to DEVICE: bytes, or fields for the converter's encoder.

    \b
    Examples:
      funicular downlinks send acme:room-1 --fields '{"cooling": true}' --expires-in 6h
      funicular downlinks send 1A2B3C --payload 0001e24000fa0283
    """
    body = _body(payload, fields, asked)
    headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
    with remote(address, key) as api:
        said = api.ask("POST", _path(tenant, rules, device), body=body, headers=headers)
    if as_json:
        json_line(said)
    else:
        _tell(said)
    if said.get("state") == "failed":
        fail(said.get("reason", "failed"), FAILED)


@downlinks.command("call")
@click.argument("device")
@_content_options
@click.option("--until", type=click.Choice(["reply", "sent", "acknowledged", "queued"]),
              help="What ends the call; by default the reply, a later message of the device.",
              )  # fmt: skip
@click.option("--timeout", help="How long to wait, as 30s; by default 10s.")
@click.option("--reply", help="An expression that is true of the message that is the reply; by"
              " default the next one is.")  # fmt: skip
@click.option("--number-field", help="The field that gets the call's number (1 to 255).")
@click.option("--persistent", is_flag=True, help="The call goes on when the time is over.")
@click.option("--expires-in", help="The downlink is not sent after this time, as 6h.")
@_request_options
@api_options
@json_option
@telling
def call(
    *, device: str, payload: str | None, fields: str | None, idempotency_key: str, address: str,
    key: str, tenant: str, rules: Path, as_json: bool, **asked: Any,
) -> None:  # fmt: skip
    """Ask DEVICE something by a downlink, and wait for its reply, a later message of it.

    \b
    Examples:
      funicular downlinks call acme:valve-1 --fields '{"ask": "position"}' --timeout 30s
      funicular downlinks call acme:valve-1 --fields '{"ask": "position"}' \\
        --number-field number --reply 'telemetry.number == metadata.call.number'
      funicular downlinks call 1A2B3C --payload 01 --until acknowledged --persistent
    """
    from pipeline.rehearse.remote import Remote, device_path

    body = _body(payload, fields, asked)
    headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
    path = device_path(tenant_of(tenant, rules), device, "calls")
    with Remote(address, key, timeout_s=CALL_TIMEOUT_S) as api:
        said = api.ask("POST", path, body=body, headers=headers)
    if as_json:
        json_line(said)
        return
    reply = said.get("reply") or {}
    click.echo(f"{said['id']}  {said['state']}  {reply.get('time', '')}".rstrip())
    told = {name: value for name, value in reply.items() if name not in ("id", "time")}
    if told:
        json_line(told.get("telemetry", told))


@downlinks.command("calls")
@click.argument("device")
@click.argument("call_id", metavar="[CALL]", default="")
@api_options
@json_option
@telling
def calls(
    *, device: str, call_id: str, address: str, key: str, tenant: str, rules: Path, as_json: bool
) -> None:
    """Show the calls to DEVICE that wait, then those of the last day; or one CALL, as JSON.

    \b
    Examples:
      funicular downlinks calls acme:valve-1
      funicular downlinks calls acme:valve-1 0197a0c46a500000000000000000abcd.downlink
    """
    from pipeline.rehearse.remote import device_path

    more = ("calls", call_id) if call_id else ("calls",)
    with remote(address, key) as api:
        said = api.ask("GET", device_path(tenant_of(tenant, rules), device, *more))
    if call_id:
        json_line(said)
        return
    for one in said["calls"]:
        if as_json:
            json_line(one)
            continue
        why = f"  {one['reason']}" if one.get("reason") else ""
        click.echo(f"{one['id']}  {one['state']:<8} {time_text(one['asked_ms'])}{why}")


def _path(tenant: str, rules: Path, device: str, *more: str) -> str:
    from pipeline.rehearse.remote import device_path

    return device_path(tenant_of(tenant, rules), device, "downlinks", *more)


def _body(payload: str | None, fields: str | None, asked: dict[str, Any]) -> dict[str, Any]:
    """Return a request's body: what is to be sent, and what was said besides."""
    from base64 import b64encode

    import orjson

    from pipeline.rehearse.payload import payload_of

    if (payload is None) == (fields is None):
        fail("give either --payload or --fields", 2)
    body = {name: value for name, value in asked.items() if value not in (None, False)}
    if payload is not None:
        body["payload"] = b64encode(payload_of(payload)).decode()
        return body
    try:
        body["fields"] = orjson.loads(fields or "")
    except orjson.JSONDecodeError as error:
        fail(f"--fields is not JSON: {error}", 2)
    return body


def _tell(one: dict[str, Any]) -> None:
    from base64 import b64decode

    payload = b64decode(one.get("payload") or "").hex() or str(one.get("fields", ""))
    flag = "  possibly delivered" if one.get("possibly_delivered") else ""
    why = "".join(f"  {name}: {one[name]}" for name in ("reason", "by", "source") if one.get(name))
    click.echo(f"{one['id']}  {one['state']:<16} {time_text(one['changed_ms'])}  ", nl=False)
    click.echo(f"{payload}{flag}{why}")
