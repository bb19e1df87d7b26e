"""`funicular publish`: gives a rules folder to all workers that follow the topic `rules`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pipeline.cli.speaking import FOLDER, log_option, rulebooks, telling


@click.command()
@click.argument("rules", nargs=-1, type=FOLDER, envvar="FUNICULAR_RULES")
@log_option
@telling
def publish(*, rules: tuple[Path, ...], log_url: str) -> None:
    """Check RULES folders (default: rules) and publish them to Kafka's topic `rules`.

    Workers started with `--rules topic:` follow it: all of them end on the same version, without a
    restart. A folder with faults is refused. Secrets stay `${env:…}` and `${file:…}`: they are read
    where the workers run. Topics of new destinations are made.

    \b
    Examples:
      funicular publish --log kafka://localhost:9092
      funicular worker convert route downlink --rules topic: --log kafka://localhost:9092
    """
    from pipeline.errors import UsageError
    from pipeline.rulebook.folder import read_folder
    from pipeline.stream.kafka_rules import create_deliveries, create_rules_topic
    from pipeline.stream.kafka_rules import publish as publish_files
    from pipeline.stream.kafka_settings import KafkaSettings

    if not log_url.startswith("kafka://"):
        raise UsageError(
            "rules are published to Kafka: --log kafka://HOST:9092 (or FUNICULAR_LOG); elsewhere"
            " `funicular run` watches its folder"
        )
    settings = KafkaSettings.from_url(log_url, os.environ)
    with rulebooks(rules or (Path("rules"),)) as (books, _):
        folders = {tenant: read_folder(book.folder) for tenant, book in books.items()}
        for tenant, book in books.items():
            if folders[tenant].version != book.version:
                raise UsageError(f"{book.folder} was edited while it was checked; publish again")
        for topic in [*create_rules_topic(settings), *create_deliveries(settings, books.values())]:
            click.echo(f"made {topic}")
    for tenant, folder in folders.items():
        found = publish_files(settings, tenant, folder.version, folder.contents)
        if found is None:
            click.echo(f"{tenant}: {folder.version} is published already")
            continue
        for sign, colour, paths in (
            ("+", "green", found.added),
            ("~", "yellow", found.changed),
            ("-", "red", found.removed),
        ):
            for path in paths:
                click.secho(f"  {sign} {path}", fg=colour)
        click.echo(f"{tenant}: {folder.version} is published (number {found.manifest.sequence})")
