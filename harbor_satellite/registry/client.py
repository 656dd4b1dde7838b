"""``Registry`` over HTTP (OCI distribution-spec), synchronous and safe to use from many threads.

What lives here: one registry as one object. What must not: how anything is asked (``client_manifests``,
``client_blobs``), sent (``client_api``, ``blob_transport``) or authorized (``auth``), or any second try.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from harbor_satellite.registry.auth import CATALOG_SCOPE, repository_scope
from harbor_satellite.registry.blob_transport import BlobTransport
from harbor_satellite.registry.client_api import ApiTransport, Call, Timeouts
from harbor_satellite.registry.client_blobs import Blobs
from harbor_satellite.registry.client_listing import PAGE_MAX_BYTES, PAGE_SIZE, name_list
from harbor_satellite.registry.client_logs import hide_queries
from harbor_satellite.registry.client_manifests import Manifests
from harbor_satellite.registry.client_meter import Meter
from harbor_satellite.registry.client_urls import parse_address
from harbor_satellite.registry.connection_pool import ConnectionPool, TransportConnections
from harbor_satellite.registry.tls import lazy_tls_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from types import TracebackType

    import httpx

    from harbor_satellite.oci.descriptor import Descriptor
    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.registry.api import BlobStream, ManifestContent
    from harbor_satellite.registry.auth import Credentials
    from harbor_satellite.registry.client_blobs import Upload
    from harbor_satellite.registry.client_meter import Counters


class HttpRegistry:
    """One registry, spoken to over HTTP; close it, or use it as a context manager.

    Args:
        url_or_host: ``http://host:port``, ``https://host`` or a bare ``host[:port]``: plain HTTP for a loopback
            host, HTTPS for any other; ``docker.io`` is Docker Hub.
        credentials: None to go without (anonymous tokens are still fetched where a registry wants them).
        verify: True, False to accept any certificate, or a CA file to trust besides the usual authorities.
        plain_http: what a bare host is spoken to over; None to decide by the host.
        timeouts: limits of each step of a request, in seconds.
        on_read: told the count of each piece of a body as it is read, from any thread; what it raises ends the read.
            Such a piece has arrived: a blob's stream still gives it out before it raises.
        receive_buffer_bytes: what the system may take in beyond what was read, for each connection, and the most that
            is read at once; set it where ``on_read`` holds reads back, so that the link feels it. None: no limit.
        transport: takes the network's place in tests, for everything but the bodies of blobs.

    Raises:
        InvalidInputError: the address or the CA file is wrong.
    """

    def __init__(
        self,
        url_or_host: str,
        *,
        credentials: Credentials | None = None,
        verify: bool | str = True,
        plain_http: bool | None = None,
        timeouts: Timeouts | None = None,
        on_read: Callable[[int], None] | None = None,
        receive_buffer_bytes: int | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        hide_queries()
        limits = timeouts or Timeouts()
        self._pool = ConnectionPool(lazy_tls_context(verify), receive_buffer_bytes)
        self._meter = Meter(on_read)
        self._api = ApiTransport(
            parse_address(url_or_host, plain_http=plain_http),
            credentials=credentials,
            timeouts=limits,
            meter=self._meter,
            connections=TransportConnections(transport) if transport else self._pool,
        )
        self._bodies = BlobTransport(self._api, self._pool, limits, receive_buffer_bytes)
        self._manifests = Manifests(self._api)
        self._blobs = Blobs(self._api, self._bodies)

    @property
    def name(self) -> str:
        """How messages and references name it: ``host[:port]``."""
        return self._api.address.name

    @property
    def counters(self) -> Counters:
        """Requests sent and bytes of bodies moved so far; a snapshot."""
        return self._meter.counters

    @property
    def on_read(self) -> Callable[[int], None] | None:
        """Told the count of each piece of a body as it is read; may be replaced, as a client outlives one run."""
        return self._meter.on_read

    @on_read.setter
    def on_read(self, listener: Callable[[int], None] | None) -> None:
        self._meter.on_read = listener

    def manifest_head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest names, or None if it is not there.

        One HEAD; a registry whose headers do not say everything is asked for the manifest itself.

        Raises:
            RemoteError: the registry refuses or cannot be reached.
            DigestMismatchError: the registry names it by another digest than it was asked for.
        """
        return self._manifests.head(repository, reference)

    def manifest_get(self, repository: str, reference: str) -> ManifestContent:
        """Return a manifest's exact bytes; verified if ``reference`` is a digest.

        Raises:
            RemoteError: ``.status == 404`` if it is not there.
            DigestMismatchError: the bytes are not what the digest promises.
            SizeLimitError: more than 4 MiB.
        """
        return self._manifests.get(repository, reference)

    def manifest_put(self, repository: str, reference: str, content: ManifestContent) -> None:
        """Store a manifest under a tag or its own digest; a ``subject`` gets its referrer listed.

        Raises:
            RemoteError: the registry refuses or cannot be reached.
            DigestMismatchError: the bytes are not what the reference promises, or the registry stored others.
        """
        self._manifests.put(repository, reference, content)

    def manifest_delete(self, repository: str, reference: str) -> bool:
        """Delete a tag, or a manifest by digest with every tag on it; False if it was not there.

        A referrers tag that names it is left as it is.

        Raises:
            RemoteError: the registry refuses (405 where it does not allow to delete) or cannot be reached.
        """
        return self._manifests.delete(repository, reference)

    def blob_head(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes, or None if it is not there.

        Raises:
            RemoteError: the registry refuses or cannot be reached.
        """
        return self._blobs.head(repository, digest)

    def blob_get(
        self, repository: str, digest: Digest, offset: int = 0, *, size: int | None = None
    ) -> AbstractContextManager[BlobStream]:
        """Open a blob's bytes from ``offset``; the bytes are *not* verified here.

        Args:
            repository: where it is.
            digest: which blob.
            offset: bytes already at hand; the stream's own ``offset`` tells whether the registry went along.
            size: of the whole blob in bytes, if known: saves a HEAD where ``offset`` is above zero.

        Raises:
            RemoteError: the registry refuses or cannot be reached; while iterating, retryable, if the body ends early.
        """
        return self._blobs.get(repository, digest, offset, size)

    def blob_put(self, repository: str, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob; nothing is kept unless the bytes match digest and size.

        One upload session and one streamed PUT, whose end is sent only once all bytes are known to be right.

        Raises:
            DigestMismatchError: the chunks are not what the descriptor promises.
            RemoteError: the registry refuses or cannot be reached.
            StorageError: iterating the chunks failed with an ``OSError``.
        """
        self._blobs.put(repository, descriptor, chunks)

    def blob_mount(self, repository: str, digest: Digest, from_repository: str) -> bool:
        """Make a blob of another repository available in this one without moving bytes; False if that cannot be.

        Raises:
            RemoteError: the registry fails or cannot be reached.
        """
        return self._blobs.mount(repository, digest, from_repository)

    def blob_upload(self, repository: str, digest: Digest) -> Upload | None:
        """Open an upload unless the blob is there: one request for what ``blob_head`` and ``blob_put`` ask in two.

        Returns:
            The upload, to be used as a context manager; None if the blob is there, or if only ``blob_head`` can tell.

        Raises:
            RemoteError: the registry fails or cannot be reached.
        """
        return self._blobs.upload(repository, digest)

    def blob_delete(self, repository: str, digest: Digest) -> bool:
        """Delete a blob from one repository; False if it was not there.

        Raises:
            RemoteError: the registry refuses (405 where it does not allow to delete) or cannot be reached.
        """
        return self._blobs.delete(repository, digest)

    def tag_list(self, repository: str) -> tuple[str, ...]:
        """Return every tag, sorted; empty for an unknown repository.

        Raises:
            RemoteError: the registry refuses or cannot be reached.
            UntrustedDataError: it sends something else than a list of tags.
        """
        call = Call(
            f"list tags of {self.name}/{repository}",
            "GET",
            self._api.url(repository, f"tags/list?n={PAGE_SIZE}"),
            frozenset({repository_scope(repository, "pull")}),
            max_bytes=PAGE_MAX_BYTES,
        )
        return name_list(self._api.send, call, "tags")

    def repository_list(self) -> tuple[str, ...]:
        """Return every repository that holds something, sorted; empty where a registry has no catalog.

        Raises:
            RemoteError: the registry refuses or cannot be reached.
            UntrustedDataError: it sends something else than a list of repositories.
        """
        call = Call(
            f"list repositories of {self.name}",
            "GET",
            self._api.address.url.join(f"/v2/_catalog?n={PAGE_SIZE}"),
            frozenset({CATALOG_SCOPE}),
            max_bytes=PAGE_MAX_BYTES,
        )
        return name_list(self._api.send, call, "repositories")

    def referrer_list(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the manifests whose ``subject`` is this digest; falls back to the referrers tag.

        Raises:
            RemoteError: the registry refuses or cannot be reached.
            UntrustedDataError: it sends something else than an image index.
        """
        return self._manifests.referrers(repository, digest)

    def close(self) -> None:
        """Close every connection; a stream still open ends with an error."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
