"""Format `cloudevents`: CloudEvents 1.0 around the body, structured or binary.

Format: cloudevents/spec, `spec.md`, `formats/json-format.md`, and the protocol bindings, which say
how a transport carries the attributes of binary mode.
"""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, field_validator

from pipeline.model.delivery import Delivery
from pipeline.sink.formats.shaped import (
    JSON,
    FormatPart,
    Shape,
    Shaped,
    encode,
    origin_of,
    time_text,
)

STRUCTURED = "application/cloudevents+json; charset=utf-8"
BATCH = "application/cloudevents-batch+json; charset=utf-8"
_SEGMENT_SAFE = "-._~!$&'()*+,;=:@"
_HEADER_UNSAFE = re.compile(r'[^\x21-\x7e]|["%]')


class CloudEventsFormat(FormatPart):
    """`format: cloudevents`, or with its own words:

    ```yaml
    format:
      cloudevents:
        mode: structured               # one JSON object; binary: attributes beside the body
        source: //example.com/sensors  # default: /<tenant>/<integration>
        type: com.example.reading      # default: funicular.<type of the message>
    ```
    `id` is the delivery's, the same in every repeat; `subject` the device; `time` the message's.
    """

    mode: Literal["structured", "binary"] = "structured"
    source: str = Field(default="", max_length=1_000)
    type: str = Field(default="", max_length=200)

    @field_validator("source", "type")
    @classmethod
    def _is_visible(cls, value: str) -> str:
        if not value.isprintable() or " " in value:
            raise ValueError("must be visible characters without spaces")
        return value

    def shape(self, tenant: str, destination: str) -> Shape:
        """See `FormatPart.shape`."""
        own = f"/{quote(tenant, safe=_SEGMENT_SAFE)}"
        binary = self.mode == "binary"

        def shape(delivery: Delivery) -> Shaped:
            origin = origin_of(delivery)
            attributes = {
                "specversion": "1.0",
                "id": delivery.id,
                "source": self.source or f"{own}/{origin.integration or destination}",
                "type": self.type or f"funicular.{origin.type or 'message'}",
                "time": time_text(delivery),
            }
            if delivery.device:
                attributes["subject"] = delivery.device
            if binary:
                return Shaped(encode(delivery.body), JSON, attributes)
            event: dict[str, Any] = {
                **attributes, "datacontenttype": JSON, "data": delivery.body
            }  # fmt: skip
            return Shaped(encode(event), STRUCTURED)

        return shape


def http_headers(attributes: dict[str, str]) -> dict[str, str]:
    """Return the attributes as HTTP's binding has them (3.1.3.2): `ce-`, percent-encoded."""
    return {
        f"ce-{name}": _HEADER_UNSAFE.sub(lambda found: quote(found[0], safe=""), value)
        for name, value in attributes.items()
    }
