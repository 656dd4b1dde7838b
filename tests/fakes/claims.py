"""The part of Ground Control that a site registers with: a real HTTP server that answers as it is told."""

from __future__ import annotations

import contextlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

SECRET = "made-up-secret"


class FakeClaims:
    """Takes each of its tokens once, under one claim key; another one is refused."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.claims: list[dict[str, str]] = []
        """What was asked, in order."""
        self.statuses: list[int] = []
        """To be answered first, one by one, whatever is asked."""
        self.before_answer: Callable[[], object] = lambda: None
        self.url = ""
        self._used: dict[str, str] = {}

    @property
    def asked(self) -> list[str]:
        """The tokens that were claimed, in order."""
        return [claim["token"] for claim in self.claims]

    @contextlib.contextmanager
    def serving(self, tls: ssl.SSLContext | None = None) -> Iterator[FakeClaims]:
        """Serve on the loopback until the context ends."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.claims.append(body)
                fake.before_answer()
                status, answer = fake.answer(body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005})
            if tls:
                server.socket = tls.wrap_socket(server.socket, server_side=True)
            self.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def answer(self, claim: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if self.statuses:
            return self.statuses.pop(0), {}
        token, key = claim["token"], claim["claim_key"]
        if token not in self.tokens or self._used.setdefault(token, key) != key:
            return 401, {"code": 401}
        auth = {"url": "https://harbor.example", "username": f"robot${token}", "password": SECRET}
        return 200, {"auth": auth, "state": "harbor.example/satellite/state:latest", "satellite": "shop"}
