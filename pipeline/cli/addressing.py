"""How commands reach a running Funicular: its address, a key of its API, the tenant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.speaking import FOLDER

if TYPE_CHECKING:
    from pipeline.rehearse.remote import Remote

DEFAULT_ADDRESS = "http://127.0.0.1:8080"


def api_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--to`, `--key`, `--tenant` and `--rules`."""
    for option in (
        click.option("--to", "address", default=DEFAULT_ADDRESS, show_default=True,
                     envvar="FUNICULAR_ADDRESS", help="Where Funicular listens."),
        click.option("--key", default="", envvar="FUNICULAR_KEY",
                     help="A key of its API (`funicular keys create`); here none is needed while"
                     " there are none."),
        click.option("--tenant", default="", envvar="FUNICULAR_TENANT",
                     help="The tenant; by default that of the rules folder."),
        click.option("--rules", "-r", type=FOLDER, default="rules", envvar="FUNICULAR_RULES",
                     show_default=True, help="The rules folder that says the tenant."),
    ):  # fmt: skip
        command = option(command)
    return command


def remote(address: str, key: str) -> Remote:
    """Return the API at an address; close it."""
    from pipeline.rehearse.remote import Remote

    return Remote(address, key)


def tenant_of(tenant: str, rules: Path) -> str:
    """Return the tenant that is given, else the rules folder's. UsageError: neither says it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from pipeline.errors import UsageError

    if tenant:
        return tenant
    try:
        said = YAML(typ="safe", pure=True).load((rules / "funicular.yaml").read_bytes())
    except (OSError, YAMLError):
        said = None
    found = said.get("tenant") if isinstance(said, dict) else None
    if not isinstance(found, str) or not found:
        raise UsageError(
            f"say the tenant by --tenant (or FUNICULAR_TENANT): {rules}/funicular.yaml does not"
        )
    return found


def time_text(time_ms: int) -> str:
    """Return a moment for people."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
