"""What counts as an answer, from peers that behave and peers that do not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.probe import is_answered
from harbor_satellite.edge.services import Probe
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_TIMEOUT = 0.2


@contextlib.contextmanager
def peer(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    def serve() -> None:
        with contextlib.suppress(OSError):
            channel, _ = server.accept()
            with channel:
                behave(channel)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
    thread.join()


def says(answer: bytes) -> Callable[[socket.socket], None]:
    def behave(channel: socket.socket) -> None:
        channel.recv(10_000)
        channel.sendall(answer)

    return behave


def dribbles(channel: socket.socket) -> None:
    with contextlib.suppress(OSError):
        for byte in b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100:
            channel.sendall(bytes([byte]))
            time.sleep(0.05)


def stays_silent(channel: socket.socket) -> None:
    while channel.recv(10_000):
        pass


def says_half(channel: socket.socket) -> None:
    channel.recv(10_000)
    channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    stays_silent(channel)


def never_ends(channel: socket.socket) -> None:
    channel.recv(10_000)
    with contextlib.suppress(OSError):
        channel.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            channel.sendall(bytes(65536))


@pytest.mark.parametrize(
    ("behave", "is_well"),
    [
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), True),
        (says(b"HTTP/1.1 503 Service Unavailable\r\n\r\nnot now"), True),
        (says(b"HTTP/1.0 401 Unauthorized\r\ncontent-length:0\r\n\r\n"), True),
        (never_ends, True),
        (says(b""), False),
        (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), False),
        (says(b"HTTP/1.1 200 OK\r\n"), False),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), False),
        (says_half, False),
        (dribbles, False),
        (stays_silent, False),
    ],
    ids=[
        "whole",
        "error status",
        "refused user",
        "more than anyone wants",
        "closed",
        "another protocol",
        "half a head",
        "half a body",
        "half a body, open",
        "dribble",
        "silence",
    ],
)
def test_is_answered(behave: Callable[[socket.socket], None], *, is_well: bool) -> None:
    began = time.monotonic()
    with peer(behave) as port:
        found = is_answered(Probe(f"http://127.0.0.1:{port}/v2/", timeout_seconds=_TIMEOUT))
        took = time.monotonic() - began

    assert found == is_well
    assert took < 4 * _TIMEOUT


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://127.0.0.1:99999/", "nonsense", "http://[", ""])
def test_is_answered_by_nobody(url: str) -> None:
    assert not is_answered(Probe(url.format(port=free_port()), timeout_seconds=_TIMEOUT))


def test_is_answered_sends_headers_path_and_query() -> None:
    asked = bytearray()

    def hears(channel: socket.socket) -> None:
        asked.extend(channel.recv(10_000))
        channel.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with peer(hears) as port:
        is_answered(Probe(f"http://127.0.0.1:{port}/v2/a/manifests/b?c=d", {"Accept": "*/*"}))

    assert asked.startswith(b"GET /v2/a/manifests/b?c=d HTTP/1.0\r\n")
    assert f"\r\nHost: 127.0.0.1:{port}\r\n".encode() in asked
    assert b"\r\nAccept: */*\r\n" in asked


def test_is_answered_over_tls_by_whoever_it_is(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=somebody-else", "-days", "1"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def over_tls(channel: socket.socket) -> None:
        with context.wrap_socket(channel, server_side=True) as secured:
            says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(secured)

    with peer(over_tls) as port:
        answered = is_answered(Probe(f"https://127.0.0.1:{port}/v2/"))
    with peer(stays_silent) as port:
        silent = is_answered(Probe(f"https://127.0.0.1:{port}/v2/", timeout_seconds=_TIMEOUT))

    assert (answered, silent) == (True, False)
