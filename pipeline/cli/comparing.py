"""`funicular diff`: what other rules would have done differently on recorded messages."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.speaking import (
    FAILED,
    FOLDER,
    file_name,
    json_line,
    json_option,
    one_book,
    open_recorded,
    recorded_options,
    rulebooks,
    telling,
)

if TYPE_CHECKING:
    from pipeline.rehearse.diff_text import Style
    from pipeline.rehearse.inputs import Source
    from pipeline.rehearse.outcome import Begin, Input
    from pipeline.rulebook.book import Rulebook

_COLOURS: dict[Style, dict[str, Any]] = {
    "head": {"bold": True},
    "gone": {"fg": "red"},
    "new": {"fg": "green"},
    "same": {"fg": "green"},
    "faint": {"dim": True},
    "plain": {},
}


@click.command()
@click.argument("old", type=FOLDER)
@click.argument("new", type=FOLDER)
@click.option("--messages", type=click.File("rb"),
              help="Take the messages of a JSON file (- for stdin), not of a log.")  # fmt: skip
@click.option("--since", help="Only messages from then on: 2026-01-31T12:00:00Z, or 6h (ago).")
@click.option("--until", help="Only messages before then, likewise.")
@click.option("--limit", type=click.IntRange(1), default=10_000, show_default=True,
              help="The last so many messages.")  # fmt: skip
@click.option("--from", "source", type=click.Choice(["uplinks", "events"]), default="uplinks",
              show_default=True, help="As received, or as decoded then.")  # fmt: skip
@click.option("--start", type=click.Choice(["nothing", "log"]), default="nothing",
              show_default=True,
              help="Both begin knowing nothing, or with the log's state of now.")  # fmt: skip
@click.option("--examples", type=click.IntRange(0), default=5, show_default=True,
              help="Examples of each kind of difference.")  # fmt: skip
@recorded_options
@json_option
@telling
def diff(
    *, old: Path, new: Path, messages: Any, since: str | None, until: str | None, limit: int,
    source: Source, start: str, examples: int, log_url: str, data: Path, as_json: bool,
) -> None:  # fmt: skip
    """Say what the rules of the folder NEW would have done differently from those of OLD.

    Both take the same recorded messages from the same start, offline: nothing is sent, and no log
    is written. Network servers take every downlink, and every answer arrives.

    Exit codes: 0 no difference, 1 they differ, 2 a mistake.

    \b
    Examples:
      funicular diff rules/ ../edited/rules
      funicular diff rules/ new/ --since 6h --log kafka://localhost:9092
      funicular diff rules/ new/ --messages messages.jsonl --json | jq .kinds
    """
    from pipeline.errors import UsageError
    from pipeline.rehearse.diff import compare
    from pipeline.rehearse.inputs import Span, inputs_of_file, inputs_of_log
    from pipeline.rehearse.messages import read_messages
    from pipeline.rehearse.outcome import NOTHING, outcome_of

    span = Span(_moment(since), _moment(until), limit)
    with rulebooks((old,)) as (old_books, scripts), rulebooks((new,)) as (new_books, new_scripts):
        before, after = one_book(old_books), one_book(new_books)
        if before.tenant != after.tenant:
            raise UsageError(f"{old} is of the tenant {before.tenant}, {new} of {after.tenant}")
        begin = NOTHING
        if messages is not None:
            if start == "log":
                raise UsageError("--start log begins with a log's state; --messages has none")
            inputs = inputs_of_file(read_messages(messages.read(), file_name(messages)))[-limit:]
            name = file_name(messages)
        else:
            with closing(open_recorded(log_url, data)) as recorded:
                inputs = inputs_of_log(recorded, before.tenant, span, source)
                begin = _state(recorded) if start == "log" else NOTHING
                name = recorded.name
        if not inputs:
            raise UsageError(f"{name} has no such messages of the tenant {before.tenant}")
        with _progress(2 * len(inputs), as_json=as_json) as step:
            one = outcome_of(before, scripts, inputs, begin, step)
            other = outcome_of(after, new_scripts, inputs, begin, step)
    comparison = compare(one, other, examples=examples)
    _tell(comparison, _head(before, after, inputs, begin, name), as_json=as_json)
    if comparison.differs:
        sys.exit(FAILED)


def _head(
    old: Rulebook, new: Rulebook, inputs: list[Input], begin: Begin, name: str
) -> dict[str, Any]:
    from pipeline.route.message import time_text

    first, last = inputs[0].time_ms, inputs[-1].time_ms
    return {
        "tenant": old.tenant,
        "old": {"folder": str(old.folder), "version": old.version},
        "new": {"folder": str(new.folder), "version": new.version},
        "messages": {
            "from": name,
            "count": len(inputs),
            "first": time_text(first) if first else None,
            "last": time_text(last) if last else None,
        },
        "start": begin.text,
    }


def _tell(comparison: Any, head: dict[str, Any], *, as_json: bool) -> None:
    import msgspec

    from pipeline.rehearse.diff_text import lines

    if as_json:
        json_line({**head, "differs": comparison.differs, **msgspec.to_builtins(comparison)})
        return
    old, new, messages = head["old"], head["new"], head["messages"]
    click.echo(f"old {old['folder']} ({old['version']}), new {new['folder']} ({new['version']})")
    span = f", {messages['first']} to {messages['last']}" if messages["first"] else ""
    click.echo(f"{messages['count']:,} messages of {messages['from']}{span}")
    click.echo(f"start of both: {head['start']}")
    for text, style in lines(comparison):
        click.secho(text, **_COLOURS[style])


def _state(recorded: Any) -> Begin:
    from pipeline.rehearse.outcome import STAGES, Begin

    return Begin(
        f"the state that {recorded.name} has now, what these messages left there included",
        {stage: recorded.state(stage) for stage in STAGES},
        {stage: recorded.timers(stage) for stage in STAGES},
    )


def _moment(text: str | None) -> int:
    """Return a moment in epoch milliseconds, 0 where none is given."""
    from pipeline.errors import UsageError
    from pipeline.rulebook.moment import parse_moment

    if text is None:
        return 0
    try:
        return parse_moment(text, time.time_ns() // 1_000_000)
    except ValueError:
        raise UsageError(
            f"`{text}` is no time: write 2026-01-31T12:00:00Z, or 6h for six hours ago"
        ) from None


@contextmanager
def _progress(steps: int, *, as_json: bool) -> Iterator[Callable[[int], None]]:
    """Show how far it is, on a terminal that shows nothing else yet."""
    if as_json or not sys.stderr.isatty():
        yield lambda _done: None
        return
    with click.progressbar(length=steps, label="messages", file=sys.stderr) as bar:
        yield lambda _done: bar.update(1)
