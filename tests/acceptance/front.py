"""One address for two servers, as a Harbor's own proxy is: its API from one, its registry from another."""

from __future__ import annotations

from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOP_BY_HOP: Final = {"connection", "keep-alive", "transfer-encoding"}
_TIMEOUT_SECONDS: Final = 30.0


@contextmanager
def serve_front(registry_url: str, api_url: str) -> Iterator[str]:
    """Send ``/v2/…`` to the registry and everything else to the API; gives the common address."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            server = registry_url if self.path.startswith("/v2/") else api_url
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection = HTTPConnection(urlsplit(server).netloc, timeout=_TIMEOUT_SECONDS)
            try:
                # The Host header is passed on: the registry makes upload Locations of it.
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
                self._send(answer.status, answer.getheaders(), content)
            finally:
                connection.close()

        def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
