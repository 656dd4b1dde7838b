"""The forwarder for Docker: what comes to port 80 of the loopback goes to the local registry.

Docker has no other way to give a registry another name: ``/etc/hosts`` makes ``satellite.zot`` this machine, and a name
without a port means port 80. Bytes only, nothing is looked at. Nothing but the standard library is imported: this
process lives beside the supervisor on small machines.

    python -I -S -c "…; main(sys.argv[1:])" LISTEN_HOST LISTEN_PORT REGISTRY_URL [CA_FILE]
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import ssl
import sys
from typing import Final
from urllib.parse import urlsplit

from harbor_satellite.edge.notices import ERROR, INFO, WARNING, Journal
from harbor_satellite.edge.restarts import CONFIGURATION_ERROR

CONNECTIONS_MAX: Final = 64
"""At once: a pull of Docker takes about four; who comes later waits."""
_DIAL_SECONDS: Final = 5.0
_IDLE_SECONDS: Final = 300.0
"""So long without a byte either way, and a connection is closed."""
_CHUNK_BYTES: Final = 64 * 1024
_PORTS: Final = {"http": 80, "https": 443}


class Forwarder:
    """Joins each connection that comes in with one to the registry.

    Args:
        host: of the registry, without brackets.
        port: of the registry.
        tls: how its certificate is checked; None: it speaks plain HTTP.
        journal: where troubles go.
        idle_seconds: how long a connection may say nothing.
    """

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, journal: Journal, idle_seconds: float = _IDLE_SECONDS
    ) -> None:
        self._host, self._port, self._tls, self._journal = host, port, tls, journal
        self._idle_seconds = idle_seconds
        self._room = asyncio.Semaphore(CONNECTIONS_MAX)
        self._is_well = True

    async def serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Serve one connection until both sides have ended."""
        try:
            async with self._room:
                await self._serve(client, to_client)
        except asyncio.CancelledError:
            return  # we end; asyncio's streams would print it

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            registry, to_registry = await asyncio.wait_for(
                asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=_CHUNK_BYTES), _DIAL_SECONDS
            )
        except (OSError, TimeoutError) as error:  # of ssl, too
            self._tell_once(error)
            to_client.transport.abort()
            return
        self._is_well = True
        await self._join(client, to_registry, registry, to_client)

    async def _join(
        self,
        client: asyncio.StreamReader,
        to_registry: asyncio.StreamWriter,
        registry: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
    ) -> None:
        activity = _Activity(self._idle_seconds)
        ways = (
            asyncio.ensure_future(_copy(client, to_registry, activity)),
            asyncio.ensure_future(_copy(registry, to_client, activity)),
        )
        try:
            await activity.watch(ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for writer in (to_client, to_registry):
                writer.close()

    def _tell_once(self, error: Exception) -> None:
        """Say that the registry is away, once until it is back: Docker asks again and again."""
        if self._is_well:
            reason = str(error) or type(error).__name__
            self._journal.say(WARNING, f"registry not reached host={self._host} port={self._port} reason={reason}")
        self._is_well = False


class _Activity:
    """When a byte moved last on a connection, either way."""

    def __init__(self, idle_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self.touch()

    def touch(self) -> None:
        self._until = asyncio.get_running_loop().time() + self._idle_seconds

    async def watch(self, ways: tuple[asyncio.Future[None], ...]) -> None:
        """Return when both ways have ended, or one has failed, or no byte has moved for too long."""
        loop = asyncio.get_running_loop()
        while (left := self._until - loop.time()) > 0:
            done, pending = await asyncio.wait(ways, timeout=left, return_when=asyncio.FIRST_EXCEPTION)
            if not pending or any(way.exception() for way in done):
                return


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, activity: _Activity) -> None:
    """Carry bytes one way, and pass on that there are no more."""
    while data := await reader.read(_CHUNK_BYTES):
        activity.touch()
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
    else:
        writer.close()  # TLS knows no half-closed connection


async def forward(listen_host: str, listen_port: int, url: str, ca: str, journal: Journal) -> None:
    """Forward until SIGTERM or SIGINT.

    Raises:
        OSError: nobody can listen there, or the CA cannot be used.
    """
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or _PORTS[address.scheme]
    tls = _tls(ca) if address.scheme == "https" else None
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = await asyncio.start_server(
        Forwarder(host, port, tls, journal).serve, listen_host, listen_port, limit=_CHUNK_BYTES
    )
    journal.say(INFO, f"forwarding host={listen_host} port={listen_port} registry={url}")
    await ended.wait()
    server.close()


def main(arguments: list[str]) -> None:
    """Forward as the command line says; a port that cannot be had ends it with the status of a wrong configuration."""
    listen_host, listen_port, url, ca = (*arguments, "")[:4]
    journal = Journal(os.environ, "forward")
    try:
        asyncio.run(forward(listen_host, int(listen_port), url, ca, journal))
    except OSError as error:
        journal.say(ERROR, f"cannot forward {listen_host}:{listen_port} to {url}: {_reason(error)}")
        sys.exit(CONFIGURATION_ERROR)


def _tls(ca: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _reason(error: OSError) -> str:
    """Return what an operator can do something with."""
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; Docker cannot pull satellite.zot/… until it is gone"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return "not allowed: ports below 1024 need CAP_NET_BIND_SERVICE; Docker cannot pull satellite.zot/… without"
    return error.strerror or str(error)
