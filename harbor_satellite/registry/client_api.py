"""One HTTP request to a registry and its whole, capped answer: everything but the bodies of blobs.

What lives here: authorization, redirects, limits and error mapping. What must not: what any answer means.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import httpx
import urllib3

from harbor_satellite.errors import RemoteError, SizeLimitError, UntrustedDataError
from harbor_satellite.oci.reference import check_repository
from harbor_satellite.registry.auth import AUTH_RESPONSE_MAX_BYTES, Authorizer, TokenReply
from harbor_satellite.registry.client_errors import ERROR_BODY_MAX_BYTES, refusal, unreachable
from harbor_satellite.registry.client_headers import content_length
from harbor_satellite.registry.client_urls import MAX_REDIRECTS, follow, same_origin
from harbor_satellite.registry.connection_pool import pieces_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from harbor_satellite.registry.auth import Credentials, TokenRequest
    from harbor_satellite.registry.client_meter import Meter
    from harbor_satellite.registry.client_urls import RegistryAddress
    from harbor_satellite.registry.connection_pool import Answer, Connections

_log = logging.getLogger(__name__)

USER_AGENT: Final = "harbor-satellite"
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_READ_BYTES: Final = 64 * 1024  # bytes
_BODY_DEADLINE_SECONDS: Final = 300.0  # for one answer of a few MiB; stops a peer that drips


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long one step of a request may take, in seconds; there is no limit on a blob as a whole."""

    connect: float = 10.0
    """Seconds until a connection stands, TLS included."""
    read: float = 30.0
    """Seconds without a byte from the registry."""
    write: float = 30.0
    """Seconds without the registry taking a piece of at most 128 KiB."""
    commit: float = 300.0
    """Seconds a registry may take to store a blob that it has received: some hash or move it again."""

    def of_read(self) -> urllib3.Timeout:
        """Return the limits of a request without a body."""
        return urllib3.Timeout(connect=self.connect, read=self.read)

    def of_write(self, answer: float) -> urllib3.Timeout:
        """Return the limits of a request with a body, whose answer may take so many seconds."""
        # urllib3 sends a body under the connect timeout.
        return urllib3.Timeout(connect=max(self.connect, self.write), read=answer)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: what for, where to, with which rights."""

    what: str
    """Verb, thing and registry, for messages: ``"pull manifest acme/app:1 from harbor.example"``."""
    method: str
    url: httpx.URL
    scopes: frozenset[str]
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    content: bytes = b""
    max_bytes: int = ERROR_BODY_MAX_BYTES
    """The most that a body of a 2xx answer may hold."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with its whole body."""

    status: int
    headers: httpx.Headers
    body: bytes
    url: httpx.URL
    """Where it came from, after redirects."""

    def refused(self, what: str) -> RemoteError:
        """Return the error for an answer that is not what was asked for."""
        return refusal(what, self.status, self.headers, self.body)


class ApiTransport:
    """Sends calls to one registry with the right ``Authorization`` and returns whole, capped answers.

    Args:
        address: the registry.
        credentials: None to go without.
        timeouts: limits of each step.
        meter: counts requests and bytes.
        connections: what to send over.
    """

    def __init__(
        self,
        address: RegistryAddress,
        *,
        credentials: Credentials | None,
        timeouts: Timeouts,
        meter: Meter,
        connections: Connections,
    ) -> None:
        self.address = address
        self._base = str(address.url).rstrip("/")
        self.meter = meter
        self.authorizer = Authorizer(address.url, credentials, self._fetch_token)
        self._ask_lock = threading.Lock()
        self._connections = connections
        self._read_timeout, self._write_timeout = timeouts.of_read(), timeouts.of_write(timeouts.read)

    def authorization(self, url: httpx.URL, scopes: frozenset[str]) -> str | None:
        """Return the ``Authorization`` for a request; always None for another host than the registry's."""
        if not same_origin(url, self.address.url):
            return None
        with self._ask_lock:
            if self.authorizer.should_ask:
                self._ask()
        return self.authorizer.authorization(scopes)

    def url(self, repository: str, path: str) -> httpx.URL:
        """Return the address of something in a repository, such as ``tags/list``.

        Raises:
            InvalidInputError: not a repository's name.
        """
        return httpx.URL(f"{self._base}/v2/{check_repository(repository)}/{path}")  # a third of join()'s time

    def send(self, call: Call) -> Reply:
        """Send a call once, once more if a better ``Authorization`` can be had, and follow redirects of reads.

        Returns:
            The answer, whatever its status.

        Raises:
            RemoteError: no whole answer, or a redirect that is not followed.
            SizeLimitError: the body of a 2xx answer is larger than the call allows.
        """
        url = call.url
        for _ in range(MAX_REDIRECTS + 1):
            reply = self._send_authorized(call, url)
            if reply.status not in REDIRECTS or "location" not in reply.headers:
                return reply
            if call.method not in ("GET", "HEAD"):
                message = f"{call.what}: {url.host} redirects a {call.method}; not followed"
                raise RemoteError(message, status=reply.status)
            url = follow(url, reply.headers["location"], call.what)
        raise RemoteError(f"{call.what}: more than {MAX_REDIRECTS} redirects")

    def _ask(self) -> None:
        """Learn by ``GET /v2/`` how the registry wants to be authenticated to."""
        what = f"ask {self.address.name} for its API"
        call = Call(what, "GET", self.address.url.join("/v2/"), frozenset())
        reply = self._exchange(call, call.url, None)
        if reply.status >= httpx.codes.INTERNAL_SERVER_ERROR or reply.status == httpx.codes.TOO_MANY_REQUESTS:
            raise reply.refused(what)
        self.authorizer.learn(reply.headers.get_list("www-authenticate"))

    def _send_authorized(self, call: Call, url: httpx.URL) -> Reply:
        authorization = self.authorization(url, call.scopes)
        reply = self._exchange(call, url, authorization)
        if reply.status != httpx.codes.UNAUTHORIZED or not same_origin(url, self.address.url):
            return reply
        challenges = reply.headers.get_list("www-authenticate")
        better = self.authorizer.after_refusal(challenges, call.scopes, authorization)
        return reply if better is None else self._exchange(call, url, better)

    def _fetch_token(self, request: TokenRequest) -> TokenReply:
        what = f"get a token for {self.address.name} from {request.url.host}"
        call = Call(what, "GET", request.url, frozenset(), max_bytes=AUTH_RESPONSE_MAX_BYTES)
        reply = self._exchange(call, request.url, request.authorization)
        return TokenReply(reply.status, reply.headers, reply.body)

    def _exchange(self, call: Call, url: httpx.URL, authorization: str | None) -> Reply:
        # identity: a manifest's digest is of the bytes as they are stored.
        headers = {"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity", **call.headers}
        timeout = self._read_timeout
        if authorization:
            headers["Authorization"] = authorization
        if call.content:
            headers["Content-Length"] = str(len(call.content))
            timeout = self._write_timeout
        self.meter.requested()
        try:
            with closing(self._connections.send(call.method, url, headers, timeout, pieces_of(call.content))) as answer:
                self.meter.wrote(len(call.content))
                reply_headers = httpx.Headers(list(answer.headers.items()))
                body = self._read(answer, reply_headers, call)
                _log.debug("%s status=%d bytes=%d", call.what, answer.status, len(body))
                return Reply(answer.status, reply_headers, body, url)
        except (httpx.HTTPError, urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(call.what, error) from error

    def _read(self, answer: Answer, headers: httpx.Headers, call: Call) -> bytes:
        if call.method == "HEAD":
            answer.read1(1)  # nothing; then its connection serves the next request
            return b""
        is_success = httpx.codes.is_success(answer.status)
        limit = call.max_bytes if is_success else ERROR_BODY_MAX_BYTES
        if headers.get("content-encoding", "identity").lower() != "identity":
            if is_success:
                raise UntrustedDataError(f"{call.what}: the answer is compressed though that was not accepted")
            return b""
        if is_success and content_length(headers, 0) > limit:
            raise SizeLimitError(f"{call.what}: the answer is larger than {limit} bytes")
        deadline = time.monotonic() + _BODY_DEADLINE_SECONDS
        pieces: list[bytes] = []
        size = 0
        # Whatever has arrived: a peer that drips must not hold up the look at the clock.
        while piece := answer.read1(_READ_BYTES):
            self.meter.read(len(piece))
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                if is_success:
                    raise SizeLimitError(f"{call.what}: the answer is larger than {limit} bytes")
                break
            if time.monotonic() > deadline:
                raise RemoteError(f"{call.what}: no whole answer in {_BODY_DEADLINE_SECONDS:.0f} s", retryable=True)
        return b"".join(pieces)
