"""What `funicular bench` sends: a rulebook's own examples, or a file's uplinks → sources of load.

Each integration whose messages come by the door is a `Source`. Its samples are, the first of these
that there is: the uplinks of a file; the examples of its converters; its dialect's own sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote, urlencode

from pipeline.errors import MessageError, UsageError
from pipeline.rehearse.bench_load import Sample, Source, device_ids
from pipeline.rehearse.chain_test_config import StepConfig, UplinkConfig
from pipeline.rehearse.messages import Entry
from pipeline.rehearse.proof import proof_of
from pipeline.rehearse.uplinks import StepError, request_of
from pipeline.rulebook.book import Integration, Rulebook

SAMPLES_MAX = 1_000
"""Of one integration."""
PAYLOAD = bytes(8)
"""What a device sends of which nothing is known."""


def sources(
    book: Rulebook, messages: Sequence[Entry] = (), *, only: Iterable[str] = ()
) -> list[Source]:
    """Return the sources of load of a rulebook, those of `only` where it names any.

    UsageError: there is none, an integration is not there, or a message of the file is no uplink
    of an integration.
    """
    wanted = list(only)
    for name in wanted:
        if name not in book.integrations:
            listed = ", ".join(sorted(book.integrations)) or "none"
            raise UsageError(f"{book.folder} has no integration `{name}`: there are {listed}")
    chosen = {name: book.integrations[name] for name in wanted or sorted(book.integrations)}
    if not chosen:
        raise UsageError(f"{book.folder} has no integration to send to")
    if messages:
        return _of_messages(chosen, messages)
    return [_of_rules(book, integration) for integration in chosen.values()]


def without_connections(book: Rulebook) -> Rulebook:
    """Return a rulebook whose messages all come by the door, so that no broker is connected to."""
    integrations = {
        name: replace(integration, transport="http", connection=None)
        for name, integration in book.integrations.items()
    }
    return replace(book, integrations=integrations)


def _of_rules(book: Rulebook, integration: Integration) -> Source:
    samples = list(_examples(book, integration))[:SAMPLES_MAX]
    said = "the converter's examples"
    if not samples:
        samples, said = [Sample(PAYLOAD)], f"the sample of the dialect {integration.dialect.name}"
    return _source(integration, samples, said)


def _examples(book: Rulebook, integration: Integration) -> Iterator[Sample]:
    """Yield the examples of an integration's converters that decode."""
    names = [integration.converter, *(choice.converter for choice in integration.converters)]
    for name in dict.fromkeys(names):
        converter = book.converters.get(name or "")
        for example in converter.examples if converter is not None else ():
            given = example.input
            fails = isinstance(example.output, Mapping) and example.output.get("errors")
            if example.routine == "decode_uplink" and given.get("bytes") and not fails:
                yield Sample(bytes(given["bytes"]), given.get("fPort"))


def _of_messages(chosen: Mapping[str, Integration], messages: Sequence[Entry]) -> list[Source]:
    samples: dict[str, list[Sample]] = {}
    for number, message in enumerate(messages, 1):
        uplink = message.uplink if isinstance(message, StepConfig) else None
        if uplink is None:
            raise UsageError(
                f"message {number} of the file is no uplink: write"
                ' {"uplink": {"integration": …, "bytes": …}}, or a whole `body`'
            )
        name = uplink.integration or (next(iter(chosen)) if len(chosen) == 1 else "")
        if name not in chosen:
            listed = ", ".join(chosen)
            raise UsageError(f"message {number} of the file names no integration of: {listed}")
        made = samples.setdefault(name, [])
        if len(made) < SAMPLES_MAX:
            made.append(_of_message(chosen[name], uplink, number))
    return [_source(chosen[name], made, "the file") for name, made in samples.items()]


def _of_message(integration: Integration, uplink: UplinkConfig, number: int) -> Sample:
    whole = uplink.is_whole or uplink.merge or uplink.headers or uplink.query
    if not uplink.is_whole and uplink.device is None and uplink.device_id is None:
        first = device_ids(integration.dialect)(0)
        uplink = uplink.model_copy(update={"device_id": first})
    try:
        request = request_of(uplink, integration, device=None, counter=1, now_ms=0)
    except StepError as error:
        raise UsageError(f"message {number} of the file: {error.message}") from None
    return Sample(whole=request) if whole else Sample(uplink.bytes or b"", uplink.f_port)


def _source(integration: Integration, samples: Sequence[Sample], said: str) -> Source:
    headers, query = proof_of(integration.authentication)
    path = f"/in/{quote(integration.tenant, safe='')}/{quote(integration.name, safe='')}"
    return Source(
        integration=integration.name,
        dialect=integration.dialect.name,
        target=f"{path}?{urlencode(query)}" if query else path,
        headers=headers,
        samples=tuple(samples),
        said=said,
        warning=_warning(integration, samples),
    )


def _warning(integration: Integration, samples: Sequence[Sample]) -> str:
    """Say where a request that is sent again and again will be taken for a repeat."""
    for sample in samples:
        if sample.whole is None:
            continue
        try:
            uplinks = integration.dialect.read(
                sample.whole, integration.options, integration.device_template
            )
        except MessageError as error:
            return f"{integration.name} refuses a request of the file: {error.message}"
        if integration.dialect.repeat_window_s and any(each.repeat_key for each in uplinks):
            return (
                f"{integration.name} knows repeats: a whole request of the file has its effects"
                " once, then it is a repeat; give `bytes` instead"
            )
    return ""
