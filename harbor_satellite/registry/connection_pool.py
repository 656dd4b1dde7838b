"""Connections to a registry and to where it redirects, shared by API calls and the bodies of blobs.

What lives here: urllib3's pools, the environment's proxies, and what takes their place in tests. What must not: what
is sent.
"""

from __future__ import annotations

import socket
import threading
import urllib.request
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote

import httpx
import urllib3
from urllib3.util import make_headers, parse_url

from harbor_satellite.registry.api import CHUNK_BYTES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping

MAX_CONNECTIONS: Final = 32  # a client is shared by some sixteen threads
# A socket's timeout covers a whole sendall(): pieces must be small enough for a slow link (4 kB/s) to take in time.
WRITE_BYTES: Final = 128 * 1024  # bytes
_POOLS: Final = 8  # hosts: the registry and what its redirects lead to


class Answer(Protocol):
    """An answer whose body is still to come; urllib3's are such."""

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> urllib3.HTTPHeaderDict:
        """Headers, case-insensitive."""
        ...

    def read1(self, amt: int, /) -> bytes:
        """Return what has arrived, at most so many bytes; empty at the end."""
        ...

    def close(self) -> None:
        """Close the connection, unless the answer was read to its end: then it is in the pool again."""
        ...


class Connections(Protocol):
    """What requests are sent over."""

    def send(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        timeout: urllib3.Timeout,
        body: Iterable[Any] | bytes | None = None,
    ) -> Answer:
        """Send one request and return its answer; redirects are not followed, and nothing is tried twice.

        Raises:
            urllib3.exceptions.HTTPError, httpx.HTTPError, OSError: there is no answer.
        """
        ...


class ConnectionPool:
    """Connections kept open between requests; safe to use from many threads.

    Args:
        make_context: makes the TLS settings; called when a connection first needs them, for that takes 30 ms.
        receive_buffer_bytes: of each connection's socket; None: what the system thinks fit.
    """

    def __init__(self, make_context: Callable[[], ssl.SSLContext], receive_buffer_bytes: int | None = None) -> None:
        self._make_context = cache(make_context)
        self._socket_options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        if receive_buffer_bytes:
            self._socket_options.append((socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes))
        self._lock = threading.Lock()
        self._ways: dict[tuple[str, bytes], urllib3.HTTPConnectionPool | urllib3.ProxyManager] = {}

    def send(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        timeout: urllib3.Timeout,
        body: Iterable[Any] | bytes | None = None,  # any buffer can be sent; urllib3's types know of bytes alone
    ) -> urllib3.BaseHTTPResponse:
        """Send one request and return its answer; redirects are not followed, and nothing is tried twice.

        Raises:
            urllib3.exceptions.HTTPError, OSError: there is no answer.
        """
        way = self._way(url)
        options: dict[str, Any] = {
            "redirect": False,
            "retries": False,
            "assert_same_host": False,
            "timeout": timeout,
            "preload_content": False,
            "decode_content": False,
        }
        target = str(url) if isinstance(way, urllib3.ProxyManager) else url.raw_path.decode("ascii")
        return way.urlopen(method, target, body=body, headers=headers, **options)

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            for way in self._ways.values():
                way.clear() if isinstance(way, urllib3.ProxyManager) else way.close()
            self._ways.clear()

    def _way(self, url: httpx.URL) -> urllib3.HTTPConnectionPool | urllib3.ProxyManager:
        """Choose how to reach a host; once, for looking for a proxy takes as long as a request."""
        origin = (url.scheme, url.netloc)
        with self._lock:
            way = self._ways.get(origin)
            if way is None:
                if len(self._ways) >= _POOLS:
                    self._ways.pop(next(iter(self._ways)))  # its connections go with the last request that uses them
                way = self._ways[origin] = self._new_way(url)
            return way

    def _new_way(self, url: httpx.URL) -> urllib3.HTTPConnectionPool | urllib3.ProxyManager:
        options: dict[str, Any] = {
            "maxsize": MAX_CONNECTIONS,
            "blocksize": CHUNK_BYTES,
            "socket_options": self._socket_options,
        }
        proxy = _proxy_of(url)
        if proxy or url.scheme == "https":
            options["ssl_context"] = self._make_context()
        if proxy:
            address = parse_url(proxy if "://" in proxy else f"http://{proxy}")
            login = make_headers(proxy_basic_auth=unquote(address.auth)) if address.auth else None
            return urllib3.ProxyManager(address._replace(auth=None).url, _POOLS, proxy_headers=login, **options)
        return urllib3.connection_from_url(f"{url.scheme}://{url.netloc.decode('ascii')}", **options)


class TransportConnections:
    """Sends requests over a transport of httpx, which in tests takes the network's place.

    Args:
        transport: what to send over.
    """

    def __init__(self, transport: httpx.BaseTransport) -> None:
        self._transport = transport

    def send(
        self,
        method: str,
        url: httpx.URL,
        headers: Mapping[str, str],
        timeout: urllib3.Timeout,  # noqa: ARG002  (the pool's)
        body: Iterable[Any] | bytes | None = None,
    ) -> Answer:
        """Send one request and return its answer.

        Raises:
            httpx.HTTPError, OSError: there is no answer.
        """
        return _TransportAnswer(
            self._transport.handle_request(httpx.Request(method, url, headers=headers, content=body))
        )


class _TransportAnswer:
    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = urllib3.HTTPHeaderDict(response.headers.multi_items())
        self._response = response
        self._pieces = response.iter_bytes()

    def read1(self, _amt: int, /) -> bytes:
        return next(self._pieces, b"")

    def close(self) -> None:
        self._response.close()


def _proxy_of(url: httpx.URL) -> str:
    if urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return ""
    proxies = urllib.request.getproxies()
    return proxies.get(url.scheme) or proxies.get("all") or ""


def pieces_of(content: bytes) -> Iterable[bytes] | bytes | None:
    """Cut a body into what a slow link takes in time; None for none."""
    if len(content) <= WRITE_BYTES:
        return content or None
    return (content[start : start + WRITE_BYTES] for start in range(0, len(content), WRITE_BYTES))
