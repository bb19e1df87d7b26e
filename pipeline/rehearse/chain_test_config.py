"""What a user writes in `chains/<name>_test.yaml`, as models.

    tests:
      - name: a warm room is cooled
        given:
          device: {name: "sample-app:hall", integration: ttn-thermostats}
          attributes: {shared: {target: 21}}
        when:
          - uplink: {bytes: "00 fa 57 00"}
        then:
          downlinks: [{bytes: "01 00 d2", f_port: 10, state: sent}]
          attributes: {shared: {cooling: true}}

What is left out of `then` is not looked at, but for two things: a dead letter that `dead_letters`
does not name, and a refused uplink that `answers` does not name, fail the test.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    WithJsonSchema,
    model_validator,
)

from pipeline.model.downlink import Priority, QueueMode, State
from pipeline.model.event import Scope
from pipeline.part import Part
from pipeline.rehearse.harness import Mood
from pipeline.rehearse.payload import hex_bytes
from pipeline.rehearse.services import CallEnd
from pipeline.rulebook.duration import Duration

TESTS_MAX = 10_000
"""In one file."""
STEPS_MAX = 1_000
"""In one test."""


def _bytes(value: Any) -> Any:
    if isinstance(value, bytes) or value is None:
        return value
    if isinstance(value, str):
        return hex_bytes(value)
    if isinstance(value, list):
        if all(type(byte) is int and 0 <= byte <= 255 for byte in value):
            return bytes(value)
        raise ValueError("a byte is a whole number from 0 to 255")
    if isinstance(value, int | float):
        raise ValueError('must be text: put the digits in quotes, as in `bytes: "00 0a ff"`')  # noqa: TRY004 - pydantic's way
    raise ValueError('must be bytes: `"00 0a ff"` or `[0, 10, 255]`')


def _milliseconds(value: Any) -> Any:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is not None:
            return round(moment.timestamp() * 1_000)
    raise ValueError("must be a time with its zone, as `2026-01-31T12:00:00Z`")


Bytes = Annotated[
    bytes,
    BeforeValidator(_bytes),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9A-Fa-fx\s:,_-]*$"},
                {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
            ],
            "description": "Hexadecimal text in quotes, or a list of numbers.",
        }
    ),
]
"""Hexadecimal text, or a list of numbers."""
Moment = Annotated[
    int,
    BeforeValidator(_milliseconds),
    WithJsonSchema({"type": "string", "description": "A time, as `2026-01-31T12:00:00Z`."}),
]
"""RFC 3339 → epoch milliseconds."""
Json = dict[str, Any]
ANSWERS_MAX = 1_000
"""Of one service in one test."""


class DeviceConfig(Part):
    """The device under test. With `integration` it has been heard there: it can be reached.

    `merge` goes into the request by which it was heard, as in `uplink`.
    """

    name: str = Field(min_length=1, description="the device's name, as Funicular calls it")
    integration: str | None = None
    type: str | None = None
    dev_eui: str = ""
    customer: str = ""
    group: str = ""
    merge: Json = {}


class ServiceAnswerConfig(Part):
    """What a service answers to a request of `remote_call`: a `status`, and a `body`, text as it
    is, anything else as JSON; `after` so long. `is_away` true: it cannot be reached.
    """

    status: Annotated[int, Field(ge=200, le=599)] = 200
    body: Any = None
    after: Annotated[Duration, Field(ge=0)] = 0.0
    is_away: Literal[True] | None = None

    @model_validator(mode="after")
    def _away_says_nothing(self) -> Self:
        if self.is_away and len(self.model_fields_set) > 1:
            raise ValueError("`is_away` stands alone: who is away answers nothing")
        return self


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_AnswerList = Annotated[list[ServiceAnswerConfig], Field(min_length=1, max_length=ANSWERS_MAX)]
Answers = Annotated[
    _AnswerList,
    BeforeValidator(_listed, json_schema_input_type=ServiceAnswerConfig | _AnswerList),
]
"""One answer, or a list of them."""


class GivenConfig(Part):
    """What is there before the test begins; no chain has seen it.

    `services`: by the sink that leads there, what is answered to `remote_call`; several answers
    are given one after the other, the last again and again.
    """

    time: Moment | None = None
    device: DeviceConfig | str | None = None
    attributes: dict[Scope, Json] = {}
    services: dict[str, Answers] = {}


class UplinkConfig(Part):
    """A request at an integration's door: its dialect's sample, or a `body`.

    Of a sample: `device` (its name in Funicular) or `device_id` (the network server's), `bytes`,
    `f_port`, `counter`; `merge` is merged into its JSON. `answer_arrives` false: the network
    server had gone when it was answered.
    """

    integration: str | None = None
    device: str | None = None
    device_id: str | None = None
    bytes: Bytes | None = None
    f_port: Annotated[int, Field(ge=0, le=255)] | None = None
    counter: Annotated[int, Field(ge=0)] | None = None
    merge: Json = {}
    body: Any = None
    body_bytes: Bytes | None = None
    method: Literal["POST", "PUT", "GET"] = "POST"
    query: dict[str, str] = {}
    headers: dict[str, str] = {}
    answer_arrives: bool = True

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        whole = self.body is not None or self.body_bytes is not None
        if self.body is not None and self.body_bytes is not None:
            raise ValueError("give `body` or `body_bytes`, not both")
        if self.device is not None and self.device_id is not None:
            raise ValueError("give `device` or `device_id`, not both")
        of_sample = {"device", "device_id", "bytes", "f_port", "counter", "merge"}
        wrong = sorted(of_sample & self.model_fields_set)
        if (whole or self.method == "GET") and wrong:
            raise ValueError(
                f"`{wrong[0]}` is for the dialect's sample, not beside a whole request"
            )
        return self

    @property
    def is_whole(self) -> bool:
        """Whether the request is given whole, and not made from the dialect's sample."""
        return self.body is not None or self.body_bytes is not None or self.method == "GET"


class MessageConfig(Part):
    """A message of a device, straight into the chains: no door, no converter."""

    device: str | None = None
    type: str = "uplink"
    device_type: str | None = None
    integration: str | None = None
    time: Moment | None = None
    f_port: int | None = None
    f_cnt: int | None = None
    bytes: Bytes | None = None
    telemetry: Json = {}
    attributes: Json = {}
    metadata: Json = {}


class AttributesConfig(Part):
    """An application changes attributes, by the API."""

    device: str | None = None
    scope: Scope = "shared"
    set: Json = {}
    delete: list[str] = []

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.set and not self.delete:
            raise ValueError("say what to `set` or to `delete`")
        return self


class DownlinkConfig(Part):
    """An application asks for a downlink, by the API."""

    device: str | None = None
    bytes: Bytes | None = None
    fields: Json | None = None
    f_port: int | None = None
    confirmed: bool | None = None
    queue: QueueMode | None = None
    priority: Priority | None = None
    expires_in: str | None = None
    supersede_key: str | None = None
    integration: str | None = None

    @model_validator(mode="after")
    def _one_payload(self) -> Self:
        if (self.bytes is None) == (self.fields is None):
            raise ValueError("give either `bytes` or `fields`")
        return self


STEPS = (
    "uplink", "again", "message", "attributes", "downlink", "cancel", "wait", "network_server",
)  # fmt: skip


class StepConfig(Part):
    """One step of `when`: exactly one of these.

    `again`: the network server repeats its last request. `cancel`: an application takes back all
    waiting downlinks of the device. `network_server`: what it does with downlinks from now on.
    """

    uplink: UplinkConfig | None = None
    again: Literal[True] | None = None
    message: MessageConfig | None = None
    attributes: AttributesConfig | None = None
    downlink: DownlinkConfig | None = None
    cancel: Literal[True] | str | None = None
    wait: Annotated[Duration, Field(gt=0)] | None = None
    network_server: Mood | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in STEPS if getattr(self, name) is not None]
        if len(given) != 1:
            listed = ", ".join(f"`{name}`" for name in STEPS)
            raise ValueError(f"a step is exactly one of {listed}")
        return self

    @property
    def kind(self) -> str:
        """Which of STEPS it is."""
        return next(name for name in STEPS if getattr(self, name) is not None)


class ExpectedDownlink(Part):
    """A downlink, and where its life stands. `request` is what the network server gets: its
    `method`, `url` (without its query) and `json`.
    """

    device: str | None = None
    integration: str | None = None
    bytes: Bytes | None = None
    fields: Json | None = None
    f_port: int | None = None
    state: State | None = None
    reason: str | None = None
    message: str | None = None
    confirmed: bool | None = None
    queue: QueueMode | None = None
    priority: Priority | None = None
    expires_in: Duration | None = None
    source: str | None = None
    possibly_delivered: bool | None = None
    request: Json | None = None


class ExpectedDelivery(Part):
    """A message to a sink."""

    to: str | None = None
    device: str | None = None
    body: Any = None


class ExpectedCall(Part):
    """A request of `remote_call`: the `body` that the chain made, how it `ended` (null: it still
    waits), and how many `tries` it took.
    """

    to: str | None = None
    device: str | None = None
    body: Any = None
    ended: CallEnd | None = None
    tries: int | None = None


class ExpectedDeadLetter(Part):
    """A record that could not be handled."""

    stage: str | None = None
    reason: str | None = None
    message: str | None = None
    detail: Json | None = None


class ExpectedAnswer(Part):
    """What the network server's request was answered with."""

    status: int | None = None
    json_: Any = Field(default=None, alias="json")
    text: str | None = None
    bytes: Bytes | None = None


class ExpectedLog(Part):
    """What a `log` node said."""

    level: str | None = None
    message: str | None = None
    device: str | None = None
    chain: str | None = None
    node: str | None = None


class ThenConfig(Part):
    """What must be there after all steps. Lists are whole and in order, maps are parts; of a
    `message` a part is enough.

    `attributes` are those of the device under test; `devices` is for several: by name, what the
    API says of each. `exact`: maps are whole too, and a list that is not named is empty. `calls`,
    what `remote_call` asked, stand among the `deliveries` too.
    """

    exact: bool = False
    downlinks: list[ExpectedDownlink] | None = None
    deliveries: list[ExpectedDelivery] | None = None
    calls: list[ExpectedCall] | None = None
    attributes: dict[Scope, Json] | None = None
    devices: dict[str, Json] | None = None
    dead_letters: list[ExpectedDeadLetter] | None = None
    answers: list[ExpectedAnswer] | None = None
    logs: list[ExpectedLog] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("say what must come out, as `downlinks: []`")
        return self


class ChainTestConfig(Part):
    """One test: given this, when that, then this."""

    name: str = Field(min_length=1, description="what the test proves, in a few words")
    given: GivenConfig | None = None
    when: list[StepConfig] = Field(
        min_length=1, max_length=STEPS_MAX, description="the steps, as `- uplink: {…}`"
    )
    then: ThenConfig = Field(description="what must come out, as `downlinks: […]`")


class ChainTestsConfig(Part):
    """A file of tests. `given` is for those that have none of their own; `chains`: only these
    run, instead of all.
    """

    about: str = ""
    given: GivenConfig = GivenConfig()
    chains: list[str] | None = None
    tests: list[ChainTestConfig] = Field(
        min_length=1, max_length=TESTS_MAX, description="the tests, as `- name: …`"
    )
