"""The process around the embedded registry: listening, announcing itself, stopping cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from starlette.types import ASGIApp

    from harbor_satellite.registry.layout import LayoutRegistry

_log: Final = logging.getLogger(__name__)
_STOP_TIMEOUT_SECONDS: Final = 5
_DATE_SECONDS: Final = 1.0
_BACKLOG: Final = 512
_PORT_MAX: Final = 65535
_GARBAGE_INTERVAL_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class KeyPair:
    """What a server proves with who it is, as PEM files."""

    certificate: Path
    """With what stands between it and its authority."""
    key: Path
    """Without a passphrase."""


class QuietServer(uvicorn.Server):
    """A server that is woken when it is to stop, instead of looking ten times a second whether it is."""

    def __init__(self, config: uvicorn.Config) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()
        self._is_ending = False
        super().__init__(config)

    @property
    def should_exit(self) -> bool:
        """Whether it is to stop; may be set from any thread, and by a signal."""
        return self._is_ending

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._is_ending = value
        if value and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has stopped
                self._loop.call_soon_threadsafe(self._told.set)

    async def main_loop(self) -> None:
        """Serve until told to stop; once a second, answers get a new date."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _DATE_SECONDS)


class RegistryServer:
    """One HTTP server on one socket, which is bound at once: ``url`` is right before the first request.

    Args:
        app: what answers.
        host: name or address to listen on; IPv6 without brackets.
        port: 0 picks a free one.
        key_pair: makes it speak TLS; None: plain HTTP.
        connections_max: at once; further ones are turned away. None: as many as come.
        connection_seconds: how long one may last, whatever it is at; None: as long as it likes.

    Raises:
        InvalidInputError: nobody can listen there, or the key pair cannot be used.
    """

    def __init__(
        self,
        app: ASGIApp,
        host: str,
        port: int,
        key_pair: KeyPair | None = None,
        *,
        connections_max: int | None = None,
        connection_seconds: float | None = None,
    ) -> None:
        self._socket: Final = _listen(host, port)
        shown = f"[{host}]" if ":" in host else host
        self.url: Final = f"http{'s' if key_pair else ''}://{shown}:{self._socket.getsockname()[1]}"
        """Where it listens."""
        config = uvicorn.Config(
            app,
            http="auto" if connection_seconds is None else _lasting(connection_seconds),
            access_log=False,
            log_config=None,
            log_level="warning",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            limit_concurrency=connections_max,
            timeout_graceful_shutdown=_STOP_TIMEOUT_SECONDS,
            ssl_certfile=key_pair.certificate if key_pair else None,
            ssl_keyfile=key_pair.key if key_pair else None,
            ssl_keyfile_password="" if key_pair else None,  # else OpenSSL would ask at the terminal
        )
        self._load(config, key_pair)
        self._server: Final = QuietServer(config)

    def run(self, on_listening: Callable[[str], None] | None = None) -> None:
        """Serve until ``stop`` or, in the main thread, SIGTERM or SIGINT; requests under way get five seconds."""
        # The socket queues connections already, so nobody who reads this line is turned away.
        _log.info("listening on %s", self.url)
        if on_listening is not None:
            on_listening(self.url)
        try:
            with _surviving_signals():
                self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()
        _log.info("stopped listening on %s", self.url)

    def _load(self, config: uvicorn.Config, key_pair: KeyPair | None) -> None:
        try:
            config.load()
        except OSError as error:  # SSLError is one
            self._socket.close()
            pair = f"certificate {key_pair.certificate} with key {key_pair.key}" if key_pair else "server"
            raise InvalidInputError(f"{pair} cannot be used: {error}") from error

    def stop(self) -> None:
        """Make ``run`` return, from any thread."""
        self._server.should_exit = True


def _lasting(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with an end: of its own accord, it waits for a request for ever."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol  # noqa: PLC0415  (imports the parser that is there)

    class LastingProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # one of two classes
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.end = asyncio.get_running_loop().call_later(seconds, transport.abort)

        def connection_lost(self, exc: Exception | None) -> None:
            self.end.cancel()
            super().connection_lost(exc)

    return LastingProtocol


def parse_listen(listen: str) -> tuple[str, int]:
    """Read ``HOST:PORT``; an IPv6 host stands in brackets, port 0 means any free one.

    Raises:
        InvalidInputError: it is something else.
    """
    host, _, port = listen.rpartition(":")
    is_literal = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_literal else host
    is_port = port.isascii() and port.isdecimal() and int(port) <= _PORT_MAX
    if not host or not is_port or (":" in host) != is_literal:
        raise InvalidInputError(f"not an address to listen on (HOST:PORT): {listen[:200]!r}")
    return host, int(port)


def announce(url: str) -> None:
    """Print the one line that whoever started this process waits for."""
    sys.stdout.write(f"listening on {url}\n")
    sys.stdout.flush()


@contextmanager
def collecting_garbage(
    registry: LayoutRegistry, older_than_seconds: float, untagged_older_than_seconds: float
) -> Iterator[None]:
    """Collect a registry's garbage once a day, in a thread, as long as the context lasts."""
    stopping = threading.Event()

    def work() -> None:
        while True:
            try:
                registry.garbage_collect(older_than_seconds, untagged_older_than_seconds)
            except HarborSatelliteError as error:
                _log.warning("garbage collection failed, next try in a day reason=%s", error)
            if stopping.wait(_GARBAGE_INTERVAL_SECONDS):
                return

    thread = threading.Thread(target=work, name="registry-garbage", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        # The root will belong to somebody else soon; what is under way should not outlive that by much.
        thread.join(_STOP_TIMEOUT_SECONDS)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is said aloud (`create_server` does not): asyncio turns Nagle's algorithm off only for
    # sockets that name TCP, and with it on, every small answer waits 40 ms for the client's acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidInputError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
    return listener


@contextmanager
def _surviving_signals() -> Iterator[None]:
    """Let uvicorn stop on a signal without its raising the signal again at this process afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = (signal.SIGTERM, signal.SIGINT)
    before = {name: signal.signal(name, lambda _number, _frame: None) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
