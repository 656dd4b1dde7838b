"""How requests reach a fake registry: through httpx without a socket, or over loopback from a threaded server."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLError
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

_TIMEOUT_SECONDS = 20


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


@dataclass(frozen=True, slots=True)
class FakeReply:
    """One answer; ``cut_after`` bytes of the body are sent before the connection dies, ``hang`` holds it back."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut_after: int | None = None
    hang: bool = False


@dataclass(slots=True)
class Fault:
    """What to answer instead, to requests whose ``METHOD /path`` matches the pattern."""

    pattern: str
    reply: FakeReply
    times: int = 1


def mock_transport(answer: Callable[[str, str, Mapping[str, str], bytes], FakeReply]) -> httpx.MockTransport:
    def handle(request: httpx.Request) -> httpx.Response:
        reply = answer(request.method, str(request.url), request.headers, request.content)
        if reply.hang:
            raise httpx.ReadTimeout("hangs", request=request)
        if reply.cut_after is not None:
            raise httpx.RemoteProtocolError("peer closed connection", request=request)
        return httpx.Response(reply.status, headers=dict(reply.headers), content=reply.body)

    return httpx.MockTransport(handle)


@contextmanager
def serve(
    answer: Callable[[str, str, Mapping[str, str], bytes], FakeReply], context: ssl.SSLContext | None = None
) -> Iterator[str]:
    server = _Server(answer)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.stop()


class _Server(ThreadingHTTPServer):
    # Joining every thread keeps one test's sockets out of the next.
    daemon_threads = False

    def __init__(self, answer: Callable[[str, str, Mapping[str, str], bytes], FakeReply]) -> None:
        self.answer = answer
        self.stopping = threading.Event()
        self._connections: list[socket.socket] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def stop(self) -> None:
        self.stopping.set()
        for connection in self._connections:
            # It may be closed already.
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_SECONDS
    server: _Server

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            # The client gave up in the middle: nothing is stored.
            self.close_connection = True
            return
        reply = self.server.answer(self.command, self.path, dict(self.headers.items()), body)
        if reply.hang:
            self.server.stopping.wait(_TIMEOUT_SECONDS)
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body[: reply.cut_after])
        self.close_connection = self.close_connection or reply.cut_after is not None

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server's names

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, SSLError):
            self.close_connection = True

    def log_message(self, *_args: object) -> None:
        """Keep quiet: http.server would write each request to stderr."""
