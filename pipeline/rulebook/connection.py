"""An integration's `transport:` and `connection:`: how messages come where they are not posted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from pipeline.integrations.dialect import Dialect, OverMqtt
from pipeline.rulebook.catalogue import Problem, suggest
from pipeline.rulebook.mqtt_broker import MqttSourceConfig
from pipeline.rulebook.validation import validate

HTTP = "http"
"""The transport that needs no connection: messages are posted to the door."""


def connection_of(
    document: Mapping[str, Any],
    dialect: Dialect,
    options: Any,
    transports: Mapping[str, type[BaseModel]],
) -> tuple[Any, list[Problem]]:
    """Return the transport's config, None for HTTP, and all that is wrong or better known.

    `options` are the dialect's own; None where they are faulty.
    """
    transport = document.get("transport", HTTP)
    if not isinstance(transport, str):
        return None, []  # the integration's model says it
    if transport == HTTP:
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
    problems = list(_beside(document, dialect, transport))
    given = document.get("connection")
    config, more = validate(model, given if given is not None else {}, ("connection",))
    problems += more
    if config is not None and options is not None and not problems:
        problems += _together(config, dialect, options)
    return config, problems


def _beside(document: Mapping[str, Any], dialect: Dialect, transport: str) -> list[Problem]:
    """Return what cannot stand beside this transport."""
    problems = []
    if "authentication" in document:
        message = f"nobody posts to an integration over {transport}: it is who connects"
        hint = "leave it out; user and password stand under `connection`"
        problems.append(Problem(("authentication",), message, hint, 0))
    synchronous = document.get("synchronous")
    if synchronous is True or (synchronous is None and dialect.synchronous):
        message = f"a message over {transport} is not answered"
        hint = "" if synchronous is True else f"{dialect.name} is posted: `transport: http`"
        place: tuple[str | int, ...] = ("synchronous",) if synchronous is True else ("transport",)
        problems.append(Problem(place, message, hint, 0))
    if transport == "mqtt" and not isinstance(dialect, OverMqtt):
        message = f"{dialect.name} does not come over MQTT"
        problems.append(Problem(("transport",), message, "for topics of your own: `mqtt`", 0))
    return problems


def _together(config: Any, dialect: Dialect, options: Any) -> list[Problem]:
    """Return what the connection and the dialect do not have between them."""
    if not isinstance(config, MqttSourceConfig) or not isinstance(dialect, OverMqtt):
        return []
    if not config.topics and not dialect.topics(options):
        hint = "write filters under `topics`, or a template under `options: topic`"
        return [Problem(("connection",), "names no topic to subscribe to", hint, 0)]
    if config.share:
        message = (
            "workers that share a subscription get a device's messages side by side: their order"
            " is not kept"
        )
        return [Problem(("connection", "share"), message, "", 0, warns=True)]
    return []
