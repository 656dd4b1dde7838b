"""Blobs over HTTP (distribution-spec, "Pulling blobs", "Pushing Blobs").

What lives here: upload sessions, mounts, ranges and what their answers mean. What must not: manifests, sockets, tokens.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import httpx

from harbor_satellite.errors import HarborSatelliteError, InvalidInputError, RemoteError
from harbor_satellite.registry.auth import repository_scope
from harbor_satellite.registry.blob_transport import BlobCall
from harbor_satellite.registry.client_api import Call
from harbor_satellite.registry.client_headers import check_digest_header, content_length
from harbor_satellite.registry.client_manifests import was_deleted
from harbor_satellite.registry.client_urls import follow, parse_content_range

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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

    def put(self, repository: str, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob; nothing is kept unless the bytes match digest and size."""
        what = self._what("push blob", repository, descriptor.digest)
        scopes = frozenset({repository_scope(repository, "pull,push")})
        url = self._api.url(repository, "blobs/uploads/")
        if descriptor.digest.algorithm != "sha256":
            url = url.copy_add_param("digest-algorithm", descriptor.digest.algorithm)
        call = Call(what, "POST", url, scopes)
        reply = self._api.send(call)
        if reply.status != httpx.codes.ACCEPTED:
            raise reply.refused(what)
        session = _session(url, reply.headers.get("location"), what)
        # copy_add_param keeps the session's own query (distribution's _state), which httpx's params= would drop.
        target = session.copy_add_param("digest", str(descriptor.digest))
        put = BlobCall(what, "PUT", target, scopes, {"Content-Type": "application/octet-stream"})
        try:
            with self._bodies.put(put, descriptor, chunks) as response:
                if response.status != httpx.codes.CREATED:
                    raise response.refused()
                check_digest_header(response.headers, descriptor.digest, what)
        except HarborSatelliteError:
            self._cancel(repository, session)
            raise

    def mount(self, repository: str, digest: Digest, from_repository: str) -> bool:
        """Make a blob of another repository available in this one; False if that cannot be."""
        what = self._what("mount blob", repository, digest)
        self._api.url(from_repository, "")  # refuses what is no repository
        url = self._api.url(repository, "blobs/uploads/")
        url = url.copy_add_param("mount", str(digest)).copy_add_param("from", from_repository)
        scopes = frozenset({repository_scope(repository, "pull,push"), repository_scope(from_repository, "pull")})
        try:
            reply = self._api.send(Call(what, "POST", url, scopes))
        except RemoteError as error:
            # The token service may refuse a token for both repositories.
            if error.status in _NO_MOUNT:
                return False
            raise
        if reply.status == httpx.codes.CREATED:
            check_digest_header(reply.headers, digest, what)
            return True
        if reply.status == httpx.codes.ACCEPTED:
            # distribution-spec, "Mounting a blob": 202 has opened an upload, which nobody will use.
            self._cancel(repository, _session(url, reply.headers.get("location"), what))
            return False
        if reply.status in _NO_MOUNT:
            return False
        raise reply.refused(what)

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

    def _cancel(self, repository: str, session: httpx.URL) -> None:
        """Tell the registry that an upload is given up, so that it need not keep what it has until it notices."""
        what = f"cancel upload to {self._api.address.name}/{repository}"
        try:
            self._api.send(Call(what, "DELETE", session, frozenset({repository_scope(repository, "pull,push")})))
        except HarborSatelliteError as error:
            _log.debug("%s failed: %s", what, error)

    def _call(self, verb: str, method: str, repository: str, digest: Digest, actions: str) -> Call:
        return Call(
            self._what(verb, repository, digest),
            method,
            self._api.url(repository, f"blobs/{digest}"),
            frozenset({repository_scope(repository, actions)}),
        )

    def _what(self, verb: str, repository: str, digest: Digest) -> str:
        return f"{verb} {self._api.address.name}/{repository}@{digest}"


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
