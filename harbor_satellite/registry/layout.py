"""A registry on the disk: the protocol of ``api.py`` on one OCI image layout per repository.

What lives here: names, ownership of the root and the protocol. What must not: HTTP, which is ``server.py``.

The root holds ``REPOSITORY/{oci-layout,index.json,blobs/}`` — the shape Zot keeps, so a site may change between the
two without copying — plus ``.uploads/`` and ``.lock``. Content is written beside its place, flushed to the disk and
renamed: whenever the power goes, every name that exists has its whole content.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final

from harbor_satellite.errors import DigestMismatchError, HarborSatelliteError
from harbor_satellite.oci.descriptor import MANIFEST_MAX_BYTES, Descriptor, Manifest
from harbor_satellite.oci.digest import Digest
from harbor_satellite.oci.reference import check_tag, reference_kind
from harbor_satellite.registry.layout_blobs import LayoutBlobStream
from harbor_satellite.registry.layout_files import storage_errors
from harbor_satellite.registry.layout_garbage import collect_garbage
from harbor_satellite.registry.layout_refusals import ErrorCode, RefusedError
from harbor_satellite.registry.layout_repository import RepositoryLayout
from harbor_satellite.registry.layout_root import check_layout_name, find_repositories, own_root
from harbor_satellite.registry.layout_uploads import UploadStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from harbor_satellite.registry.api import ManifestContent
    from harbor_satellite.registry.layout_uploads import UploadWriter

GARBAGE_MIN_AGE_SECONDS: Final = 24 * 3600.0
"""Default age that spares blobs whose manifest is still to come."""


class LayoutRegistry:
    """The registry protocol on a directory; synchronous, safe to use from several threads.

    Close it, or use it as a context manager, to let go of the root.

    Args:
        root: directory of all repositories; created if it is not there.
        name: how messages and references name this registry: ``host[:port]``.
        requires_content: refuse manifests whose blobs or children are not there (MANIFEST_BLOB_UNKNOWN).

    Raises:
        StorageError: the root cannot be written, or another process owns it.
    """

    def __init__(self, root: Path, name: str = "layout.local", *, requires_content: bool = True) -> None:
        self.root: Final = root
        self._name: Final = name
        self._requires_content: Final = requires_content
        self._mutex: Final = threading.Lock()
        self._lock_descriptor = own_root(root)
        try:
            self.uploads: Final = UploadStore(root / ".uploads")
            self._layouts: Final = {found: self._layout(found) for found in find_repositories(root)}
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """How messages and references name this registry: ``host[:port]``."""
        return self._name

    def close(self) -> None:
        """Let another process own the root; twice is no harm."""
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def manifest_head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest names, or None if it is not there."""
        reference_kind(reference)
        layout = self._find(repository)
        return layout.manifest_find(reference) if layout else None

    def manifest_get(self, repository: str, reference: str) -> ManifestContent:
        """Return a manifest's exact bytes, verified; see ``Registry.manifest_get``."""
        reference_kind(reference)
        layout = self._find(repository)
        descriptor = layout.index().find(reference) if layout else None
        if layout is None or descriptor is None:
            raise RefusedError(ErrorCode.MANIFEST_UNKNOWN, 404, f"no manifest {reference} in {self.name}/{repository}")
        return layout.manifest_read(descriptor)

    def manifest_put(self, repository: str, reference: str, content: ManifestContent) -> None:
        """Store a manifest under a tag or its own digest."""
        is_tag = reference_kind(reference) == "tag"
        digest = content.digest if is_tag else Digest.parse(reference)
        self.manifest_store(repository, content, digest, (reference,) if is_tag else ())

    def manifest_store(
        self, repository: str, content: ManifestContent, digest: Digest, tags: tuple[str, ...]
    ) -> Manifest:
        """Store a manifest under any number of tags at once, and return it parsed.

        Raises:
            DigestMismatchError: the bytes are not what the digest promises.
            MalformedStateError: not a manifest of a kind that is kept, or not of the kind it was sent as.
            RefusedError: 400 it names content that is not in this repository, 413 it is too large.
        """
        if len(content.raw) > MANIFEST_MAX_BYTES:
            message = f"manifest {repository}@{digest} is larger than {MANIFEST_MAX_BYTES} bytes"
            raise RefusedError(ErrorCode.SIZE_INVALID, 413, message)
        for tag in tags:
            check_tag(tag)
        return self._at(repository).manifest_store(content, digest, tags)

    def manifest_delete(self, repository: str, reference: str) -> bool:
        """Delete a tag, or a manifest by digest with every tag on it; False if it was not there.

        Raises:
            RefusedError: 405, an image index of this repository still needs the manifest.
        """
        reference_kind(reference)
        layout = self._find(repository)
        return layout.manifest_delete(reference) if layout else False

    def blob_head(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes, or None if it is not there."""
        layout = self._find(repository)
        return layout.blob_size(digest) if layout else None

    def blob_open(self, repository: str, digest: Digest) -> BinaryIO:
        """Open a blob's file for reading; the caller closes it.

        Raises:
            RefusedError: 404, it is not there.
        """
        layout = self._find(repository)
        if layout is not None:
            path = layout.blob_path(digest)
            with storage_errors(path, f"reading {digest}"), suppress(FileNotFoundError):
                return path.open("rb")
        raise RefusedError(ErrorCode.BLOB_UNKNOWN, 404, f"no blob {digest} in {self.name}/{repository}")

    @contextmanager
    def blob_get(self, repository: str, digest: Digest, offset: int = 0) -> Iterator[LayoutBlobStream]:
        """Open a blob's bytes from ``offset``; they are *not* verified here.

        Raises:
            RefusedError: 404 it is not there, 416 it is shorter than ``offset``.
        """
        what = f"{self.name}/{repository}@{digest}"
        with self.blob_open(repository, digest) as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 <= offset <= size:
                raise RefusedError(ErrorCode.RANGE_INVALID, 416, f"{what} has {size} bytes, asked from {offset}")
            file.seek(offset)
            yield LayoutBlobStream(file, offset, what)

    def blob_put(self, repository: str, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob; nothing is kept unless the bytes match digest and size. Replaces a damaged one.

        Raises:
            DigestMismatchError: the chunks are not what the descriptor promises.
        """
        identifier = self.upload_start(repository, descriptor.digest.algorithm)
        try:
            with self.uploads.open(repository, identifier) as writer:
                for chunk in chunks:
                    writer.write(chunk)
                    if writer.offset > descriptor.size:
                        break
            _check_size(writer.offset, descriptor, f"{self.name}/{repository}")
            self.upload_finish(repository, identifier, descriptor.digest)
        except BaseException:
            with suppress(HarborSatelliteError):
                self.uploads.cancel(repository, identifier)
            raise

    def blob_mount(self, repository: str, digest: Digest, from_repository: str = "") -> bool:
        """Make a blob of another repository (of any, if none is named) available in this one; no bytes move."""
        target = self._at(repository)
        with self._mutex:
            anywhere = list(self._layouts.values())
        sources = [self._find(from_repository)] if from_repository else anywhere
        return any(
            source is not None
            and source.blob_size(digest) is not None
            and (source is target or target.blob_link(digest, source.blob_path(digest)))
            for source in sources
        )

    def blob_delete(self, repository: str, digest: Digest) -> bool:
        """Delete a blob from one repository; False if it was not there.

        Raises:
            RefusedError: 405, a manifest of this repository still needs it.
        """
        layout = self._find(repository)
        return layout.blob_delete(digest) if layout else False

    def tag_list(self, repository: str) -> tuple[str, ...]:
        """Return every tag, sorted; empty for an unknown repository."""
        layout = self._find(repository)
        return tuple(sorted(layout.index().tags)) if layout else ()

    def repository_list(self) -> tuple[str, ...]:
        """Return every repository that holds a manifest, sorted."""
        with self._mutex:
            layouts = sorted(self._layouts.items())
        return tuple(repository for repository, layout in layouts if layout.index().manifests)

    def referrer_list(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the manifests whose ``subject`` is this digest, as distribution-spec lists them."""
        layout = self._find(repository)
        return tuple(
            Descriptor(
                descriptor.media_type,
                descriptor.digest,
                descriptor.size,
                artifact_type=manifest.referrer_type,
                annotations=manifest.annotations,
            )
            for descriptor, manifest in (layout.manifests() if layout else ())
            if manifest is not None and manifest.subject is not None and manifest.subject.digest == digest
        )

    def garbage_collect(
        self, older_than_seconds: float = GARBAGE_MIN_AGE_SECONDS, untagged_older_than_seconds: float | None = None
    ) -> int:
        """Remove blobs that no listed manifest reaches and that are older; returns the bytes freed.

        Manifests that no tag reaches are listed, so they and what they reach stay, unless their age is given.
        """
        with self._mutex:
            layouts = list(self._layouts.values())
        return sum(collect_garbage(layout, older_than_seconds, untagged_older_than_seconds) for layout in layouts)

    def upload_start(self, repository: str, algorithm: str = "sha256") -> str:
        """Begin an upload session and return its identifier."""
        check_layout_name(repository)
        return self.uploads.start(repository, algorithm)

    def upload_open(self, repository: str, identifier: str, offset: int | None = None) -> UploadWriter:
        """Open an upload session for appending; see ``UploadStore.open``."""
        return self.uploads.open(check_layout_name(repository), identifier, offset)

    def upload_size(self, repository: str, identifier: str) -> int:
        """Return how many bytes an upload session holds."""
        return self.uploads.size(check_layout_name(repository), identifier)

    def upload_finish(self, repository: str, identifier: str, digest: Digest) -> int:
        """Verify an upload session and publish it as a blob; returns its size in bytes."""
        target = self._at(repository).blob_path(digest)
        return self.uploads.finish(repository, identifier, digest, target)

    def upload_cancel(self, repository: str, identifier: str) -> bool:
        """Drop an upload session; False if there is none."""
        return self.uploads.cancel(check_layout_name(repository), identifier)

    def _find(self, repository: str) -> RepositoryLayout | None:
        check_layout_name(repository)
        with self._mutex:
            return self._layouts.get(repository)

    def _at(self, repository: str) -> RepositoryLayout:
        check_layout_name(repository)
        with self._mutex:
            return self._layouts.setdefault(repository, self._layout(repository))

    def _layout(self, repository: str) -> RepositoryLayout:
        uploads = self.uploads.directory
        directory = self.root / repository
        return RepositoryLayout(directory, repository, uploads, requires_content=self._requires_content)


def _check_size(size: int, descriptor: Descriptor, where: str) -> None:
    if size != descriptor.size:
        got = f"{size} bytes" if size < descriptor.size else "more"
        message = f"size mismatch for {where}@{descriptor.digest}: expected {descriptor.size} bytes, got {got}"
        raise DigestMismatchError(message)
