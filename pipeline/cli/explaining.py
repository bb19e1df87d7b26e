"""`funicular explain`: one message through the rules, step by step, and why."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.speaking import (
    fail,
    file_name,
    json_line,
    json_option,
    one_book,
    open_recorded,
    recorded_options,
    rulebooks,
    rules_option,
    telling,
)

if TYPE_CHECKING:
    from pipeline.rehearse.explain_text import Style
    from pipeline.rehearse.messages import Entry
    from pipeline.rulebook.book import Rulebook

_COLOURS: dict[Style, dict[str, Any]] = {
    "head": {"bold": True},
    "node": {"fg": "cyan"},
    "why": {"fg": "yellow"},
    "change": {"fg": "green"},
    "exit": {"dim": True},
    "fault": {"fg": "red"},
    "faint": {"dim": True},
    "plain": {},
}


@click.command()
@click.argument("integration", required=False)
@click.argument("device", required=False)
@click.argument("payload", default="")
@click.option("--port", "f_port", type=click.IntRange(0, 255), help="LoRaWAN's FPort.")
@click.option("--body", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="A file with the request's whole body, in place of a sample.")  # fmt: skip
@click.option("--messages", type=click.File("rb"),
              help="JSON (- for stdin): messages, events, or steps of a chain test.")  # fmt: skip
@click.option("--event", help="An event of the past, by its id or trace id, from the log.")
@click.option(
    "--given", help="JSON, as `given` of a chain test: attributes, device, services, time."
)
@click.option("--today", is_flag=True, help="Begin with the device's state in the log.")
@recorded_options
@rules_option
@json_option
@telling
def explain(
    *, integration: str | None, device: str | None, payload: str, f_port: int | None,
    body: Path | None, messages: Any, event: str | None, given: str | None, today: bool,
    log_url: str, data: Path, rules: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Say step by step what the rules make of one message: what each node saw, decided and
    changed, and why.

    The message is a sample uplink of DEVICE in the format of INTEGRATION's network server, with
    PAYLOAD in hexadecimal or base64; or that of a file; or an event of the past. Nothing is sent,
    and no log is written.

    \b
    Examples:
      funicular explain ttn-thermostats hall 00fa5700
      funicular explain sigfox-meters 1A2B3C 0001e24000fa0294 --today
      funicular explain --messages - --given '{"attributes": {"shared": {"target": 19}}}' < m.json
      funicular explain --event 0197a0c4-6a50-7000-8000-000000000001 --log kafka://localhost:9092
    """
    import msgspec

    from pipeline.rehearse.explain import explain as run
    from pipeline.rehearse.explain_past import explain_past
    from pipeline.rehearse.explain_text import lines
    from pipeline.rehearse.messages import read_messages

    if sum(each is not None for each in (integration, messages, event)) != 1:
        fail("name an integration and a device, or --messages FILE, or --event ID", 2)
    with rulebooks(rules) as (books, scripts):
        book = one_book(books)
        if event is not None:
            with closing(open_recorded(log_url, data)) as recorded:
                explanation = explain_past(book, scripts, recorded, event)
        else:
            if integration is None:
                entries = read_messages(messages.read(), file_name(messages))
            else:
                said = {"device_id": device, "payload": payload, "f_port": f_port}
                entries = [_uplink(book, integration, said, body)]
            recorded_state = open_recorded(log_url, data) if today else None
            explanation = run(
                book,
                scripts,
                entries,
                now_ms=time.time_ns() // 1_000_000,
                given=_given(given) if given else None,
                recorded=recorded_state,
            )
            if recorded_state is not None:
                recorded_state.close()
    if as_json:
        json_line(msgspec.to_builtins(explanation))
        return
    for text, style in lines(explanation):
        click.secho(text, **_COLOURS[style])


def _uplink(book: Rulebook, name: str, sample: dict[str, Any], body: Path | None) -> Entry:
    """Return the step of one uplink."""
    import orjson

    from pipeline.errors import UsageError
    from pipeline.rehearse.chain_test_config import StepConfig, UplinkConfig
    from pipeline.rehearse.payload import payload_of
    from pipeline.rehearse.post import integration_of

    integration_of(book, name)
    said: dict[str, Any] = {"integration": name}
    if body is not None:
        raw = body.read_bytes()
        try:
            said["body"] = orjson.loads(raw)
        except orjson.JSONDecodeError:
            said["body_bytes"] = raw
    elif sample["device_id"] is None:
        raise UsageError("name the device, too; or give the whole request by --body FILE")
    else:
        payload = sample.pop("payload")
        said |= sample | {"bytes": payload_of(payload) if payload else None}
    kept = {key: value for key, value in said.items() if value is not None}
    return StepConfig(uplink=UplinkConfig(**kept))


def _given(text: str) -> Any:
    import orjson

    from pipeline.errors import UsageError
    from pipeline.rehearse.chain_test_config import GivenConfig
    from pipeline.rehearse.result import path_text
    from pipeline.rulebook.validation import validate

    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"--given is not JSON: {error}") from None
    config, problems = validate(GivenConfig, value)
    if config is None:
        place = path_text(tuple(problems[0].path))
        raise UsageError(f"--given: {place}: {problems[0].message}")
    return config
