"""`funicular dead-letters`: what could not be handled: see it, send it once more, drop it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.addressing import DEFAULT_ADDRESS, time_text
from pipeline.cli.speaking import (
    FAILED,
    FOLDER,
    data_option,
    fail,
    json_line,
    json_option,
    log_option,
    rulebooks,
    telling,
)

if TYPE_CHECKING:
    from pipeline.cli.letter_boxes import Boxes
    from pipeline.model.letters import Done, Letter, LettersFilter

CHUNK = 100
"""Letters of one step."""
INTERRUPTED = 130


def _chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says which letters are meant, and where they are."""
    for option in (
        click.option("--tenant", default="", envvar="FUNICULAR_TENANT", help="Of this tenant."),
        click.option("--stage", default="",
                     type=click.Choice(["", "convert", "route", "downlink", "sink"]),
                     help="That this stage could not handle."),
        click.option("--destination", default="", help="For this sink."),
        click.option("--reason", default="", help="With this reason, as `script_threw`."),
        click.option("--device", default="", help="Of this device."),
        click.option("--since", default="", help="Buried since: a time, or so long ago (2h)."),
        click.option("--until", default="", help="Buried before: a time, or so long ago."),
        log_option,
        data_option,
        click.option("--to", "address", default=DEFAULT_ADDRESS, show_default=True,
                     envvar="FUNICULAR_ADDRESS",
                     help="A running Funicular: it is asked where it has the log to itself, or"
                     " where there is no log here."),
        click.option("--key", default="", envvar="FUNICULAR_KEY", help="A key of its API."),
        json_option,
    ):  # fmt: skip
        command = option(command)
    return command


@click.group("dead-letters")
def dead_letters() -> None:
    """See what could not be handled, send it once more, or drop it.

    A letter is named by its place in the log, as 0-17. It is kept for 30 days, whatever becomes of
    it.
    """


@dead_letters.command("list")
@click.option("--fate", type=click.Choice(["open", "replayed", "dropped", "all"]), default="open",
              show_default=True, help="What became of them.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="No more than so many.")
@_chosen
@telling
def list_(*, fate: str, limit: int | None, as_json: bool, **where: Any) -> None:
    """List dead letters, oldest first.

    \b
    Examples:
      funicular dead-letters list
      funicular dead-letters list --stage convert --reason script_threw --since 2h
      funicular dead-letters list --destination application --fate all --json
    """
    with _boxes(where) as boxes:
        found = boxes.reading.find(_filter(where, fate))
        for letter in islice(found, limit):
            if as_json:
                json_line(letter.summary())
            else:
                _tell(letter)


@dead_letters.command("show")
@click.argument("places", nargs=-1, required=True, metavar="PLACE…")
@_chosen
@telling
def show(*, places: tuple[str, ...], as_json: bool, **where: Any) -> None:
    """Show dead letters whole, as JSON, at their PLACES.

    \b
    Example:
      funicular dead-letters show 0-17
    """
    import msgspec

    with _boxes(where) as boxes:
        for letter in _at(boxes, places, where):
            shown = {"fate": letter.fate, **msgspec.to_builtins(letter)}
            text = _text(letter.letter.value)
            if text is not None:
                shown["letter"]["text"] = text
            if as_json:
                json_line(shown)
            else:
                click.echo(msgspec.json.format(msgspec.json.encode(shown)).decode())


@dead_letters.command("replay")
@click.argument("places", nargs=-1, metavar="[PLACE…]")
@click.option("--all", "everything", is_flag=True, help="All that nothing became of yet.")
@click.option("--again", is_flag=True, help="Also those that were replayed or dropped before.")
@click.option("--dry-run", is_flag=True, help="Show what would come of it, by --rules; send none.")
@click.option("--rules", "-r", type=FOLDER, multiple=True, default=["rules"],
              envvar="FUNICULAR_RULES", show_default=True, help="For --dry-run.")  # fmt: skip
@_chosen
@telling
def replay(
    *, places: tuple[str, ...], everything: bool, again: bool, dry_run: bool,
    rules: tuple[Path, ...], as_json: bool, **where: Any,
) -> None:  # fmt: skip
    """Send dead letters once more: those at PLACES, or those that the options choose.

    In the order in which they were buried, each once: what was replayed is not replayed again
    unless --again says so. What failed in a converter goes through the converter as it is now,
    what a chain failed on through that chain alone, what a sink gave up to its destination, under
    the same id. Ctrl-C ends it after the step under way, and says how far it came.

    \b
    Examples:
      funicular dead-letters replay --stage convert --reason script_threw --dry-run
      funicular dead-letters replay --stage convert --reason script_threw
      funicular dead-letters replay --destination application --since 6h
      funicular dead-letters replay 0-17 0-21
    """
    _must_choose(places, where, everything=everything)
    with _boxes(where, write=not dry_run) as boxes:
        letters = _wanted(boxes, places, where, again=again)
        if dry_run:
            _foresee(boxes, letters, rules, as_json=as_json)
            return

        def step(chunk: Sequence[Letter]) -> Done:
            return boxes.writing.replay(chunk, boxes.by, again=again)

        _work(letters, step, "replayed", as_json=as_json)


@dead_letters.command("drop")
@click.argument("places", nargs=-1, metavar="[PLACE…]")
@click.option("--all", "everything", is_flag=True, help="All that nothing became of yet.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_chosen
@telling
def drop(
    *, places: tuple[str, ...], everything: bool, yes: bool, as_json: bool, **where: Any
) -> None:
    """Drop dead letters: note that they need no replay. They stay readable for their 30 days.

    \b
    Examples:
      funicular dead-letters drop 0-17
      funicular dead-letters drop --reason unknown_downlink --until 2026-11-01T00:00Z --yes
    """
    _must_choose(places, where, everything=everything)
    if not yes and not places and not click.confirm("Drop all that these options choose?"):
        fail("nothing was dropped", 2)
    with _boxes(where, write=True) as boxes:
        letters = _wanted(boxes, places, where, again=False)
        _work(letters, lambda chunk: boxes.writing.drop(chunk, boxes.by), "dropped",
              as_json=as_json)  # fmt: skip


def _work(
    letters: Iterator[Letter], step: Callable[[Sequence[Letter]], Done], done: str, *, as_json: bool
) -> None:
    """Handle letters in steps, until there are no more or Ctrl-C is pressed."""
    count = refused = 0
    terminal = sys.stderr.isatty()
    with _interrupt() as interrupted:
        while not interrupted() and (chunk := list(islice(letters, CHUNK))):
            came = step(chunk)
            count += len(came.done)
            refused += len(came.refused)
            for one in came.refused:
                if not as_json:
                    click.secho(f"{one.place}: {one.message}", fg="yellow", err=True)
            if as_json:
                import msgspec

                json_line(msgspec.to_builtins(came))
            elif terminal:
                click.echo(f"\r{done} {count}", nl=False, err=True)
        ended = interrupted()
    if terminal and not as_json:
        click.echo("\r", nl=False, err=True)
    if not as_json:
        more = f", refused {refused}" if refused else ""
        click.echo(f"{done} {count}{more}")
    if ended:
        click.secho("ended by Ctrl-C; the rest is as it was: the same command goes on", err=True)
        sys.exit(INTERRUPTED)
    if refused and not count:
        sys.exit(FAILED)


@contextmanager
def _interrupt() -> Iterator[Callable[[], bool]]:
    """Give what says whether Ctrl-C was pressed; a second time it ends the program at once."""
    pressed = False

    def press(number: int, frame: Any) -> None:
        nonlocal pressed
        if pressed:
            signal.default_int_handler(number, frame)
        pressed = True

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _foresee(
    boxes: Boxes, letters: Iterator[Letter], rules: tuple[Path, ...], *,
    as_json: bool,
) -> None:  # fmt: skip
    import msgspec

    from pipeline.rehearse.replay import Foresight

    good = bad = 0
    with rulebooks(rules) as (books, scripts):
        ahead = Foresight(books, scripts, _now_ms, boxes.load)
        for letter in letters:
            seen = ahead.of(letter)
            good, bad = good + seen.ok, bad + (not seen.ok)
            if as_json:
                json_line(msgspec.to_builtins(seen))
                continue
            click.echo(f"{letter.place}  {letter.letter.reason} → ", nl=False)
            if not seen.ok:
                click.secho(f"again {seen.reason}: {seen.message}", fg="red")
                continue
            click.secho(seen.goes_to, fg="green")
            for result in seen.results:
                click.echo(f"    {msgspec.json.encode(result).decode()}")
    if not as_json:
        click.echo(f"{good} would go through, {bad} would not; nothing was sent")


def _wanted(
    boxes: Boxes, places: tuple[str, ...], where: dict[str, Any], *, again: bool
) -> Iterator[Letter]:
    if places:
        return _at(boxes, places, where)
    return boxes.reading.find(_filter(where, "all" if again else "open", now_ms=_now_ms()))


def _at(boxes: Boxes, places: Sequence[str], where: dict[str, Any]) -> Iterator[Letter]:
    for place in places:
        letter = boxes.get(place, where["tenant"])
        if letter is None:
            fail(f"there is no dead letter at {place}; see `funicular dead-letters list`", 2)
        yield letter


def _must_choose(places: tuple[str, ...], where: dict[str, Any], *, everything: bool) -> None:
    names = ("tenant", "stage", "destination", "reason", "device", "since", "until")
    if not places and not everything and not any(where[name] for name in names):
        fail("say which: places, options as --reason, or --all", 2)


def _filter(where: dict[str, Any], fate: Any, now_ms: int | None = None) -> LettersFilter:
    """Return which letters are meant; with `now_ms` none that is buried from now on, so that a
    replay that fails again is not taken up by itself.
    """
    from pipeline.errors import UsageError
    from pipeline.model.letters import LettersFilter
    from pipeline.rulebook.moment import parse_moment

    def moment(name: str) -> int:
        try:
            return parse_moment(where[name], _now_ms()) if where[name] else 0
        except ValueError as error:
            raise UsageError(f"--{name}: {error}") from None

    return LettersFilter(
        tenant=where["tenant"],
        stage=where["stage"],
        destination=where["destination"],
        reason=where["reason"],
        device=where["device"],
        since_ms=moment("since"),
        until_ms=moment("until") or now_ms or 0,
        fate=fate,
    )


@contextmanager
def _boxes(where: dict[str, Any], *, write: bool = False) -> Iterator[Boxes]:
    from pipeline.cli.letter_boxes import open_boxes

    boxes = open_boxes(
        where["log_url"],
        where["data"],
        address=where["address"],
        key=where["key"],
        tenant=where["tenant"],
        write=write,
    )
    try:
        yield boxes
    finally:
        boxes.close()


def _tell(letter: Letter) -> None:
    was = letter.letter
    fate = "" if letter.handled is None else f"  [{letter.fate}]"
    place = f"  → {letter.destination}" if letter.destination else ""
    click.echo(
        f"{letter.place:<8} {time_text(was.time_ms)}  {was.stage:<8} {was.reason:<20} {was.key}"
        f"{place}{fate}  {was.message[:200]}"
    )


def _text(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
