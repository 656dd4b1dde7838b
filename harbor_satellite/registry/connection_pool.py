"""Connections to a registry and to where it redirects, shared by API calls and the bodies of blobs.

What lives here: urllib3's pools, the environment's proxies, and httpx's way into them. What must not: what is sent.
httpx's own would be a second set, with a handshake for each, deaf to the receive buffer behind a proxy.
"""

from __future__ import annotations

import socket
import threading
import urllib.request
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import httpx
import urllib3
from urllib3.util import make_headers, parse_url

from harbor_satellite.registry.api import CHUNK_BYTES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

MAX_CONNECTIONS: Final = 32  # a client is shared by some sixteen threads
# A socket's timeout covers a whole sendall(): pieces must be small enough for a slow link (4 kB/s) to take in time.
WRITE_BYTES: Final = 128 * 1024  # bytes
_READ_BYTES: Final = 64 * 1024  # bytes
_POOLS: Final = 8  # hosts: the registry and what its redirects lead to


class ConnectionPool:
    """Connections kept open between requests; safe to use from many threads.

    Args:
        context: TLS settings.
        receive_buffer_bytes: of each connection's socket; None: what the system thinks fit.
    """

    def __init__(self, context: ssl.SSLContext, receive_buffer_bytes: int | None = None) -> None:
        self._context = context
        self._socket_options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
        if receive_buffer_bytes:
            self._socket_options.append((socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes))
        self._lock = threading.Lock()
        self._managers: dict[str, urllib3.PoolManager] = {}
        self._by_origin: dict[tuple[str, bytes], urllib3.PoolManager] = {}

    def manager(self, url: httpx.URL) -> urllib3.PoolManager:
        """Choose the proxy that the environment names for this host; once, for looking takes as long as a request."""
        origin = (url.scheme, url.netloc)
        with self._lock:
            if origin not in self._by_origin:
                proxies = urllib.request.getproxies()
                proxy = proxies.get(url.scheme) or proxies.get("all") or ""
                if urllib.request.proxy_bypass(url.netloc.decode()):
                    proxy = ""
                if proxy not in self._managers:
                    self._managers[proxy] = self._new_manager(proxy)
                self._by_origin[origin] = self._managers[proxy]
            return self._by_origin[origin]

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            for manager in self._managers.values():
                manager.clear()

    def _new_manager(self, proxy: str) -> urllib3.PoolManager:
        options: dict[str, Any] = {
            "maxsize": MAX_CONNECTIONS,
            "blocksize": CHUNK_BYTES,
            "ssl_context": self._context,
            "socket_options": self._socket_options,
        }
        if not proxy:
            return urllib3.PoolManager(_POOLS, **options)
        address = parse_url(proxy if "://" in proxy else f"http://{proxy}")
        headers = make_headers(proxy_basic_auth=unquote(address.auth)) if address.auth else None
        return urllib3.ProxyManager(address._replace(auth=None).url, _POOLS, proxy_headers=headers, **options)


class PooledTransport(httpx.BaseTransport):
    """Sends httpx's requests over a pool; its failures are urllib3's.

    Args:
        pool: whose connections to use; closed by its owner.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request and return its answer with the body still to come."""
        limits = request.extensions["timeout"]
        content = request.read()
        # urllib3 sends a body under the connect timeout.
        connect = max(limits["connect"], limits["write"]) if content else limits["connect"]
        response = self._pool.manager(request.url).request(
            request.method,
            str(request.url),
            headers=dict(request.headers),
            body=_pieces(content) if content else None,
            timeout=urllib3.Timeout(connect=connect, read=limits["read"]),
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
        )
        stream = _Body(response, has_body=request.method != "HEAD")
        return httpx.Response(response.status, headers=list(response.headers.items()), stream=stream)


class _Body(httpx.SyncByteStream):
    def __init__(self, response: urllib3.BaseHTTPResponse, *, has_body: bool) -> None:
        self._response = response
        self._has_body = has_body

    def __iter__(self) -> Iterator[bytes]:
        if not self._has_body:
            self._response.read()  # gives the connection back
            return
        # Whatever has arrived: a peer that drips must not hold up the look at the clock.
        while chunk := self._response.read1(_READ_BYTES):
            yield chunk

    def close(self) -> None:
        """Close the connection, unless its answer was read to the end: then it is back in the pool already."""
        self._response.close()


def _pieces(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), WRITE_BYTES):
        yield content[start : start + WRITE_BYTES]
