"""`tls:` of a server of ours: its certificate, and whose clients it trusts. Out: a context of
`ssl`.
"""

from __future__ import annotations

import ssl

from pydantic import Field, SecretStr

from pipeline.errors import RetryableError
from pipeline.part import Part

_PATH_LENGTH_MAX = 4_096


class ServerTlsConfig(Part):
    """Paths of PEM files.

    ```yaml
    tls:
      certificate_file: certificates/server.pem
      key_file: certificates/server.key      # default: in certificate_file
      key_password: ${env:KEY_PASSWORD}
      ca_file: certificates/devices.pem      # devices must show a certificate of these
    ```
    """

    certificate_file: str = Field(min_length=1, max_length=_PATH_LENGTH_MAX)
    key_file: str = Field(default="", max_length=_PATH_LENGTH_MAX)
    key_password: SecretStr | None = None
    ca_file: str = Field(default="", max_length=_PATH_LENGTH_MAX)


def server_tls_context(tls: ServerTlsConfig) -> ssl.SSLContext:
    """Return a server's context. RetryableError (`tls`): a file cannot be used."""
    password = tls.key_password.get_secret_value() if tls.key_password else ""
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca_file or None)
        # A function, so that OpenSSL never asks on the terminal.
        context.load_cert_chain(
            tls.certificate_file, tls.key_file or None, password=lambda: password
        )
        if tls.ca_file:
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise RetryableError(
            f"a certificate of the server cannot be used: {error}", code="tls"
        ) from None
    return context
