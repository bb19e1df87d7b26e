"""A network server on loopback that keeps the downlinks which it is asked for."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any


class NetworkServer:
    """`url` is where downlinks go; `asked` has the body of each, as it came."""

    def __init__(self, url: str, asked: SimpleQueue[dict[str, Any]]) -> None:
        self.url = url
        self.asked = asked


@contextlib.contextmanager
def network_server() -> Iterator[NetworkServer]:
    """Listen on a free port until the block ends."""
    asked: SimpleQueue[dict[str, Any]] = SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked.put(json.loads(body))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
            """Say nothing: the test's output is its claim."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.server_address[1]
            yield NetworkServer(f"http://127.0.0.1:{port}/down/heating/funicular?key=k", asked)
        finally:
            server.shutdown()
            thread.join()
