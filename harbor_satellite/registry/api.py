"""The one protocol of every registry backend. What lives here: the words they share. What must not: any I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from harbor_satellite.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from harbor_satellite.oci.descriptor import Descriptor

CHUNK_BYTES: Final = 1024 * 1024  # bytes; large reads keep hashing and the socket outside Python's lock


@dataclass(frozen=True, slots=True)
class ManifestContent:
    """A manifest's exact bytes, with the kind they were sent as."""

    media_type: str
    raw: bytes

    @property
    def digest(self) -> Digest:
        """The sha256 digest of the bytes; computed, never taken from a header."""
        return Digest.of(self.raw)


class BlobStream(Protocol):
    """A blob's bytes on their way; iterate once."""

    @property
    def offset(self) -> int:
        """Where in the blob the first chunk stands (bytes); 0 if the registry ignored the asked offset."""
        ...

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes in chunks of at most ``CHUNK_BYTES``."""
        ...


class Registry(Protocol):
    """What copying needs of a registry; method names are the field's (distribution-spec, regclient).

    Every method raises ``RemoteError`` (``.status``, ``.retryable``) when the registry refuses or cannot be
    reached, ``UntrustedDataError`` when it sends what it must not, and ``StorageError`` when a local disk fails.
    """

    @property
    def name(self) -> str:
        """How messages and references name it: ``host[:port]``."""
        ...

    def manifest_head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest names, or None if it is not there."""
        ...

    def manifest_get(self, repository: str, reference: str) -> ManifestContent:
        """Return a manifest's exact bytes; verified if ``reference`` is a digest.

        Raises:
            RemoteError: ``.status == 404`` if it is not there.
            DigestMismatchError: the bytes are not what the digest promises.
            SizeLimitError: more than 4 MiB.
        """
        ...

    def manifest_put(self, repository: str, reference: str, content: ManifestContent) -> None:
        """Store a manifest under a tag or its own digest; a ``subject`` gets its referrer listed."""
        ...

    def manifest_delete(self, repository: str, reference: str) -> bool:
        """Delete a tag, or a manifest by digest with every tag on it; False if it was not there."""
        ...

    def blob_head(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes, or None if it is not there."""
        ...

    def blob_get(self, repository: str, digest: Digest, offset: int = 0) -> AbstractContextManager[BlobStream]:
        """Open a blob's bytes from ``offset``; the bytes are *not* verified here."""
        ...

    def blob_put(self, repository: str, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob; nothing is kept unless the bytes match digest and size.

        Raises:
            DigestMismatchError: the chunks are not what the descriptor promises.
        """
        ...

    def blob_mount(self, repository: str, digest: Digest, from_repository: str) -> bool:
        """Make a blob of another repository available in this one without moving bytes; False if that cannot be."""
        ...

    def blob_delete(self, repository: str, digest: Digest) -> bool:
        """Delete a blob from one repository; False if it was not there."""
        ...

    def tag_list(self, repository: str) -> tuple[str, ...]:
        """Return every tag, sorted; empty for an unknown repository."""
        ...

    def repository_list(self) -> tuple[str, ...]:
        """Return every repository that holds something, sorted."""
        ...

    def referrer_list(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the manifests whose ``subject`` is this digest; falls back to the referrers tag."""
        ...
