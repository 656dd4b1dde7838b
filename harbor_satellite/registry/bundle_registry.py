"""``Registry``, read-only, on a bundle: one file or its parts, read at any place, from many threads.

What lives here: the protocol. What must not: how a bundle is laid out (``bundle_reader``) or cut (``bundle_parts``).
"""

# ruff: noqa: ARG002  (the protocol's words; a bundle has no use for some)
from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, Self

from harbor_satellite.errors import BundleError, RemoteError
from harbor_satellite.oci.descriptor import MANIFEST_MAX_BYTES, Descriptor, parse_manifest
from harbor_satellite.oci.digest import Digest
from harbor_satellite.registry.api import ManifestContent
from harbor_satellite.registry.bundle_parts import PartReader
from harbor_satellite.registry.bundle_reader import read_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from harbor_satellite.registry.api import BlobStream

_NOT_FOUND: Final = 404
_NOT_ALLOWED: Final = 405


@dataclass(frozen=True, slots=True)
class BundleBlobStream:
    """A blob's bytes out of a bundle."""

    offset: int
    chunks: Iterator[bytes]

    def __iter__(self) -> Iterator[bytes]:
        """Give the bytes."""
        return self.chunks


class BundleRegistry:
    """A bundle as a registry to copy from; close it, or use it as a context manager.

    Content is found by its digest, whatever repository it is asked for in: a bundle holds everything once.

    Args:
        path: the bundle, or the first of its parts.

    Raises:
        InvalidInputError: there is no such file.
        BundleError: it is no bundle, a part is missing or was cut short, or its directory is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._parts: Final = PartReader(path)
        try:
            self._directory: Final = read_directory(self._parts)
        except BaseException:
            self._parts.close()
            raise
        self._guard = threading.Lock()
        self._read = 0

    @property
    def name(self) -> str:
        """How messages name it: the file's name."""
        return self._parts.name

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return self._parts.size

    @property
    def annotations(self) -> Mapping[str, str]:
        """What its index.json says about the whole."""
        return self._directory.annotations

    @property
    def bytes_read(self) -> int:
        """Bytes of content given out so far."""
        return self._read

    def check(self, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        """Read every part once and hold it against its sum.

        Args:
            on_bytes: told of every chunk read (bytes).

        Raises:
            BundleError: a part is damaged, or is another one's; the message names it.
        """
        self._parts.check(self._directory.contents.segments, on_bytes)

    def manifest_head(self, repository: str, reference: str) -> Descriptor | None:
        """Return what a tag or digest names, or None if the bundle does not carry it."""
        digest = self._resolve(repository, reference)
        if digest is None or digest not in self._directory.places:
            return None
        content = self.manifest_get(repository, reference)
        return Descriptor(content.media_type, digest, len(content.raw))

    def manifest_get(self, repository: str, reference: str) -> ManifestContent:
        """Return a manifest's exact bytes, verified.

        Raises:
            RemoteError: ``.status == 404`` if the bundle does not carry it.
            DigestMismatchError: it is damaged.
        """
        digest = self._resolve(repository, reference)
        place = self._directory.places.get(digest) if digest else None
        if digest is None or place is None:
            raise self._absent(f"manifest {repository}{'@' if ':' in reference else ':'}{reference}")
        what = f"{self.name}, {repository}@{digest}"
        if place[1] > MANIFEST_MAX_BYTES:
            raise BundleError(f"{what} is no manifest: it has {place[1]} bytes")
        raw = self._parts.read(*place)
        digest.verify(raw, what)
        self._count(len(raw))
        media_type = parse_manifest(raw, self._directory.contents.media_types.get(digest, ""), what).media_type
        return ManifestContent(media_type, raw)

    def blob_head(self, repository: str, digest: Digest) -> int | None:
        """Return a blob's size in bytes, or None if the bundle does not carry it."""
        place = self._directory.places.get(digest)
        return place[1] if place else None

    @contextmanager
    def blob_get(self, repository: str, digest: Digest, offset: int = 0) -> Iterator[BlobStream]:
        """Open a blob's bytes from ``offset``; *not* verified here.

        Raises:
            RemoteError: ``.status == 404`` if the bundle does not carry it.
        """
        place = self._directory.places.get(digest)
        if place is None:
            raise self._absent(f"blob {repository}@{digest}")
        start, size = place
        offset = min(offset, size)
        yield BundleBlobStream(offset, self._counted(self._parts.chunks(start + offset, size - offset)))

    def tag_list(self, repository: str) -> tuple[str, ...]:
        """Return every tag, sorted; empty for an unknown repository."""
        return tuple(sorted(name for of, name in self._directory.names if of == repository and ":" not in name))

    def repository_list(self) -> tuple[str, ...]:
        """Return every repository that has a name in the bundle, sorted."""
        return tuple(sorted({repository for repository, _ in self._directory.names}))

    def referrer_list(self, repository: str, digest: Digest) -> tuple[Descriptor, ...]:
        """Return the manifests whose ``subject`` is this digest, as the source named them at export."""
        return self._directory.referrers.get((repository, digest), ())

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

    def close(self) -> None:
        """Close the files."""
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _resolve(self, repository: str, reference: str) -> Digest | None:
        if ":" in reference:
            return Digest.parse(reference)
        found = self._directory.names.get((repository, reference))
        return found.digest if found else None

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._count(len(chunk))
            yield chunk

    def _count(self, size: int) -> None:
        with self._guard:
            self._read += size

    def _absent(self, what: str) -> RemoteError:
        return RemoteError(f"{what} is not in {self.name}", status=_NOT_FOUND)

    def _refuse(self) -> NoReturn:
        raise RemoteError(f"{self.name} is a bundle: it is only read", status=_NOT_ALLOWED)
