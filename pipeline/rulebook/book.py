"""What a checked `rules/` folder is: the shape that ingest, the stages and the sinks work from."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import Fault
from pipeline.integrations.dialect import Dialect
from pipeline.ports import Contract, Script

Routine = Literal["decode_uplink", "encode_downlink", "decode_downlink"]
"""What a converter's file has a script for; the normalizer stands in that of the decoder."""


@dataclass(frozen=True, slots=True)
class Authentication:
    """How an integration's network server proves itself. `kind` `open`: not at all.

    `header`: the header `name` has the value `secret`; `query`: likewise the query parameter;
    `bearer`: `Authorization: Bearer <secret>`; `basic`: user `name`, password `secret`.
    """

    kind: Literal["open", "header", "query", "bearer", "basic"] = "open"
    name: str = ""
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Which devices: what is known of a device, by name, and the expression that it must match."""

    parts: tuple[tuple[str, re.Pattern[str]], ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Devices, and the converter that has them; `choosing` says when it is asked."""

    pattern: Pattern
    converter: str


@dataclass(frozen=True, slots=True)
class Described:
    """A codec of one model, as a description in the layout of lorawan-devices says it."""

    converter: str
    firmware: str
    band: str


@dataclass(frozen=True, slots=True)
class Integration:
    """One integration of one tenant, with all defaults filled in."""

    tenant: str
    name: str
    dialect: Dialect
    options: Any  # the dialect's own Options
    authentication: Authentication
    device_template: str
    converter: str | None  # name of a Converter
    synchronous: bool
    answer_timeout_s: float
    unanswered: Literal["requeue", "fail"]  # what becomes of a downlink whose answer got lost
    queue_max: int  # waiting downlinks a device
    body_bytes_max: int
    ordered: bool
    metadata: Mapping[str, Any]
    device_type: str  # of devices whose converter names none
    allow_new_devices: bool = True
    converters: tuple[Chosen, ...] = ()  # of some of its devices, in place of `converter`
    transport: str = "http"  # how messages come; `http`: they are posted to the door
    connection: Any = None  # the transport's own Config; None: there is the door

    @property
    def stays_open(self) -> bool:
        """Whether the way on which its devices are answered stays open, so that a downlink need
        not wait for the next uplink.
        """
        return self.synchronous and bool(getattr(self.connection, "stays_open", False))


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a converter: what goes in, what must come out. `line` is where it stands."""

    routine: Routine
    description: str
    input: Mapping[str, Any]
    output: Mapping[str, Any] | Sequence[Any]  # a list: several devices (ThingsBoard)
    line: int
    normalized: Mapping[str, Any] | None = None  # what the normalizer must make of it


@dataclass(frozen=True, slots=True)
class Converter:
    """`converters/<vendor>/<model>.yaml`: scripts for each way, with examples. Name:
    `<vendor>/<model>`.
    """

    name: str
    file: str
    contract: Contract | None  # None: the dialect's
    decoder: Script | None
    encoder: Script | None
    downlink_decoder: Script | None = None
    examples: tuple[Example, ...] = ()
    devices: tuple[Pattern, ...] = ()  # which it is for, by what network servers say of them


@dataclass(frozen=True, slots=True)
class SinkEntry:
    """`sinks/<name>.yaml`: `config` is the transport's own model."""

    tenant: str
    name: str
    transport: str  # `http`, `file`, …
    config: Any


@dataclass(frozen=True, slots=True)
class ChainEntry:
    """`chains/<name>.yaml`: `config` is route's own model, compiled there."""

    name: str
    file: str
    config: Any


@dataclass(frozen=True, slots=True)
class Rulebook:
    """One tenant's rules. `version` is a hash of every file's path and content."""

    tenant: str
    folder: Path
    version: str
    integrations: Mapping[str, Integration]
    converters: Mapping[str, Converter]
    chains: Mapping[str, ChainEntry]
    sinks: Mapping[str, SinkEntry]
    devices: tuple[Chosen, ...] = ()  # of all converters
    described: Mapping[str, tuple[Described, ...]] = field(default_factory=dict)  # by brand/model
    warnings: tuple[Fault, ...] = ()  # what runs, but hardly as it was meant


Rulebooks = Callable[[], Mapping[str, Rulebook]]
"""Gives the rulebooks in force, by tenant: a stage asks once a batch, so that an edit takes
effect between two."""
