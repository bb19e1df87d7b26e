# ruff: noqa: INP001 - a program of the image, in no package
"""The container's health check: asks this worker's own `/healthz`.

Comes in: `FUNICULAR_HOST` and `FUNICULAR_PORT`, as the worker has them. Goes out: exit code 0 when
it answered 200, else 1 and the reason on stderr.
"""

from __future__ import annotations

import http.client
import os
import sys

TIMEOUT_S = 4.0


def main() -> int:
    """Ask once; an address that means «all» is asked on loopback."""
    host = os.environ.get("FUNICULAR_HOST", "")
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not listened on
        host = "127.0.0.1"
    connection = http.client.HTTPConnection(
        host, int(os.environ.get("FUNICULAR_PORT", "8080")), timeout=TIMEOUT_S
    )
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except OSError as error:
        sys.stderr.write(f"/healthz: {error}\n")
        return 1
    finally:
        connection.close()
    if status != http.client.OK:
        sys.stderr.write(f"/healthz: {status}\n")
    return int(status != http.client.OK)


if __name__ == "__main__":
    sys.exit(main())
