"""`funicular keys`: the keys of the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli.speaking import data_option, json_line, json_option, telling


@click.group()
def keys() -> None:
    """Make, list and revoke the keys of the API.

    Without any key the API answers on loopback only. A key is shown once; only its hash is kept.
    """


_RIGHTS = ["read", "write", "downlink", "admin"]


@keys.command("create")
@click.argument("tenant")
@click.option(
    "--right",
    "-R",
    "rights",
    multiple=True,
    type=click.Choice(_RIGHTS),
    default=["read"],
    show_default=True,
    help="read: states; write: attributes, downlinks; downlink: ask for downlinks, no more;"
    " admin: forget devices, replay dead letters.",
)
@click.option("--note", default="", help="What it is for, to know it again in the list.")
@data_option
@telling
def keys_create(tenant: str, rights: tuple[str, ...], note: str, data: Path) -> None:
    """Make a key for a tenant and show it, this once.

    \b
    Example:
      funicular keys create demo -R read -R write --note "the dashboard"
    """
    key, shown = _key_store(data).create(tenant, rights, note)
    click.echo(shown)
    click.secho(
        f"key {key.id} of tenant {tenant} ({', '.join(key.rights)}); it is not shown again."
        " Send it as `Authorization: Bearer …`",
        err=True,
    )


@keys.command("list")
@data_option
@json_option
@telling
def keys_list(data: Path, *, as_json: bool) -> None:
    """List the keys, without their secrets."""
    import msgspec

    for key in _key_store(data).list():
        if as_json:
            shown = msgspec.to_builtins(key)
            shown.pop("digest", None)
            json_line(shown)
        else:
            rights = ",".join(key.rights)
            state = "in force" if key.revoked_ms is None else "revoked"
            click.echo(f"{key.id}  {state:<9} {key.tenant:<16} {rights:<18} {key.note}")


@keys.command("revoke")
@click.argument("key_id")
@data_option
@telling
def keys_revoke(key_id: str, data: Path) -> None:
    """Revoke a key; a running Funicular refuses it within a second."""
    key = _key_store(data).revoke(key_id)
    click.echo(f"revoked {key.id} of tenant {key.tenant}")


def _key_store(data: Path) -> Any:
    from pipeline.ingest.keys import KeyStore
    from pipeline.settings import Settings
    from pipeline.stream.sqlite import wall_clock_ms

    return KeyStore(Settings(data=data).keys_file, now_ms=wall_clock_ms)
