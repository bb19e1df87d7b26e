"""The way back to a device that a format shows: whose door, and how it calls the device there.

The doors (`/{handler}/api/v2/down/…`, `/api/v3/as/…`) find a device by application and device id,
filled into the `device` template of the integration that the address names.
"""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from pipeline.model.delivery import Delivery
from pipeline.sink.formats.shaped import FormatPart, origin_of


class BackPart(FormatPart):
    """What the formats of network servers have in common: the way back for downlinks.

    `url`: where Funicular's door is reached from outside; `key`: what `funicular keys create
    --right downlink` gave, one for each application, so that it can be revoked alone. Both or none.
    """

    url: str = Field(default="", max_length=1_000)
    key: SecretStr | None = None

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if bool(self.url) != (self.key is not None):
            raise ValueError("`url` and `key` make the way back for downlinks: set both, or none")
        if not self.url:
            return self
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query:
            raise ValueError("`url` must be an address as https://funicular.example.com")
        return self

    @property
    def shown_key(self) -> str:
        """The key's text; empty where downlinks have no way back."""
        return self.key.get_secret_value() if self.key is not None else ""


def ids_of(delivery: Delivery, destination: str) -> tuple[str, str]:
    """Return application and device id, so that the doors find the device by them.

    They are the network server's, where the device is named by nothing else; otherwise the device
    is called by its whole name, in an application that is called as its integration.
    """
    origin = origin_of(delivery)
    application, device_id = origin.application_id, origin.device_id
    device = delivery.device
    if device_id and device_id in device:
        rest = device.replace(device_id, "", 1)
        rest = rest.replace(application, "", 1) if application else rest
        if not any(character.isalnum() for character in rest):
            return application or origin.integration or destination, device_id
    return application or origin.integration or destination, device
