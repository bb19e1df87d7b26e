"""`format:` of a sink: the model of what a user writes, and the function that it stands for."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, WithJsonSchema, model_validator

from pipeline.sink.formats.back import BackPart
from pipeline.sink.formats.cloudevents import CloudEventsFormat
from pipeline.sink.formats.plain import PlainFormat
from pipeline.sink.formats.shaped import FormatPart, Shape
from pipeline.sink.formats.template import TemplateFormat
from pipeline.sink.formats.ttn_v2 import TtnV2Format
from pipeline.sink.formats.tts_v3 import TtsV3Format

SHORT = {"cloudevents_binary": {"cloudevents": {"mode": "binary"}}}
NAMES = ("plain", "cloudevents", "cloudevents_binary", "ttn_v2", "tts_v3")
"""What may stand as `format: <name>`, without options of its own."""


class FormatConfig(FormatPart):
    """One format: by its name, or as a mapping of its name to its options."""

    plain: PlainFormat | None = None
    cloudevents: CloudEventsFormat | None = None
    ttn_v2: TtnV2Format | None = None
    tts_v3: TtsV3Format | None = None
    template: TemplateFormat | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(each is not None for _, each in self) != 1:
            raise ValueError(f"name one format: {', '.join(type(self).model_fields)}")
        return self

    @property
    def chosen(self) -> FormatPart:
        """The one that is named."""
        chosen: FormatPart = next(each for _, each in self if each is not None)
        return chosen

    @property
    def alone(self) -> str:
        """Its name, where a message of it cannot be one of an array over HTTP; else empty."""
        chosen = self.chosen
        if isinstance(chosen, CloudEventsFormat) and chosen.mode == "binary":
            return "cloudevents_binary"
        if isinstance(chosen, TtsV3Format) and chosen.url:
            return "tts_v3 with `url`"
        if isinstance(chosen, TemplateFormat) and not chosen.is_json:
            return "template"
        return ""

    @property
    def secrets(self) -> list[str]:
        """What it writes that nobody may read in a log."""
        chosen = self.chosen
        return [chosen.shown_key] if isinstance(chosen, BackPart) and chosen.shown_key else []

    def shape(self, tenant: str, destination: str) -> Shape:
        """Return the function that makes what leaves, for one destination."""
        return self.chosen.shape(tenant, destination)


def _by_name(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value not in NAMES:
        raise ValueError(f"there is no format `{value}`; there are {', '.join(NAMES)} and template")
    return SHORT.get(value, {value: {}})


Format = Annotated[
    FormatConfig,
    BeforeValidator(_by_name),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": list(NAMES)},
                {"type": "object", "minProperties": 1, "maxProperties": 1},
            ]
        }
    ),
]
"""The type of a sink's field `format`; its default is PLAIN."""

PLAIN = FormatConfig(plain=PlainFormat())
