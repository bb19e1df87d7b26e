"""The port of a dialect, and how the folder is scanned for them.

A dialect is a module-level object `DIALECT` in `integrations/<name>.py`: what a network server's
requests mean,
and how downlinks are told to it. It does no I/O: it makes and reads requests, others send them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable
from urllib.parse import quote

import msgspec

from pipeline.errors import MessageError
from pipeline.model.downlink import Downlink
from pipeline.model.http import Call, Request, Response
from pipeline.model.mqtt import Publication
from pipeline.model.reply import Reply
from pipeline.model.uplink import Link, Uplink
from pipeline.part import Part
from pipeline.scan import Parts

DEVICE_NAME_LENGTH_MAX = 255  # names are parts of keys, paths and file names


class Options(Part):
    """What a user may set under `options:` of an integration; each dialect has its own subclass."""


class Dialect(Protocol):
    """One network server's or platform's way of speaking."""

    name: str
    """As in `dialect:` of an integration's YAML: `ttn_v2`, `tts_v3`, `sigfox`, `http`."""
    synchronous: bool
    """Whether a device can only be answered (the default of the integration's `synchronous`)."""
    contract: str
    """Which contract an older `Decoder`/`Encoder` has here: `lorawan` or `thingsboard`."""
    device_template: str
    """The default of the integration's `device`, over `device_variables`."""
    device_variables: tuple[str, ...]
    has_f_port: bool
    """Whether its downlinks have a LoRaWAN port; Sigfox and HTTP have none."""
    takes_fields: bool
    """Whether a downlink may go as JSON fields, without an encoder."""
    repeat_window_s: int
    """How long after the first request the network server may repeat it."""
    answer_timeout_s: float
    """How long it waits for an answer; the default of the integration's `answer_timeout_s`."""
    options: type[Options]

    def read(self, request: Request, options: Any, device_template: str) -> list[Uplink]:
        """Return what the request says, one Uplink a device's message; at least one.

        MessageError: the request is not of this dialect; `detail` has `field` where it is one
        field's fault.
        Runs at the door (to refuse with 400) and again in convert, on the same bytes with the
        same result.
        """
        ...

    def check(self, downlink: Downlink) -> None:
        """Raise MessageError where this network server cannot carry an encoded downlink.

        Codes: `f_port`, `payload_length`.
        """
        ...

    def send(self, downlink: Downlink, link: Link, options: Any) -> Call:
        """Return the request that hands a downlink over (not on synchronous links).

        MessageError(code `no_link`): the device's link does not say where to send it.
        """
        ...

    def answer(self, replies: Sequence[Reply], request: Request, options: Any) -> Response:
        """Return the answer to a request that waited; `replies` is empty where the time ran out.

        Also for requests that wait for nothing (asynchronous): `replies` is empty.
        """
        ...

    def sample(self, device_id: str, counter: int, payload: bytes, now_ms: int) -> Request:
        """Return a plausible uplink request, for `funicular send` and the tests."""
        ...


class Queued(msgspec.Struct, frozen=True):
    """A downlink in a network server's own queue. `ours`: the id that Funicular gave it, where the
    network server tells it, or where `reference` (its own name of it) is that of one of ours.
    """

    f_port: int | None
    payload: bytes | None
    confirmed: bool = False
    ours: str = ""
    detail: dict[str, Any] = {}
    reference: str = ""


@runtime_checkable
class QueueDialect(Protocol):
    """What a dialect has besides where its network server shows and empties a device's queue."""

    def ask_queue(self, link: Link, options: Any) -> Call:
        """Return the request that asks for the device's queue. MessageError(code `no_link`)."""
        ...

    def read_queue(self, response: Response) -> list[Queued]:
        """Return what a 2xx answer to `ask_queue` says, the next one first. MessageError: it is
        no such answer.
        """
        ...

    def clear_queue(self, link: Link, options: Any) -> Call:
        """Return the request that empties the device's queue. MessageError(code `no_link`)."""
        ...


@runtime_checkable
class OverMqtt(Protocol):
    """A dialect that MQTT can carry, both ways. What a topic brings becomes the same Request that
    HTTP would bring, so that `read` need not know the difference.
    """

    def topics(self, options: Any) -> tuple[str, ...]:
        """Return the topic filters to subscribe to, where the user names none."""
        ...

    def from_topic(self, topic: str, body: bytes, options: Any) -> Request | None:
        """Return the request that a message is; None: its topic says nothing of a device (a
        filter may take more than that, even our own downlinks).
        """
        ...

    def publication(self, downlink: Downlink, link: Link, options: Any) -> Publication:
        """Return the message that hands a downlink over. MessageError: as `Dialect.send`."""
        ...

    def sample_topic(self, device_id: str, options: Any) -> str:
        """Return the topic of the dialect's `sample`."""
        ...


@runtime_checkable
class KnowsItsBroker(Protocol):
    """A dialect of a platform whose broker asks for more than a user and a password."""

    def broker_lines(self, variable: str) -> list[str]:
        """Return the lines below `connection:` of a new integration over MQTT, as
        `ConnectionConfig.template`.
        """
        ...


class Kept(NamedTuple):
    """A message that a network server kept: the request that it was, or would have been, and when
    it came there, epoch milliseconds; None: not known.
    """

    request: Request
    time_ms: int | None


@runtime_checkable
class Stored(Protocol):
    """A dialect whose network server keeps messages, and gives them when it is asked. A message
    has the same repeat key as when it comes by itself.
    """

    stored_page: int
    """How many messages an answer has at most, the oldest first; 0: all that there are."""

    def ask_stored(self, server: str, key: str, since_ms: int, now_ms: int, options: Any) -> Call:
        """Return the request for what came since a moment. `server` has no slash at its end; `key`
        is the user's, which it may show.
        """
        ...

    def read_stored(self, response: Response, options: Any) -> list[Kept]:
        """Return what an answer (2xx) has. MessageError: it is none."""
        ...


@runtime_checkable
class Referring(Protocol):
    """A dialect whose network server names a downlink by an id of its own when it takes it."""

    def reference(self, answer: bytes) -> str:
        """Return that id from the answer's body (`model.uplink.Report.reference`); empty where it
        says none.
        """
        ...


HTTP = "http"


def usual_transport(dialect: Dialect) -> str:
    """Return how a dialect's messages come where an integration does not say: its own
    `usual_transport`, where it is never posted to the door, else HTTP.
    """
    named: str = getattr(dialect, "usual_transport", HTTP)
    return named


class Asynchronous:
    """What dialects share whose network servers take downlinks at any time: requests are answered
    202.
    """

    synchronous: ClassVar[bool] = False
    answer_timeout_s: ClassVar[float] = 5.0

    def answer(
        self,
        replies: Sequence[Reply],  # noqa: ARG002 - the port's shape
        request: Request,  # noqa: ARG002
        options: Any,  # noqa: ARG002
    ) -> Response:
        """Accept: the uplink is durable."""
        return Response(status=202)


class DeviceTemplate:
    """`{application_id}:{device_id}` → a device's name. Only the dialect's variables, no
    formatting.
    """

    @staticmethod
    def fill(template: str, variables: Mapping[str, str]) -> str:
        """Return the device's name.

        MessageError: `device_missing` (a variable is empty), `device_name` (as
        `check_device_name`). What a variable holds is never read as a placeholder again.
        """
        name = ""
        for text, variable in _pieces(template):
            name += text
            if variable:
                value = variables.get(variable)
                if value is None:
                    name += "{" + variable + "}"
                elif not value:
                    raise MessageError(
                        f"the message has no {variable}, which names its device",
                        code="device_missing",
                        field=variable,
                    )
                else:
                    name += value
        check_device_name(name)
        return name

    @staticmethod
    def variables(template: str) -> tuple[str, ...]:
        """Return the names in braces, in order; the rulebook compares them with the dialect's."""
        return tuple(variable for _, variable in _pieces(template) if variable)


def check_device_name(name: str) -> None:
    """Raise MessageError where a device cannot have this name.

    `device_missing`: it is empty; `device_name`: over DEVICE_NAME_LENGTH_MAX characters, or with
    control or invisible characters.
    """
    if not name:
        raise MessageError("the device's name is empty", code="device_missing")
    if len(name) > DEVICE_NAME_LENGTH_MAX:
        raise MessageError(
            f"the device's name has {len(name)} characters; {DEVICE_NAME_LENGTH_MAX} are allowed",
            code="device_name",
            limit=DEVICE_NAME_LENGTH_MAX,
        )
    if not name.isprintable():
        raise MessageError(
            f"the device's name {name!r} has control or invisible characters", code="device_name"
        )


def path_segment(name: str) -> str:
    """Return a name as one segment of a URL's path. HTTP clients resolve `.` and `..`, so that a
    device of that name would lead to another address; as `%2E` it stays a name.
    """
    segment = quote(name, safe="")
    return segment.replace(".", "%2E") if segment in {".", ".."} else segment


@lru_cache(maxsize=1024)
def _pieces(template: str) -> tuple[tuple[str, str], ...]:
    """Return a template as (text before, variable) pairs; the last variable may be empty."""
    parts = re.split(r"\{([a-z0-9_]+)\}", template)
    return tuple(zip(parts[::2], [*parts[1::2], ""], strict=True))


@cache
def dialects() -> Mapping[str, Dialect]:
    """Return all dialects by name: the files of this folder and the plug-ins of others."""
    return Parts("pipeline.integrations", "DIALECT", "funicular.integrations")
