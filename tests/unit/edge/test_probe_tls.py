"""The supervisor's question over TLS: where it goes, whom it believes, and what a stranger is told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import TYPE_CHECKING

import pytest

from harbor_satellite.edge.probe import is_answered
from harbor_satellite.edge.services import Probe
from tests.unit.edge.conftest import make_pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "registry.invalid"  # RFC 6761: no resolver knows it
HEADERS = {"Authorization": "Basic bWFkZS11cA=="}


class Server:
    """A service that shows a certificate, answers one request, and keeps what it was told."""

    def __init__(self, pair: tuple[Path, Path], *, is_silent: bool = False) -> None:
        self.heard = b""
        self.asked_for = ""
        self._is_silent = is_silent
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*pair)
        self._context.sni_callback = self._note

    def _note(self, _: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        self.asked_for = name or ""

    def serve(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            plain, _ = listening.accept()
            plain.settimeout(10)
            with plain, self._context.wrap_socket(plain, server_side=True) as channel:
                self.heard = channel.recv(10_000)
                if self._is_silent:
                    channel.recv(1)
                channel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@contextlib.contextmanager
def serving(server: Server) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.serve, args=(listening,))
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_pair(tmp_path, f"DNS:{NAME}")


def probe(port: int, certificate: object, name: str = NAME, seconds: float = 10.0) -> Probe:
    return Probe(f"https://{name}:{port}/v2/", HEADERS, "127.0.0.1", str(certificate), timeout_seconds=seconds)


def test_is_answered_under_a_name_that_nobody_resolves(pair: tuple[Path, Path]) -> None:
    server = Server(pair)

    with serving(server) as port:
        assert is_answered(probe(port, pair[0]))

    assert server.asked_for == NAME
    assert f"\r\nHost: {NAME}:{port}\r\n".encode() in server.heard
    assert HEADERS["Authorization"].encode() in server.heard


@pytest.mark.parametrize("who", ["another certificate", "another name", "no such file"])
def test_who_shows_another_certificate_lives_and_is_told_nothing(
    tmp_path: Path, pair: tuple[Path, Path], who: str
) -> None:
    (tmp_path / "other").mkdir()
    certificate = {
        "another certificate": make_pair(tmp_path / "other", f"DNS:{NAME}")[0],
        "another name": pair[0],
        "no such file": tmp_path / "being-replaced.pem",
    }[who]
    server = Server(pair)

    with serving(server) as port:
        assert is_answered(probe(port, certificate, "other.invalid" if who == "another name" else NAME))

    assert server.heard == b""


def test_silence_behind_a_known_certificate_is_no_answer(pair: tuple[Path, Path]) -> None:
    server = Server(pair, is_silent=True)

    with serving(server) as port:
        assert not is_answered(probe(port, pair[0], seconds=1.0))

    assert server.heard
