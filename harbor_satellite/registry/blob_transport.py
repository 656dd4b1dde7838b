"""Blob bodies over urllib3: large blocks, so that hashing and the socket stay outside Python's lock.

What lives here: streaming one body in or out of a registry, with redirects and stall limits (httpx parses each
64 KiB in Python: three times the processor time). What must not: manifests, lists and what they mean.
"""

from __future__ import annotations

import errno
import threading
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote

import httpx
import urllib3
from urllib3.util import make_headers, parse_url

from harbor_satellite.errors import DigestMismatchError, RemoteError, StorageError
from harbor_satellite.registry.api import CHUNK_BYTES
from harbor_satellite.registry.client_api import MAX_CONNECTIONS, REDIRECTS, USER_AGENT
from harbor_satellite.registry.client_errors import ERROR_BODY_MAX_BYTES, refusal, unreachable
from harbor_satellite.registry.client_urls import MAX_REDIRECTS, follow, same_origin

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.registry.client_api import ApiTransport, Timeouts

# A socket's timeout covers a whole sendall(): pieces must be small enough for a slow link (4 kB/s) to take in time.
_WRITE_BYTES: Final = 128 * 1024  # bytes
_POOLS: Final = 8  # hosts: the registry and what its redirects lead to


@dataclass(frozen=True, slots=True)
class BlobCall:
    """One request whose body, one way or the other, is a blob's."""

    what: str
    method: str
    url: httpx.URL
    scopes: frozenset[str]
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)


class BlobResponse:
    """An answer whose body has not been read; must be closed."""

    def __init__(self, what: str, response: urllib3.BaseHTTPResponse, transport: BlobTransport) -> None:
        self._what = what
        self._response = response
        self._transport = transport
        self._is_whole = False

    @property
    def status(self) -> int:
        """HTTP status."""
        return self._response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers, case-insensitive."""
        return self._response.headers

    def chunks(self, expected: int | None) -> Iterator[bytes]:
        """Give the body as it comes in, in chunks of at most ``CHUNK_BYTES``.

        Whatever has arrived is given at once: on a link that is cut every minute, waiting for a whole block loses it.

        Args:
            expected: bytes the body must have, or None if the registry did not say.

        Raises:
            RemoteError: the body ends early or stalls; retryable.
        """
        count = 0
        try:
            while chunk := self._response.read1(CHUNK_BYTES):
                self._transport.api.meter.read(len(chunk))
                count += len(chunk)
                yield chunk
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(f"{self._what} after {count} bytes", error) from error
        if expected is not None and count < expected:
            raise RemoteError(f"{self._what}: the body ended after {count} of {expected} bytes", retryable=True)
        self._is_whole = True

    def refused(self) -> RemoteError:
        """Read the start of the body and return the error for an answer that is not what was asked for."""
        try:
            body = self._response.read(ERROR_BODY_MAX_BYTES)
        except (urllib3.exceptions.HTTPError, OSError):
            body = b""
        return refusal(self._what, self.status, self.headers, body)

    def close(self) -> None:
        """Give the connection back if its body was read to the end; close it otherwise."""
        if self._is_whole:
            self._response.release_conn()
        else:
            self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlobTransport:
    """Sends requests with blob bodies to one registry, with the ``Authorization`` of its API.

    Args:
        api: the registry's API; shares its tokens and counters.
        context: TLS settings.
        timeouts: limits of each step; none on a body as a whole.
    """

    def __init__(self, api: ApiTransport, context: ssl.SSLContext, timeouts: Timeouts) -> None:
        self.api = api
        self._read_timeout = urllib3.Timeout(connect=timeouts.connect, read=timeouts.read)
        # urllib3 sends a body under the connect timeout.
        self._write_timeout = urllib3.Timeout(connect=max(timeouts.connect, timeouts.write), read=timeouts.commit)
        self._context = context
        self._lock = threading.Lock()
        self._managers: dict[str, urllib3.PoolManager] = {}

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            for manager in self._managers.values():
                manager.clear()

    def open(self, call: BlobCall) -> BlobResponse:
        """Send a read and return its answer, whatever its status; redirects are followed.

        Raises:
            RemoteError: no answer, or a redirect that is not followed.
        """
        url = call.url
        for _ in range(MAX_REDIRECTS + 1):
            response = self._open_authorized(call, url)
            location = response.headers.get("location")
            if response.status not in REDIRECTS or not location:
                return response
            response.close()
            url = follow(url, location, call.what)
        raise RemoteError(f"{call.what}: more than {MAX_REDIRECTS} redirects")

    def put(self, call: BlobCall, descriptor: Descriptor, chunks: Iterable[bytes]) -> BlobResponse:
        """Send a blob in one request, which is never completed unless the bytes match the descriptor.

        Raises:
            DigestMismatchError: they do not match.
            StorageError: the chunks cannot be read from a local disk.
            RemoteError: no answer, or the registry refused the authorization it had just accepted.
        """
        authorization = self.api.authorization(call.url, call.scopes)
        body = _verified(call.what, descriptor, chunks)
        response = self._request(call, call.url, authorization, self._metered(body), descriptor.size)
        if response.status == httpx.codes.UNAUTHORIZED:
            self.api.authorizer.forget(authorization)
        return response

    def _metered(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            yield piece
            self.api.meter.wrote(len(piece))

    def _open_authorized(self, call: BlobCall, url: httpx.URL) -> BlobResponse:
        authorization = self.api.authorization(url, call.scopes)
        response = self._request(call, url, authorization)
        if response.status != httpx.codes.UNAUTHORIZED or not same_origin(url, self.api.address.url):
            return response
        challenge = response.headers.get("www-authenticate")
        better = self.api.authorizer.after_refusal([challenge] if challenge else [], call.scopes, authorization)
        if better is None:
            return response
        response.close()
        return self._request(call, url, better)

    def _request(
        self,
        call: BlobCall,
        url: httpx.URL,
        authorization: str | None,
        body: Iterator[bytes] | None = None,
        size: int = 0,
    ) -> BlobResponse:
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **call.headers}
        if authorization:
            headers["Authorization"] = authorization
        if body is not None:
            headers["Content-Length"] = str(size)
        self.api.meter.requested()
        try:
            response = self._manager(url).request(
                call.method,
                str(url),
                headers=headers,
                body=body,
                timeout=self._read_timeout if body is None else self._write_timeout,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(call.what, error) from error
        return BlobResponse(call.what, response, self)

    def _manager(self, url: httpx.URL) -> urllib3.PoolManager:
        """Choose the proxy that the environment names for this host, as httpx does for the API."""
        proxies = urllib.request.getproxies()
        proxy = proxies.get(url.scheme) or proxies.get("all") or ""
        if urllib.request.proxy_bypass(url.netloc.decode()):
            proxy = ""
        with self._lock:
            if proxy not in self._managers:
                self._managers[proxy] = self._new_manager(proxy)
            return self._managers[proxy]

    def _new_manager(self, proxy: str) -> urllib3.PoolManager:
        if not proxy:
            return urllib3.PoolManager(
                _POOLS, maxsize=MAX_CONNECTIONS, blocksize=CHUNK_BYTES, ssl_context=self._context
            )
        address = parse_url(proxy if "://" in proxy else f"http://{proxy}")
        headers = make_headers(proxy_basic_auth=unquote(address.auth)) if address.auth else None
        return urllib3.ProxyManager(
            address._replace(auth=None).url,
            _POOLS,
            proxy_headers=headers,
            maxsize=MAX_CONNECTIONS,
            blocksize=CHUNK_BYTES,
            ssl_context=self._context,
        )


def _verified(what: str, descriptor: Descriptor, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass chunks on in small pieces; the last one only once all of them are known to be right."""
    hasher = descriptor.digest.hasher()
    held = b""
    size = 0
    for chunk in _readable(what, chunks):
        hasher.update(chunk)
        size += len(chunk)
        if size > descriptor.size:
            raise DigestMismatchError(f"{what}: more than the {descriptor.size} bytes it must have")
        for start in range(0, len(chunk), _WRITE_BYTES):
            if held:
                yield held
            held = chunk[start : start + _WRITE_BYTES]
    if size != descriptor.size or hasher.hexdigest() != descriptor.digest.hex:
        got = f"{descriptor.digest.algorithm}:{hasher.hexdigest()}"
        raise DigestMismatchError(f"{what}: digest mismatch: got {got} in {size} of {descriptor.size} bytes")
    if held:
        yield held


def _readable(what: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Tell a failing local disk from a failing network: both are ``OSError`` to urllib3."""
    try:
        yield from chunks
    except OSError as error:
        reason = error.strerror or errno.errorcode.get(error.errno or 0, type(error).__name__)
        raise StorageError(f"{what}: its bytes cannot be read: {reason}") from error
