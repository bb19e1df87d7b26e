"""The page of sinks, `docs/sinks.md`, made from the transports' own files.

    python -m pipeline.rehearse.sink_page docs/sinks.md

In: each transport's docstrings and config, those of the formats. Out: Markdown. A test holds the
page to this.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pipeline.rulebook.connections.tls import TlsConfig
from pipeline.sink.formats.cloudevents import CloudEventsFormat
from pipeline.sink.formats.template import TemplateFormat
from pipeline.sink.formats.ttn_v2 import TtnV2Format
from pipeline.sink.formats.tts_v3 import TtsV3Format
from pipeline.sink.retry import RetryConfig
from pipeline.sink.transport import TransportType, transports

_INTRO = """\
# Sinks

<!-- Made by `python -m pipeline.rehearse.sink_page docs/sinks.md` from the transports' files. -->

A sink is a file `rules/sinks/<name>.yaml`; a chain's node `send: {to: <name>}` hands messages to
it. Copy an example below and leave away what you do not need. `funicular check` says what is wrong
with it, and which library is missing (`pip install 'funicular[<transport>]'`, or `funicular[all]`).

What holds for all of them:

- **At least once, in order.** Of one device one message after the other; other devices go on. Each
  delivery has an `id` that is the same in every repeat, and stands where the receiver finds it.
- **The destination's fault** (not there, too slow, full, wrong password, no such table): it alone
  pauses and is tried again as `retry` says. Nothing is lost; its place in the topic stays.
- **The message's fault** (too large, refused for what is in it): `dead.letter` at once, with the
  destination's own words. Where a batch is refused, it is halved until the bad message is alone.
- **No secret in a log**: write `${env:NAME}` or `${file:PATH}` in any value.

Requests over HTTP (`http`, `influxdb`, `s3`, `thingsboard` with `api: device`) go to public
addresses alone, unless the operator allows more. Databases and brokers stand in private networks as
a rule; where they connect to is for whoever may write the rules.
"""
_WHERE = """\
## Where the id is, and what a repeat does

| transport | the delivery's id | a repeat |
|---|---|---|
| `amqp` | `message_id` | a second message with the same id |
| `file` | member `id` | a second line with the same id, after a crash |
| `http` | headers `webhook-id`, `idempotency-key` | a second request with the same id |
| `influxdb` | none: series and time are the same | writes the same point again |
| `kafka` | header `id` | a second record with the same id; none by the client's own repeats |
| `mqtt` | user property `id` (version 5) | a second message with the same id |
| `postgresql` | column `id` | adds no row |
| `redis` | field `id` | a second entry with the same id |
| `s3` | member `id` | the same object, or lines with the same id in another |
| `thingsboard` | none: device, key and time are the same | writes the same value again |
"""
_FORMATS = """\
## Formats

`format:` says what the body of `http`, `mqtt`, `kafka`, `redis`, `amqp`, `postgresql`, `s3` looks
like: a name, or a mapping of one name to its options. `plain`, the default, is the message as JSON,
or the `body` of the node `send`. With `ttn_v2` and `tts_v3` Funicular stands in for the HTTP
integration of The Things Network v2 and for The Things Stack's webhooks, whatever network server
the message came from: applications that were written for those need no change, downlinks included.

Make the key of the way back with `funicular keys create <tenant> --right downlink --note <what>`,
one for each application; `funicular keys revoke <id>` ends that one alone.
"""
_FIGURES = """\
## Speed

One destination, its default batch, the real server on the same machine (2 cores, shared with the
server); messages of 560 bytes; medians of 5 runs of 20,000. `python -m tests.bench.sinks --runs 5`

| transport | server | deliveries a second | our CPU of one, us |
|---|---|---|---|
| `file` | | 301,000 | 3 |
| `s3` | moto | 139,000 | 6 |
| `influxdb` | InfluxDB 1.6 | 76,000 | 8 |
| `postgresql` | PostgreSQL 15 without fsync | 59,000 | 4 |
| `redis` | Redis 7.0 | 37,000 | 24 |
| `kafka` | Kafka 4.1, one broker | 27,000 | 18 |
| `mqtt` | Mosquitto 2.0 | 23,000 | 40 |
| `amqp` | RabbitMQ 3.10 | 6,300 | 122 |
"""
_KEY = re.compile(r"^\s*#?\s*([a-z_]+):", re.MULTILINE)


def page() -> str:
    """Return the whole page."""
    kinds = dict(sorted(transports().items()))
    links = " · ".join(f"[`{name}`](#{name})" for name in kinds)
    parts = [_INTRO, f"{links} · [formats](#formats) · [speed](#speed)\n"]
    parts += [section(name, kind) for name, kind in kinds.items()]
    parts += [_WHERE, _shared(), _FORMATS]
    for format_ in (CloudEventsFormat, TtnV2Format, TtsV3Format, TemplateFormat):
        parts.append(inspect.cleandoc(format_.__doc__ or "") + "\n")
    return "\n".join([*parts, _FIGURES])


def section(name: str, kind: TransportType) -> str:
    """Return one transport's part of the page: what it does, its YAML, its other options."""
    about = inspect.cleandoc(import_module(getattr(kind, "__module__", "")).__doc__ or "")
    said = about.partition("\n\nFormat:")[0].partition(": ")[2]
    said = re.sub(r"In: `delivery\.<tenant>\.<sink>`\. Out(?:: |, )", "Out: ", said)
    model = kind.Config
    example = inspect.cleandoc(model.__doc__ or "")
    parts = [f"## {name}", "", f"{said[0].upper()}{said[1:]}", "", example, ""]
    more = list(_others(model, example))
    if more:
        parts += ["Further options: " + "; ".join(more) + ".", ""]
    return "\n".join(parts)


def _others(model: type[BaseModel], example: str) -> Iterator[str]:
    """Yield what the example does not show, with its default."""
    shown = set(_KEY.findall(example)) | set(re.findall(r"`([a-z_]+)[:`]", example))
    for name, field in model.model_fields.items():
        if name in shown or name in ("retry", "tls", "format"):
            continue
        yield f"`{name}`" + (f" (default {_value(field.default)})" if field.default else "")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g} s"
    return f"{value:,}" if isinstance(value, int) and value is not True else str(value).lower()


def _shared() -> str:
    retry, tls = (inspect.cleandoc(one.__doc__ or "") for one in (RetryConfig, TlsConfig))
    return f"## retry and tls\n\n{retry}\n\n{tls}\n"


def main(arguments: list[str]) -> None:
    """Write the page to the file that is named."""
    Path(arguments[0]).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
