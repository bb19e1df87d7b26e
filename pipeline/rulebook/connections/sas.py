"""Shared access signatures: how Azure's services are told who connects, for a while.

In: a key, who we are, the time. Out: a user and a password that hold until the token expires.
Format: «Control access to IoT Hub using shared access signatures» of Microsoft's documentation.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from typing import Annotated
from urllib.parse import quote

from pydantic import Field, SecretStr, StringConstraints, field_validator

from pipeline.part import Part
from pipeline.rulebook.duration import Duration

API_VERSION = "2021-04-12"  # of IoT Hub, which the user's name says
_RENEWED_AFTER = 0.8  # of a token's lifetime


class SasConfig(Part):
    """`key`: the device's own, or that of the hub's `policy`; `lifetime` of a token, after most of
    which a new one is made.
    """

    key: SecretStr
    policy: Annotated[str, StringConstraints(max_length=64)] = ""
    lifetime: Annotated[Duration, Field(ge=10, le=365 * 86_400)] = 3_600.0

    @field_validator("key")
    @classmethod
    def _is_base64(cls, key: SecretStr) -> SecretStr:
        try:
            b64decode(key.get_secret_value(), validate=True)
        except (Base64Error, ValueError):
            raise ValueError("must be a key in base64, as the portal shows it") from None
        return key

    @property
    def renewed_after_s(self) -> float:
        """How long a connection may last until it is made anew, with a new token."""
        return self.lifetime * _RENEWED_AFTER


def credentials(sas: SasConfig, host: str, client_id: str, now_s: float) -> tuple[str, str]:
    """Return the user and the password of a device (`device`) or a module (`device/module`)."""
    device, _, module = client_id.partition("/")
    resource = f"{host}/devices/{device}" + (f"/modules/{module}" if module else "")
    user = f"{host}/{client_id}/?api-version={API_VERSION}"
    return user, token(sas, resource, round(now_s + sas.lifetime))


def token(sas: SasConfig, resource: str, expires_s: int) -> str:
    """Return a token for a resource, as `my-hub.azure-devices.net/devices/d1`, until a moment
    (epoch seconds).
    """
    where = quote(resource, safe="")
    key = b64decode(sas.key.get_secret_value())
    signed = hmac.digest(key, f"{where}\n{expires_s}".encode(), "sha256")
    signature = quote(b64encode(signed).decode(), safe="")
    named = f"&skn={quote(sas.policy, safe='')}" if sas.policy else ""
    return f"SharedAccessSignature sr={where}&sig={signature}&se={expires_s}{named}"
