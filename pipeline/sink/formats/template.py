"""Format `template`: whatever a user writes, with expressions over the delivery."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from pipeline.errors import MessageError
from pipeline.expression import ExpressionFault, Roots, compile_value
from pipeline.model.delivery import Delivery, Origin
from pipeline.sink.formats.shaped import (
    JSON,
    FormatPart,
    Shape,
    Shaped,
    encode,
    origin_of,
    time_text,
)

NAMES: Roots = {
    "body": "dyn",
    "id": "string",
    "device": "string",
    "tenant": "string",
    "sink": "string",
    "time": "string",
    "origin": "map",
}
"""What an expression of a template may speak of; `origin` has the fields of `model.Origin`."""


class TemplateFormat(FormatPart):
    """`format: {template: …}`: any JSON value; strings in it may hold `${ … }`.

    ```yaml
    format:
      template:
        body:
          sensor: ${device}
          celsius: ${body.telemetry.temperature}
        content_type: application/json  # of another kind, `body` must give text
    ```
    Names: `body`, `id`, `device`, `tenant`, `sink`, `time`, and `origin` (`type`, `integration`,
    `device_type`, `application_id`, `device_id`, `dev_eui`, `f_port`, `f_cnt`, `confirmed`,
    `payload`).
    """

    body: Any
    content_type: str = Field(default=JSON, min_length=1, max_length=200, pattern=r"^[!-~ ]+$")

    @field_validator("body")
    @classmethod
    def _compiles(cls, value: Any) -> Any:
        try:
            compile_value(value, names=NAMES)
        except ExpressionFault as fault:
            where = ".".join(map(str, fault.path))
            hint = f" ({fault.suggestion})" if fault.suggestion else ""
            raise ValueError(f"{where + ': ' if where else ''}{fault.message}{hint}") from None
        return value

    @property
    def is_json(self) -> bool:
        """Whether what leaves is JSON."""
        return self.content_type.split(";")[0].strip().endswith("json")

    def shape(self, tenant: str, destination: str) -> Shape:
        """See `FormatPart.shape`."""
        value = compile_value(self.body, names=NAMES)
        is_json = self.is_json

        def shape(delivery: Delivery) -> Shaped:
            made = value(
                {
                    "body": delivery.body,
                    "id": delivery.id,
                    "device": delivery.device,
                    "tenant": tenant,
                    "sink": destination,
                    "time": time_text(delivery),
                    "origin": _members(origin_of(delivery)),
                }
            )
            if is_json:
                return Shaped(encode(made), self.content_type)
            if type(made) is not str:
                raise MessageError(
                    f"the template must give text for the content type {self.content_type}",
                    code="format",
                )
            return Shaped(made.encode(errors="replace"), self.content_type)

        return shape


def _members(origin: Origin) -> dict[str, Any]:
    return {name: getattr(origin, name) for name in Origin.__struct_fields__}
