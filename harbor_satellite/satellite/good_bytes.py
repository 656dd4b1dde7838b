"""Good bytes for damaged content: in a file of the satellite's folder, verified, before anything is taken away."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from harbor_satellite.errors import DigestMismatchError, HarborSatelliteError, RemoteError, StorageError
from harbor_satellite.registry.api import CHUNK_BYTES
from harbor_satellite.registry.copy import Copier
from harbor_satellite.registry.layout_files import fsync_directory
from harbor_satellite.satellite.disk import DiskGuard
from harbor_satellite.satellite.options import DEFAULT_RESERVE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from hashlib import _Hash
    from pathlib import Path
    from typing import BinaryIO

    from harbor_satellite.oci.digest import Digest
    from harbor_satellite.oci.platform import Platform
    from harbor_satellite.registry.api import ManifestContent, Registry
    from harbor_satellite.satellite.connections import Connections
    from harbor_satellite.state.desired import LocalTag

_LOG = logging.getLogger(__name__)
_FOLDER: Final = "healing"
_LOCAL_TRIES: Final = 2
"""Other repositories of the site that are tried: most registries keep one file for all, so more seldom help."""


@dataclass
class GoodBytes:
    """Fetches content from where it is still good.

    Args:
        connections: the site's registries; reading from a source is metered and throttled there.
        folder: the satellite's; files are kept below it, so that a fetch that was cut goes on.
        sources: the registry that a name comes from, where it is not the one of the registration.
        reserve_bytes: of the folder's disk, that stay free.
        check_link: raises ``PausedError`` while bytes may not come from the source.
    """

    connections: Connections
    folder: Path
    sources: Mapping[LocalTag, str] = field(default_factory=dict)
    reserve_bytes: int = DEFAULT_RESERVE_BYTES
    check_link: Callable[[], None] = lambda: None
    bytes_from_source: int = 0

    def blob(self, digest: Digest, size: int, images: tuple[LocalTag, ...], elsewhere: tuple[str, ...]) -> Path:
        """Return a file with a blob's bytes, verified.

        Args:
            digest: which blob.
            size: of it, in bytes.
            images: names that need it: where to ask for it at the source.
            elsewhere: other repositories of the site that hold it, and may hold it whole.

        Raises:
            HarborSatelliteError: why it cannot be had; the last refusal where several were asked.
        """
        path = self.folder / _FOLDER / digest.hex
        self._make_room(path, size)
        if _is_good(path, digest):
            return path
        for repository in elsewhere[:_LOCAL_TRIES]:
            with contextlib.suppress(HarborSatelliteError):
                path.unlink(missing_ok=True)
                self._fetch(self.connections.target, repository, digest, size, path, is_metered=False)
                return path
        return self._blob_from_source(digest, size, images, path)

    def manifest(self, digest: Digest, images: tuple[LocalTag, ...], elsewhere: tuple[str, ...]) -> ManifestContent:
        """Return a manifest's bytes, verified; arguments and errors are those of ``blob``."""
        for repository in elsewhere:
            with contextlib.suppress(HarborSatelliteError):
                return self.connections.target.manifest_get(repository, str(digest))
        problem: HarborSatelliteError | None = None
        for source, repository in self._places(images):
            try:
                content = source.manifest_get(repository, str(digest))
            except (RemoteError, DigestMismatchError) as error:
                problem = error
            else:
                self.bytes_from_source += len(content.raw)
                return content
        raise problem or StorageError(f"nobody is known to have {digest}")

    def copy(
        self, repository: str, digest: Digest, images: tuple[LocalTag, ...], platforms: tuple[Platform, ...]
    ) -> None:
        """Bring a manifest from its source with everything below it that is not at the site; moves no tag.

        Raises:
            HarborSatelliteError: why it cannot be had.
        """
        problem: HarborSatelliteError | None = None
        for source, _ in self._places(tuple(name for name in images if name.repository == repository)):
            copier = Copier(source, self.connections.target, platforms=platforms, on_bytes=self._count)
            try:
                copier.stage(repository, digest, ())
            except (RemoteError, DigestMismatchError) as error:
                problem = error
            else:
                return
        raise problem or StorageError(f"nobody is known to have {digest}")

    def forget(self, digest: Digest) -> None:
        """Give the disk back what a blob took."""
        (self.folder / _FOLDER / digest.hex).unlink(missing_ok=True)

    def forget_all(self) -> None:
        """Give the disk back what fetches took that nobody needs any more."""
        shutil.rmtree(self.folder / _FOLDER, ignore_errors=True)

    def _count(self, size: int) -> None:
        self.bytes_from_source += size

    def _blob_from_source(self, digest: Digest, size: int, images: tuple[LocalTag, ...], path: Path) -> Path:
        problem: HarborSatelliteError | None = None
        for source, repository in self._places(images):
            try:
                self._fetch_patiently(source, repository, digest, size, path)
            except (RemoteError, DigestMismatchError) as error:
                _LOG.warning("not fetched source=%s reference=%s@%s reason=%s", source.name, repository, digest, error)
                problem = error
            else:
                return path
        raise problem or StorageError(f"nobody is known to have {digest}")

    def _places(self, images: tuple[LocalTag, ...]) -> Iterator[tuple[Registry, str]]:
        self.check_link()
        seen = set()
        for name in images:
            place = (self.sources.get(name, ""), name.repository)
            if place not in seen:
                seen.add(place)
                yield self.connections.source(place[0]), name.repository

    def _fetch_patiently(self, source: Registry, repository: str, digest: Digest, size: int, path: Path) -> None:
        """Go on after a cut as long as each try brings some bytes more."""
        while True:
            before = self.bytes_from_source
            try:
                return self._fetch(source, repository, digest, size, path, is_metered=True)
            except RemoteError as error:
                if not error.retryable or self.bytes_from_source == before:
                    raise

    def _fetch(
        self, registry: Registry, repository: str, digest: Digest, size: int, path: Path, *, is_metered: bool
    ) -> None:
        """Append what is missing of a file; what turns out wrong is thrown away."""
        try:
            with path.open("ab+") as file:
                if file.tell() >= size:
                    file.truncate(0)  # whole, and known to be wrong
                hasher = _hashed(file, digest)
                with registry.blob_get(repository, digest, file.tell()) as stream:
                    if stream.offset != file.tell():
                        file.truncate(0)
                        hasher = digest.hasher()
                    for chunk in stream:
                        file.write(chunk)
                        hasher.update(chunk)
                        self.bytes_from_source += len(chunk) if is_metered else 0
                        if file.tell() > size:
                            break
                os.fsync(file.fileno())
            fsync_directory(path.parent)
        except OSError as error:
            raise StorageError(f"cannot keep {digest} at {path}: {error.strerror}") from error
        if hasher.hexdigest() != digest.hex:
            path.unlink(missing_ok=True)
            raise DigestMismatchError(f"digest mismatch for {registry.name}/{repository}@{digest}")

    def _make_room(self, path: Path, size: int) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            here = path.stat().st_size if path.exists() else 0
        except OSError as error:
            raise StorageError(f"cannot use {path.parent}: {error.strerror}") from error
        DiskGuard(self.folder, self.reserve_bytes).check(size - here)


def chunks_of(path: Path) -> Iterator[bytes]:
    """Give a file's bytes.

    Raises:
        StorageError: the disk refuses.
    """
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def _is_good(path: Path, digest: Digest) -> bool:
    hasher = digest.hasher()
    if not path.exists():
        return False
    for chunk in chunks_of(path):
        hasher.update(chunk)
    return hasher.hexdigest() == digest.hex


def _hashed(file: BinaryIO, digest: Digest) -> _Hash:
    hasher = digest.hasher()
    file.seek(0)
    while chunk := file.read(CHUNK_BYTES):
        hasher.update(chunk)
    return hasher
