"""`funicular integrations`: how the integrations of a running Funicular do."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from pipeline.cli.addressing import api_options, remote, tenant_of, time_text
from pipeline.cli.speaking import FAILED, json_line, json_option, telling

_COLOURS = {"connected": "green", "connecting": "yellow", "lost": "red"}


@click.command()
@api_options
@json_option
@telling
def integrations(
    *, address: str, key: str, tenant: str, rules: Path, as_json: bool
) -> None:  # fmt: skip
    """Show how each integration does: connected, last message, errors, reconnects.

    An integration that is posted to is `open`; its last message tells whether its network server
    still posts. One on `standby` is connected at another worker. Exit code 1: a connection is lost.

    \b
    Examples:
      funicular integrations
      funicular integrations --json | jq 'select(.state == "lost")'
    """
    with remote(address, key) as api:
        found = api.ask("GET", f"/api/v1/tenants/{tenant_of(tenant, rules)}/integrations")
    for each in found["integrations"]:
        if as_json:
            json_line(each)
        else:
            _tell(each)
    if any(each["state"] == "lost" for each in found["integrations"]):
        sys.exit(FAILED)


def _tell(each: dict[str, Any]) -> None:
    last = each.get("last_message_ms")
    said = [
        f"last message {_ago(last)} ({time_text(last)})" if last else "no message yet",
        f"{each['messages']} taken",
    ]
    for name, words in (
        ("refused", "refused"),
        ("passed_over", "passed over"),
        ("errors", "errors"),
    ):
        if each[name]:
            said.append(f"{each[name]} {words}")
    if each["connects"] > 1:
        said.append(f"{each['connects'] - 1} reconnects")
    click.secho(f"{each['integration']}", bold=True, nl=False)
    click.echo(f"  {each['dialect']} over {each['transport']}: ", nl=False)
    click.secho(each["state"], fg=_COLOURS.get(each["state"]), nl=False)
    where = f": {each['note']}" if each["state"] == "standby" and each["note"] else ""
    click.echo(f"{where}; {', '.join(said)}")
    if each["last_error"] and each["state"] != "open":
        click.echo(f"    last error ({time_text(each['last_error_ms'])}): {each['last_error']}")
    if each["note"] and not where:
        click.echo(f"    {each['note']}")


def _ago(time_ms: int) -> str:
    seconds = max(0, round(time.time() - time_ms / 1_000))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
