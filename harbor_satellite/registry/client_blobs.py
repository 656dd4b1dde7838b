"""Blobs over HTTP (distribution-spec, "Pulling blobs", "Pushing Blobs").

What lives here: upload sessions, mounts, ranges and what their answers mean. What must not: manifests, sockets, tokens.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self

import httpx

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, RemoteError
from harbor_satellite.oci.reference import check_repository
from harbor_satellite.registry.auth import repository_scope
from harbor_satellite.registry.blob_transport import BlobCall
from harbor_satellite.registry.client_api import Call
from harbor_satellite.registry.client_headers import check_digest_header, content_length
from harbor_satellite.registry.client_manifests import was_deleted
from harbor_satellite.registry.client_urls import follow, parse_content_range

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.blob_transport import BlobResponse, BlobTransport
    from harbor_satellite.registry.client_api import ApiTransport

_log = logging.getLogger(__name__)

# A mount saves bytes and nothing depends on it: where it is refused, the upload that follows says why, if it must.
_NO_MOUNT: Final = frozenset(
    {
        httpx.codes.UNAUTHORIZED,
        httpx.codes.FORBIDDEN,
        httpx.codes.NOT_FOUND,
        httpx.codes.METHOD_NOT_ALLOWED,
    }
)
# 206 with other bytes than asked for, or 416: the whole blob can still be had.
_RANGE_REFUSED: Final = frozenset({httpx.codes.PARTIAL_CONTENT, httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE})


class HttpBlobStream:
    """A blob's bytes on their way from a registry; iterate once.

    Args:
        offset: where in the blob the first chunk stands, in bytes.
        chunks: the bytes.
    """

    def __init__(self, offset: int, chunks: Iterator[bytes]) -> None:
        self._offset = offset
        self._chunks = chunks

    @property
    def offset(self) -> int:
        """Where in the blob the first chunk stands (bytes); 0 if the registry ignored the asked offset."""
        return self._offset

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes as they arrive, in chunks of at most ``CHUNK_BYTES``."""
        return self._chunks


class Blobs:
    """The blobs of one registry; each method is that of ``Registry`` without its prefix.

    Args:
        api: how to ask the registry.
        bodies: how to move a blob's body.
    """

    def __init__(self, api: ApiTransport, bodies: BlobTransport) -> None:
        self._api = api
        self._bodies = bodies

    def head(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes, or None if it is not there."""
        call = self._call("look up blob", "HEAD", repository, digest, "pull")
        reply = self._api.send(call)
        if reply.status == httpx.codes.NOT_FOUND:
            return None
        if reply.status != httpx.codes.OK:
            raise reply.refused(call.what)
        size = content_length(reply.headers, -1)
        if size < 0:
            raise RemoteError(f"{call.what}: the registry does not say how large it is", status=reply.status)
        return size

    @contextmanager
    def get(self, repository: str, digest: Digest, offset: int, size: int | None) -> Iterator[HttpBlobStream]:
        """Open a blob's bytes from ``offset``; ``size`` saves asking for it."""
        if offset < 0:
            raise InvalidInputError(f"offset in blob {digest} is below zero: {offset}")
        if offset and size is None:
            size = self.head(repository, digest)
            if size is None:
                what = self._what("pull blob", repository, digest)
                raise RemoteError(f"{what}: not there", status=httpx.codes.NOT_FOUND)
        if offset and offset == size:
            yield HttpBlobStream(offset, iter(()))
            return
        # More than the whole is at hand: it cannot be a part of this blob, so start over.
        start = offset if size is None or offset < size else 0
        response, start = self._open(repository, digest, start, size)
        with response:
            yield HttpBlobStream(start, response.chunks(_expected(response, start, size)))

    def put(
        self, repository: str, descriptor: Descriptor, chunks: Iterable[bytes], session: httpx.URL | None = None
    ) -> None:
        """Store a blob, in an upload session that is open already or a new one."""
        what = self._what("push blob", repository, descriptor.digest)
        scopes = frozenset({repository_scope(repository, "pull,push")})
        if session is None:
            algorithm = descriptor.digest.algorithm
            query = "" if algorithm == "sha256" else f"?digest-algorithm={algorithm}"
            call = Call(what, "POST", self._api.url(repository, f"blobs/uploads/{query}"), scopes)
            reply = self._api.send(call)
            if reply.status != httpx.codes.ACCEPTED:
                raise reply.refused(what)
            session = _session(call.url, reply.headers.get("location"), what)
        # Added to the session's own query (distribution's _state), which stays as the registry wrote it.
        target = httpx.URL(f"{session}{'&' if session.query else '?'}digest={descriptor.digest}")
        put = BlobCall(what, "PUT", target, scopes, {"Content-Type": "application/octet-stream"})
        try:
            with self._bodies.put(put, descriptor, chunks) as response:
                if response.status != httpx.codes.CREATED:
                    raise response.refused()
                check_digest_header(response.headers, descriptor.digest, what)
                response.finish()
        except HarborSatelliteError:
            self.cancel(repository, session)
            raise

    def mount(self, repository: str, digest: Digest, from_repository: str) -> bool:
        """Make a blob of another repository available in this one; False if that cannot be."""
        session = self._mount(repository, digest, from_repository)
        if isinstance(session, bool):
            return session
        self.cancel(repository, session)
        return False

    def upload(self, repository: str, digest: Digest) -> Upload | None:
        """Open an upload unless the blob is there; None if it is, or if only ``head`` can tell."""
        # A mount from the repository into itself: one request says what HEAD and POST would say in two.
        session = self._mount(repository, digest, repository)
        return None if isinstance(session, bool) else Upload(self, repository, session)

    def _mount(self, repository: str, digest: Digest, from_repository: str) -> httpx.URL | bool:
        """Ask for a mount: True if it was done, False if it is refused, or the upload that was opened instead."""
        what = self._what("mount blob", repository, digest)
        check_repository(from_repository)
        url = self._api.url(repository, f"blobs/uploads/?mount={digest}&from={from_repository}")
        scopes = {repository_scope(repository, "pull,push")}
        if from_repository != repository:
            scopes.add(repository_scope(from_repository, "pull"))
        try:
            reply = self._api.send(Call(what, "POST", url, frozenset(scopes)))
        except RemoteError as error:
            # The token service may refuse a token for both repositories.
            if error.status in _NO_MOUNT:
                return False
            raise
        if reply.status == httpx.codes.CREATED:
            check_digest_header(reply.headers, digest, what)
            return True
        if reply.status == httpx.codes.ACCEPTED:
            # distribution-spec, "Mounting a blob": 202 has opened an upload.
            return _session(url, reply.headers.get("location"), what)
        if reply.status in _NO_MOUNT:
            return False
        raise reply.refused(what)

    def cancel(self, repository: str, session: httpx.URL) -> None:
        """Tell the registry that an upload is given up, so that it need not keep what it has until it notices."""
        what = f"cancel upload to {self._api.address.name}/{repository}"
        try:
            self._api.send(Call(what, "DELETE", session, frozenset({repository_scope(repository, "pull,push")})))
        except HarborSatelliteError as error:
            _log.debug("%s failed: %s", what, error)

    def delete(self, repository: str, digest: Digest) -> bool:
        """Delete a blob from one repository; False if it was not there."""
        call = self._call("delete blob", "DELETE", repository, digest, "delete")
        return was_deleted(self._api.send(call), call.what)

    def _open(self, repository: str, digest: Digest, offset: int, size: int | None) -> tuple[BlobResponse, int]:
        """Return an answer with bytes to come, and where in the blob they start."""
        what = self._what("pull blob", repository, digest)
        url = self._api.url(repository, f"blobs/{digest}")
        scopes = frozenset({repository_scope(repository, "pull")})
        if offset and size is not None:
            # Closed: go-containerregistry's registry answers 416 to "bytes=N-".
            ranged = BlobCall(what, "GET", url, scopes, {"Range": f"bytes={offset}-{size - 1}"})
            response = self._bodies.open(ranged)
            if response.status == httpx.codes.PARTIAL_CONTENT and _is_wanted(response, offset, size):
                return response, offset
            if response.status == httpx.codes.OK:
                return response, 0
            with response:
                if response.status not in _RANGE_REFUSED:
                    raise response.refused()
            _log.debug("%s: range refused status=%d offset=%d", what, response.status, offset)
        response = self._bodies.open(BlobCall(what, "GET", url, scopes))
        if response.status != httpx.codes.OK:
            with response:
                raise response.refused()
        return response, 0

    def _call(self, verb: str, method: str, repository: str, digest: Digest, actions: str) -> Call:
        return Call(
            self._what(verb, repository, digest),
            method,
            self._api.url(repository, f"blobs/{digest}"),
            frozenset({repository_scope(repository, actions)}),
        )

    def _what(self, verb: str, repository: str, digest: Digest) -> str:
        return f"{verb} {self._api.address.name}/{repository}@{digest}"


class Upload:
    """An upload that a registry has opened for one blob; given up at the end of its block if nothing was put.

    Args:
        blobs: of which registry.
        repository: where the blob is to be.
        session: where the registry takes it.
    """

    def __init__(self, blobs: Blobs, repository: str, session: httpx.URL) -> None:
        self._blobs = blobs
        self._repository = repository
        self._session: httpx.URL | None = session

    def put(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store the blob, as ``Registry.blob_put``; a second time in an upload of its own."""
        session, self._session = self._session, None
        self._blobs.put(self._repository, descriptor, chunks, session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None and (kind is None or issubclass(kind, HarborSatelliteError)):
            self._blobs.cancel(self._repository, self._session)


def _session(base: httpx.URL, location: str | None, what: str) -> httpx.URL:
    if not location:
        raise RemoteError(f"{what}: the registry opened an upload but does not say where")
    return follow(base, location, what)


def _is_wanted(response: BlobResponse, offset: int, size: int) -> bool:
    got = parse_content_range(response.headers.get("content-range") or "")
    # A server may send less than asked (RFC 9110, 15.3.7); the stream then ends early and is resumed.
    return got is not None and got.first == offset and (got.last or 0) < size and got.size in (None, size)


def _expected(response: BlobResponse, start: int, size: int | None) -> int | None:
    if size is not None and start:
        return size - start
    length = content_length(response.headers, -1)
    return length if length >= 0 else size
