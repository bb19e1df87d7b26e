"""`funicular bench`: how fast the user's own rules are, on this machine."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

import click

from pipeline.cli.speaking import FAILED, json_line, json_option, rules_option, telling

if TYPE_CHECKING:
    from pipeline.rehearse.bench_load import Load
    from pipeline.rehearse.bench_result import BenchResult
    from pipeline.rehearse.bench_run import Progress
    from pipeline.rulebook.book import Rulebook

CONNECTIONS = 64
DRAIN_S = 120.0


@click.command()
@rules_option
@click.option("--messages", "-m", type=click.Path(path_type=Path, exists=True, dir_okay=False),
              help="Uplinks to send, as JSON: steps of a chain test.")  # fmt: skip
@click.option("--integration", "-i", "only", multiple=True,
              help="Send to this one alone; may be given several times.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(min=0.1, max=1_000_000),
              help="Uplinks a second; flat out if left away.")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0.1, max=86_400), default=10.0,
              show_default=True, help="How long to send.")  # fmt: skip
@click.option("--devices", type=click.IntRange(1, 1_000_000), default=2_000, show_default=True,
              help="Devices of each integration.")  # fmt: skip
@click.option("--connections", type=click.IntRange(1, 10_000), default=CONNECTIONS,
              show_default=True, help="Connections of each integration to the door.")  # fmt: skip
@click.option("--log", "log_url", default="embedded", show_default=True,
              help="embedded (in a temporary folder), or kafka://HOST:9092: there it makes topics"
                   " with a prefix of its own, and removes them.")  # fmt: skip
@click.option("--drain", "drain_s", type=click.FloatRange(min=0), default=DRAIN_S,
              show_default=True, help="Seconds that work may go on after the load.")  # fmt: skip
@click.option("--plain", is_flag=True, help="No live display, also on a terminal.")
@json_option
@telling
def bench(
    *, rules: tuple[Path, ...], messages: Path | None, only: tuple[str, ...], rate: float | None,
    seconds: float, devices: int, connections: int, log_url: str, drain_s: float, plain: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Measure your rules: send uplinks over HTTP, and time them from the door to the sinks.

    Uplinks are made of the examples of your converters (else of the dialect's own sample), or of
    --messages. The whole pipeline runs in this process, a second one sends. No network server and
    no application is called: in place of every sink stands one that only counts, so their own time
    is not in the figures; calls that chains wait for get an empty answer at once.

    \b
    Examples:
      funicular bench
      funicular bench --rate 1000 --seconds 60
      funicular bench --integration ttn-thermostats --devices 100000
      funicular bench --messages uplinks.jsonl --json
      funicular bench --log 'kafka://localhost:9092?partitions=4'
    """
    from pipeline.logs import configure_logs
    from pipeline.rehearse.bench_load import Load
    from pipeline.rehearse.bench_samples import sources, without_connections
    from pipeline.rehearse.messages import read_messages
    from pipeline.wiring import load_rules

    configure_logs("auto", "warning")
    books = load_rules(rules, None)
    entries = read_messages(messages.read_bytes(), messages.name) if messages else []
    found = [each for book in books.values() for each in sources(book, entries, only=only)]
    for warning in filter(None, (source.warning for source in found)):
        click.secho(warning, fg="yellow", err=True)

    def load(port: int) -> Load:
        return Load("127.0.0.1", port, tuple(found), devices, rate or 0.0, seconds, connections)

    books = {tenant: without_connections(book) for tenant, book in books.items()}
    live = sys.stdout.isatty() and not plain and not as_json
    with _place(log_url, books) as place, _view(len(found), live=live) as show:
        result = _run(load, books, place, drain_s, show)
    _tell(result, as_json=as_json)
    if not result.is_clean:
        sys.exit(FAILED)


def _tell(result: BenchResult, *, as_json: bool) -> None:
    import msgspec

    from pipeline.rehearse.bench_result import lines

    if as_json:
        json_line(msgspec.to_builtins(result))
        return
    for line in lines(result):
        click.echo(line)


@contextmanager
def _place(log_url: str, books: dict[str, Rulebook]) -> Iterator[tuple[Path, str]]:
    """Give a folder and a log for one bench, both gone afterwards."""
    import os

    from pipeline.errors import UsageError
    from pipeline.settings import EMBEDDED

    with tempfile.TemporaryDirectory(prefix="funicular-bench-") as folder:
        if log_url == EMBEDDED:
            yield Path(folder), log_url
            return
        if not log_url.startswith("kafka://"):
            raise UsageError(f"`{log_url}` is no log to measure: embedded, or kafka://HOST:9092")
        try:
            from pipeline.stream.kafka_settings import KafkaSettings
            from pipeline.stream.kafka_topics import create, plan, remove
        except ImportError as error:
            raise UsageError(
                f"kafka:// needs {error.name}: pip install 'funicular[kafka]'"
            ) from None
        mark = "&" if "?" in log_url else "?"
        url = f"{log_url}{mark}prefix=funicular-bench-{token_hex(4)}"
        settings = KafkaSettings.from_url(url, os.environ)
        plans = plan(settings, books.values())
        create(settings, plans)
        try:
            yield Path(folder), url
        finally:
            remove(settings, plans)


def _run(
    load: Callable[[int], Load], books: dict[str, Rulebook], place: tuple[Path, str],
    drain_s: float, show: Callable[[Progress], None],
) -> BenchResult:  # fmt: skip
    """Run the pipeline and the load beside it."""
    from pipeline.rehearse.bench_run import Bench
    from pipeline.rehearse.bench_sink import Counted, CountingTransport
    from pipeline.settings import EMBEDDED, Settings
    from pipeline.stream.sqlite import wall_clock_ms
    from pipeline.wiring import Funicular, run_loop

    data, url = place
    settings = Settings(data=data, log_url=url, port=0, watch=False)
    words = "the embedded log" if url == EMBEDDED else "Kafka"
    results: list[BenchResult] = []

    async def measure() -> None:
        counted = Counted(wall_clock_ms)
        pipeline = Funicular(
            settings, books=books, way_out=lambda context: CountingTransport(context, counted)
        )
        await pipeline.start()
        try:
            assert pipeline.door is not None
            sent = load(pipeline.door.port)
            bench = Bench(sent, pipeline.metrics, counted, log=words, drain_s=drain_s)
            results.append(await bench.run(show))
        finally:
            await pipeline.stop()

    run_loop(measure())
    return results[0]


@contextmanager
def _view(integrations: int, *, live: bool) -> Iterator[Callable[[Progress], None]]:
    """Give what shows progress: a table that is drawn again and again, or nothing."""
    if not live:
        yield lambda _progress: None
        return
    from rich.live import Live
    from rich.table import Table

    before: list[Progress] = []

    def frame(now: Progress) -> Table:
        before.append(now)
        then = before[max(0, len(before) - 11)]
        del before[:-11]
        passed = max(now.seconds - then.seconds, 0.001)
        table = Table(title=f"funicular bench, {now.seconds:.0f} s", title_justify="left")
        for title in ("", "so far", "a second"):
            table.add_column(title, justify="left" if not title else "right")
        rows = {
            f"sent to {integrations} integrations": (now.told.sent, then.told.sent),
            **{name: (count, then.stages.get(name, 0)) for name, count in now.stages.items()},
            "delivered": (now.deliveries, then.deliveries),
        }
        for name, (count, past) in rows.items():
            table.add_row(name, f"{count:,}", f"{(count - past) / passed:,.0f}")
        table.add_row("waits in the log", f"{now.waiting:,}", "")
        return table

    with Live(transient=True, auto_refresh=False) as screen:
        yield lambda progress: screen.update(frame(progress), refresh=True)
