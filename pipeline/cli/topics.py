"""`funicular topics`: Kafka's topics."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.speaking import (
    FAILED,
    data_option,
    json_line,
    json_option,
    log_option,
    rulebooks,
    rules_option,
    telling,
)

if TYPE_CHECKING:
    from pipeline.stream.kafka_settings import KafkaSettings


@click.group()
def topics() -> None:
    """Make Kafka's topics from the one table, list them, and check them.

    Partitions, replication and a prefix are in the address:
    kafka://HOST:9092?partitions=24&replication=3&prefix=acme.
    """


def _settings(log_url: str) -> KafkaSettings:
    from pipeline.errors import UsageError
    from pipeline.stream.kafka_settings import KafkaSettings

    if not log_url.startswith("kafka://"):
        raise UsageError(
            "only Kafka has topics to make: --log kafka://HOST:9092 (or FUNICULAR_LOG)"
        )
    return KafkaSettings.from_url(log_url, os.environ)


def _plans(log_url: str, rules: tuple[Path, ...]) -> tuple[KafkaSettings, list[Any]]:
    from pipeline.stream.kafka_topics import plan

    settings = _settings(log_url)
    with rulebooks(rules) as (books, _):
        return settings, plan(settings, books.values())


@topics.command("create")
@log_option
@rules_option
@telling
def topics_create(*, log_url: str, rules: tuple[Path, ...]) -> None:
    """Make the topics that are not there, those of the rules' destinations among them.

    \b
    Example:
      funicular topics create --log 'kafka://localhost:9092?partitions=24&replication=3'
    """
    from pipeline.stream.kafka_topics import create

    settings, plans = _plans(log_url, rules)
    made = create(settings, plans)
    for name in made:
        click.echo(f"made {name}")
    click.echo(f"{len(made)} made, {len(plans) - len(made)} were there")


@topics.command("list")
@log_option
@json_option
@telling
def topics_list(*, log_url: str, as_json: bool) -> None:
    """List the topics that are there, with partitions, replication and retention."""
    import msgspec

    from pipeline.stream.kafka_topics import look

    for state in look(_settings(log_url)):
        if as_json:
            json_line(msgspec.to_builtins(state))
            continue
        policy = state.config.get("cleanup.policy", "")
        kept = int(state.config.get("retention.ms", "-1")) / 86_400_000
        keeps = "the last value a key" if policy == "compact" else f"{kept:g} days"
        click.echo(
            f"{state.topic:<44} {state.partitions:>4} partitions  {state.replication} replicas"
            f"  keeps {keeps}"
        )


@topics.command("check")
@log_option
@rules_option
@json_option
@telling
def topics_check(*, log_url: str, rules: tuple[Path, ...], as_json: bool) -> None:
    """Say what is not as it must be: partitions, replication, compaction, retention.

    Errors stop workers; warnings cost something.
    """
    import msgspec

    from pipeline.stream.kafka_topics import check

    settings, plans = _plans(log_url, rules)
    found = check(settings, plans)
    for difference in found:
        if as_json:
            json_line(msgspec.to_builtins(difference))
        else:
            colour = "red" if difference.level == "error" else "yellow"
            click.secho(str(difference), fg=colour)
    if not as_json and not found:
        click.echo(f"{len(plans)} topics are as they must be")
    if any(difference.level == "error" for difference in found):
        sys.exit(FAILED)


@topics.command("move")
@log_option
@data_option
@telling
def topics_move(*, log_url: str, data: Path) -> None:
    """Bring an embedded log's state (attributes, pending downlinks, timers) to Kafka.

    It refuses a log in which something waits, and a cluster on which stages have worked already.

    \b
    Example:
      funicular topics move --data data --log kafka://localhost:9092
    """
    from pipeline.settings import Settings
    from pipeline.stream.kafka_move import move_state

    for moved in move_state(Settings(data=data).log_file, _settings(log_url)):
        click.echo(f"{moved.stage}: {moved.parts} parts of state, {moved.timers} timers")
