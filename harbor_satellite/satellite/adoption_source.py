"""The registry that is being left, as a source to copy from: only read, and with what only it knows.

A sparse index has children that are no manifests there but blobs, and an error of this registry must be told from one
of the registry that takes over.
"""

# ruff: noqa: ARG002  (the protocol's words; who is only read has no use for some)
from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from harbor_satellite.errors import RemoteError, SizeLimitError
from harbor_satellite.oci.descriptor import MANIFEST_MAX_BYTES, Descriptor, parse_manifest
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from harbor_satellite.registry.api import BlobStream, Registry

_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405


class LeftRegistryError(RemoteError):
    """The registry that is being left refused, or could not be reached."""


class LeftRegistry:
    """Reads from the registry that is being left; the caller closes that."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    @property
    def name(self) -> str:
        """How messages name it."""
        return self._registry.name

    def manifest_head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest names, or None if it is not there."""
        with _marked():
            return self._registry.manifest_head(repository, reference)

    def manifest_get(self, repository: str, reference: str) -> ManifestContent:
        """Return a manifest's exact bytes, though it be kept as a blob, as a sparse index's absent children are."""
        with _marked():
            try:
                return self._registry.manifest_get(repository, reference)
            except RemoteError as error:
                if error.status != _NOT_FOUND or ":" not in reference:
                    raise
                digest = Digest.parse(reference)
                size = self._registry.blob_head(repository, digest)
                if size is None:
                    raise
            return self._manifest_blob(repository, digest, size)

    def _manifest_blob(self, repository: str, digest: Digest, size: int) -> ManifestContent:
        what = f"{self.name}/{repository}@{digest}"
        if size > MANIFEST_MAX_BYTES:
            raise SizeLimitError(f"{what} is no manifest: it has {size} bytes")
        raw = b""
        with self._registry.blob_get(repository, digest) as stream:
            for chunk in stream:
                raw += chunk
                if len(raw) > MANIFEST_MAX_BYTES:
                    raise SizeLimitError(f"{what} is no manifest: it has more than {MANIFEST_MAX_BYTES} bytes")
        digest.verify(raw, what)
        return ManifestContent(parse_manifest(raw, "", what).media_type, raw)

    def blob_head(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes, or None if it is not there."""
        with _marked():
            return self._registry.blob_head(repository, digest)

    @contextmanager
    def blob_get(self, repository: str, digest: Digest, offset: int = 0) -> Iterator[BlobStream]:
        """Open a blob's bytes from ``offset``; *not* verified here."""
        with _marked(), self._registry.blob_get(repository, digest, offset) as stream:
            yield stream

    def tag_list(self, repository: str) -> tuple[str, ...]:
        """Return every tag, sorted."""
        with _marked():
            return self._registry.tag_list(repository)

    def repository_list(self) -> tuple[str, ...]:
        """Return every repository that holds something, sorted."""
        with _marked():
            return self._registry.repository_list()

    def referrer_list(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the manifests whose ``subject`` is this digest."""
        with _marked():
            return self._registry.referrer_list(repository, digest)

    def manifest_put(self, repository: str, reference: str, content: ManifestContent) -> None:
        """Refuse."""
        self._refuse()

    def manifest_delete(self, repository: str, reference: str) -> bool:
        """Refuse."""
        self._refuse()

    def blob_put(self, repository: str, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Refuse."""
        self._refuse()

    def blob_mount(self, repository: str, digest: Digest, from_repository: str) -> bool:
        """Refuse."""
        self._refuse()

    def blob_delete(self, repository: str, digest: Digest) -> bool:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise RemoteError(f"{self.name} is being left: it is only read", status=_NOT_ALLOWED)


@contextmanager
def _marked() -> Iterator[None]:
    try:
        yield
    except LeftRegistryError:
        raise
    except RemoteError as error:
        raise LeftRegistryError(
            str(error),
            status=error.status,
            retryable=error.retryable,
            retry_after_seconds=error.retry_after_seconds,
        ) from error
