"""An integration's `transport:` and `connection:`: how messages come where they are not posted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.integrations.dialect import HTTP, Dialect, usual_transport
from pipeline.rulebook.catalogue import Problem, suggest
from pipeline.rulebook.connections.connection_config import ConnectionConfig
from pipeline.rulebook.validation import validate


def connection_of(
    document: Mapping[str, Any],
    dialect: Dialect,
    options: Any,
    transports: Mapping[str, type[ConnectionConfig]],
) -> tuple[Any, list[Problem]]:
    """Return the transport's config, None for HTTP, and all that is wrong or better known.

    `options` are the dialect's own; None where they are faulty.
    """
    transport = document.get("transport", HTTP)
    if not isinstance(transport, str):
        return None, []  # the integration's model says it
    if transport == HTTP:
        usual = usual_transport(dialect)
        if usual != HTTP:
            said = f"{dialect.name} is not posted over HTTP"
            return None, [Problem(("transport",), said, f"write `transport: {usual}`", 0)]
        if not document.get("connection"):
            return None, []
        hint = f"name it: `transport: {next(iter(transports), 'mqtt')}`"
        return None, [Problem(("connection",), "is of a transport other than HTTP", hint, 0)]
    model = transports.get(transport)
    if model is None:
        names = [HTTP, *sorted(transports)]
        listed = f"there are {', '.join(f'`{name}`' for name in names)}"
        hint = suggest(transport, names) or listed
        return None, [Problem(("transport",), f"there is no transport `{transport}`", hint, 0)]
    problems = _beside(document, dialect, transport, model)
    given = document.get("connection")
    config, more = validate(model, given if given is not None else {}, ("connection",))
    problems += more
    if config is not None and options is not None and not problems:
        problems += config.together(dialect, options)
    return config, problems


def _beside(
    document: Mapping[str, Any], dialect: Dialect, transport: str, model: type[ConnectionConfig]
) -> list[Problem]:
    """Return what cannot stand beside this transport."""
    problems = model.carries(dialect)
    if "authentication" in document:
        message = f"nobody posts to an integration over {transport}: it is who connects"
        hint = "leave it out; user and password stand under `connection`"
        problems.append(Problem(("authentication",), message, hint, 0))
    synchronous = document.get("synchronous")
    answered = synchronous is True or (synchronous is None and dialect.synchronous)
    if answered and not model.answers:
        message = f"a message over {transport} is not answered"
        hint = "" if synchronous is True else f"{dialect.name} is posted: `transport: http`"
        place: tuple[str | int, ...] = ("synchronous",) if synchronous is True else ("transport",)
        problems.append(Problem(place, message, hint, 0))
    return problems
