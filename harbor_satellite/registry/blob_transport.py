"""Blob bodies over urllib3: large blocks, so that hashing and the socket stay outside Python's lock.

What lives here: streaming one body in or out of a registry, with redirects and stall limits (httpx parses each
64 KiB in Python: three times the processor time). What must not: manifests, lists and what they mean.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import httpx
import urllib3

from harbor_satellite.errors import DigestMismatchError, HarborSatelliteError, RemoteError, StorageError
from harbor_satellite.registry.api import CHUNK_BYTES
from harbor_satellite.registry.client_api import REDIRECTS, USER_AGENT
from harbor_satellite.registry.client_errors import ERROR_BODY_MAX_BYTES, refusal, unreachable
from harbor_satellite.registry.client_headers import content_length
from harbor_satellite.registry.client_urls import MAX_REDIRECTS, follow, same_origin
from harbor_satellite.registry.connection_pool import WRITE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from types import TracebackType

    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.registry.client_api import ApiTransport, Timeouts
    from harbor_satellite.registry.connection_pool import ConnectionPool

_THROTTLED_BYTES: Final = 64 * 1024  # bytes


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
            while chunk := self._response.read1(self._transport.chunk_bytes):
                count += len(chunk)
                try:
                    self._transport.api.meter.read(len(chunk))
                except HarborSatelliteError:
                    yield chunk  # it has arrived: whoever keeps parts of blobs need not fetch it again
                    raise
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

    def drain(self) -> None:
        """Read a body that says nothing, such as a redirect's, so that its connection serves the next request."""
        with suppress(urllib3.exceptions.HTTPError, OSError):
            self._response.read(ERROR_BODY_MAX_BYTES)
        self.close()

    def finish(self) -> None:
        """Let the connection serve the next request, if this answer has no body."""
        if content_length(self.headers, -1) == 0:
            self.drain()

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
        pool: connections, shared with the API.
        timeouts: limits of each step; none on a body as a whole.
        receive_buffer_bytes: the most that is read at once, if it is small; None: no limit.
    """

    def __init__(
        self,
        api: ApiTransport,
        pool: ConnectionPool,
        timeouts: Timeouts,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        self.api = api
        # A throttle that sees small pieces makes an even stream of them.
        self.chunk_bytes = min(receive_buffer_bytes, _THROTTLED_BYTES) if receive_buffer_bytes else CHUNK_BYTES
        self._pool = pool
        self._read_timeout, self._write_timeout = timeouts.of_read(), timeouts.of_write(timeouts.commit)

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
            response.drain()
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

    def _metered(self, pieces: Iterable[memoryview]) -> Iterator[Any]:
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
        response.drain()
        return self._request(call, url, better)

    def _request(
        self,
        call: BlobCall,
        url: httpx.URL,
        authorization: str | None,
        body: Iterator[Any] | None = None,  # any buffer can be sent; urllib3's types know of bytes alone
        size: int = 0,
    ) -> BlobResponse:
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **call.headers}
        if authorization:
            headers["Authorization"] = authorization
        if body is not None:
            headers["Content-Length"] = str(size)
        self.api.meter.requested()
        try:
            timeout = self._read_timeout if body is None else self._write_timeout
            response = self._pool.send(call.method, url, headers, timeout, body)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(call.what, error) from error
        return BlobResponse(call.what, response, self)


def _verified(what: str, descriptor: Descriptor, chunks: Iterable[bytes]) -> Iterator[memoryview]:
    """Pass chunks on in small pieces; the last one only once all of them are known to be right."""
    hasher = descriptor.digest.hasher()
    held = memoryview(b"")
    size = 0
    for chunk in _readable(what, chunks):
        hasher.update(chunk)
        size += len(chunk)
        if size > descriptor.size:
            raise DigestMismatchError(f"{what}: more than the {descriptor.size} bytes it must have")
        for start in range(0, len(chunk), WRITE_BYTES):
            if held:
                yield held
            held = memoryview(chunk)[start : start + WRITE_BYTES]
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
