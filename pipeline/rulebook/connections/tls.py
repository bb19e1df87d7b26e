"""`tls:` of a sink or a broker: whose certificates are trusted, and our own. Out: a context of
`ssl`.
"""

from __future__ import annotations

import ssl
from typing import Self

from pydantic import Field, SecretStr, model_validator

from pipeline.errors import RetryableError
from pipeline.part import Part

_PATH_LENGTH_MAX = 4_096


class TlsConfig(Part):
    """Paths of PEM files.

    ```yaml
    tls:
      ca_file: certificates/ca.pem            # whom to trust; default: whom the system trusts
      certificate_file: certificates/own.pem  # where the server asks for one
      key_file: certificates/own.key          # default: in certificate_file
      key_password: ${env:KEY_PASSWORD}
    ```
    """

    ca_file: str = Field(default="", max_length=_PATH_LENGTH_MAX)
    certificate_file: str = Field(default="", max_length=_PATH_LENGTH_MAX)
    key_file: str = Field(default="", max_length=_PATH_LENGTH_MAX)
    key_password: SecretStr | None = None

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.key_file and not self.certificate_file:
            raise ValueError("`key_file` is that of a `certificate_file`: set both")
        return self


def tls_context(tls: TlsConfig | None) -> ssl.SSLContext:
    """Return a context that verifies the server. RetryableError (`tls`): a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=(tls and tls.ca_file) or None)
        if tls is not None and tls.certificate_file:
            password = tls.key_password.get_secret_value() if tls.key_password else ""
            # A function, so that OpenSSL never asks on the terminal.
            context.load_cert_chain(
                tls.certificate_file, tls.key_file or None, password=lambda: password
            )
    except (OSError, ssl.SSLError) as error:
        raise RetryableError(
            f"a certificate of the connection cannot be used: {error}", code="tls"
        ) from None
    return context
