"""`funicular devices`: which there are, what is known of one, forget one."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from pipeline.cli.addressing import api_options, remote, tenant_of, time_text
from pipeline.cli.speaking import (
    fail,
    json_line,
    json_option,
    open_recorded,
    recorded_options,
    telling,
)


@click.group()
def devices() -> None:
    """See which devices there are, and what is kept of one."""


@devices.command("list")
@click.option("--tenant", default="", envvar="FUNICULAR_TENANT", help="Only this tenant's.")
@click.option("--integration", default="", help="Only those last heard by this one.")
@recorded_options
@json_option
@telling
def list_(*, tenant: str, integration: str, log_url: str, data: Path, as_json: bool) -> None:
    """List the devices that were heard, from the log (also while Funicular runs).

    On Kafka it reads the changelog of all devices: that takes as long as they are many.

    \b
    Examples:
      funicular devices list
      funicular devices list --integration ttn-thermostats --json
      funicular devices list --log kafka://localhost:9092
    """
    with closing(open_recorded(log_url, data)) as records:
        for key, parts in records.state("route").items():
            known = parts.get("device")
            owner, _, device = key.partition("/")
            if known is None or tenant not in ("", owner):
                continue
            if integration not in ("", known.get("integration")):
                continue
            _tell(owner, device, known, as_json=as_json)


@devices.command("show")
@click.argument("device")
@api_options
@telling
def show(*, device: str, address: str, key: str, tenant: str, rules: Path) -> None:
    """Show what is known of DEVICE, as JSON: type, integration, attributes, last seen.

    \b
    Example:
      funicular devices show acme:room-1
    """
    with remote(address, key) as api:
        json_line(api.ask("GET", _path(tenant, rules, device)))


@devices.command("forget")
@click.argument("device")
@click.option("--yes", is_flag=True, help="Do not ask.")
@api_options
@telling
def forget(
    *, device: str, yes: bool, address: str, key: str, tenant: str, rules: Path
) -> None:  # fmt: skip
    """Forget DEVICE: attributes, state of rules, timers, waiting downlinks. There is no way back.

    \b
    Example:
      funicular devices forget acme:room-1 --yes
    """
    path = _path(tenant, rules, device)
    if not yes and not click.confirm(f"Forget all that is kept of {device}?"):
        fail("nothing was forgotten", 2)
    with remote(address, key) as api:
        api.ask("DELETE", path)
    click.echo(f"forgot {device}")


def _path(tenant: str, rules: Path, device: str) -> str:
    from pipeline.rehearse.remote import device_path

    return device_path(tenant_of(tenant, rules), device)


def _tell(tenant: str, device: str, known: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        shown = {name: value for name, value in known.items() if name != "link"}
        json_line({"tenant": tenant, "device": device, **shown})
        return
    first = known.get("first_seen_ms")
    seen = f"first seen {time_text(first)}" if first else ""
    kind = known.get("type", "")
    click.echo(f"{tenant}/{device:<32} {kind:<20} {known.get('integration', ''):<24} {seen}")
